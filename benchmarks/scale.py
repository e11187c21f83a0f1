"""How much to measure: the same for every benchmark, which takes from it what it needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Seconds that one measurement lasts, connections in the largest table, milliseconds that the provider takes to answer."""

    seconds: float = 4.0
    rows: int = 100_000
    latency_ms: float = 200.0
