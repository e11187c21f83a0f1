"""How long a worker's claim takes, which should grow with what is claimed and not with what is stored."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from statistics import median

from benchmarks.figures import MeasurementFailed, figure
from benchmarks.provider import client_at
from benchmarks.rows import add_connections, make_due, put_back
from benchmarks.scale import Scale
from oauth_app.claim import claim_due
from tests.factories import an_account

DUE = 200
CLAIMS = 15


@dataclass(frozen=True, slots=True)
class Claiming:
    """Times of one claim, rows read back and turned into connections."""

    rows: int = figure("connections in the table", "")
    due: int = figure("of these due, and claimed at once", "")
    median_ms: float = figure("claim, median", "ms")
    slowest_ms: float = figure("claim, slowest", "ms")


def measure(scale: Scale) -> Claiming:
    """Claim the same number of due connections again and again, each time others, scattered over the table."""
    ids = add_connections(an_account(), client_at("https://provider.example/token"), scale.rows)
    due = min(DUE, len(ids))
    # The first one pays for what a worker pays for once.
    times = [_claim(random.sample(ids, due)) for _ in range(CLAIMS + 1)][1:]
    return Claiming(rows=len(ids), due=due, median_ms=median(times) * 1000, slowest_ms=max(times) * 1000)


def _claim(due: list) -> float:
    make_due(due)
    began = time.perf_counter()
    claimed = claim_due(len(due))
    seconds = time.perf_counter() - began
    if {row.pk for row in claimed} != set(due):
        raise MeasurementFailed(f"{len(claimed)} of {len(due)} due connections were claimed")
    put_back(due)
    return seconds
