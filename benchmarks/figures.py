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
    """The figures of a benchmark's dataclass, in the order in which it declares them.

    A field may hold a dataclass of figures in its turn: the field's name goes before theirs. ``None`` has none.
    """
    return [figure for field in dataclasses.fields(result) for figure in _of_field(field, getattr(result, field.name))]


def _of_field(field: dataclasses.Field[Any], value: Any) -> list[Figure]:
    if field.metadata:
        return [Figure(field.name, field.metadata["label"], field.metadata["unit"], value)]
    words = field.name.replace("_", " ")
    return [
        dataclasses.replace(figure, name=f"{field.name}_{figure.name}", label=f"{words}: {figure.label}")
        for figure in (figures_of(value) if value is not None else [])
    ]


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that ``percent`` of ``values`` do not exceed (nearest rank)."""
    if not values:
        raise MeasurementFailed("nothing was measured")
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]
