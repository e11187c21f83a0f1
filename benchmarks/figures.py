"""Figures: a benchmark returns a dataclass of them, and each carries its label and unit with it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any


class MeasurementFailed(Exception):
    """What was measured did not do what it was measured for, so its time means nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """One measured value, for people and programs."""

    name: str
    label: str
    unit: str
    value: float | None
    """None: this platform cannot tell."""


def figure(label: str, unit: str) -> Any:
    """Declare a field of a benchmark's dataclass as a figure."""
    return dataclasses.field(metadata={"label": label, "unit": unit})


def figures_of(result: Any) -> list[Figure]:
    """The figures of a benchmark's dataclass, in the order in which it declares them."""
    return [
        Figure(field.name, field.metadata["label"], field.metadata["unit"], getattr(result, field.name))
        for field in dataclasses.fields(result)
    ]


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that ``percent`` of ``values`` do not exceed (nearest rank)."""
    if not values:
        raise MeasurementFailed("nothing was measured")
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]
