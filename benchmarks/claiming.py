"""How long a worker's claim takes, which should grow with what is claimed and not with what is stored."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from django.db import connection as database

from benchmarks.copies import add_copies
from benchmarks.figures import MeasurementFailed, figure
from benchmarks.rows import make_due, owners, put_back
from benchmarks.scale import Scale
from oauth_app.claim import claim_due

DUE = 200
CLAIMS = 15
# Connections in the tables that are claimed from, as far as the scale allows.
SIZES = (10_000, 100_000, 1_000_000)
# SQLite is for one machine's own use, where nobody has a million connections.
SIZES_OF_SQLITE = SIZES[:2]


@dataclass(frozen=True, slots=True)
class Claims:
    """Times of one claim, rows read back and turned into connections."""

    rows: int = figure("connections in the table", "")
    due: int = figure("of these due, and claimed at once", "")
    median_ms: float = figure("claim, median", "ms")
    slowest_ms: float = figure("claim, slowest", "ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claiming:
    """The same in a table that grows, by what it holds."""

    small_table: Claims
    larger_table: Claims | None
    largest_table: Claims | None
    growth: float = figure("claim, median, of the last as a multiple of the first", "")


def measure(scale: Scale) -> Claiming:
    """Claim the same number of due connections again and again, each time others, scattered over the table."""
    new_owners = owners([f"https://provider-{number}.example/token" for number in range(4)])
    ids: list[uuid.UUID] = []
    measured: list[Claims] = []
    sizes = SIZES_OF_SQLITE if database.vendor == "sqlite" else SIZES
    for size in [size for size in sizes if size <= scale.rows] or [scale.rows]:
        ids = add_copies(new_owners, size - len(ids))
        _settle()
        measured.append(_claims(ids))
    small, larger, largest, *_ = [*measured, None, None]
    assert small is not None
    return Claiming(
        small_table=small, larger_table=larger, largest_table=largest, growth=measured[-1].median_ms / small.median_ms
    )


def _claims(ids: Sequence[uuid.UUID]) -> Claims:
    due = min(DUE, len(ids))
    # The first one pays for what a worker pays for once.
    times = [_claim(random.sample(ids, due)) for _ in range(CLAIMS + 1)][1:]
    return Claims(rows=len(ids), due=due, median_ms=median(times) * 1000, slowest_ms=max(times) * 1000)


def _claim(due: Sequence[uuid.UUID]) -> float:
    make_due(due)
    began = time.perf_counter()
    claimed = claim_due(len(due))
    seconds = time.perf_counter() - began
    if {row.pk for row in claimed} != set(due):
        raise MeasurementFailed(f"{len(claimed)} of {len(due)} due connections were claimed")
    put_back(due)
    return seconds


def _settle() -> None:
    """Have what was just added written to disk now, and not beside the claims."""
    if database.vendor == "postgresql":
        with database.cursor() as cursor:
            cursor.execute("CHECKPOINT")
