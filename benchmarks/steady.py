"""How late a refresh is in a vault that is not short of anything: 50,000 connections, of which some fall due at every moment."""

from __future__ import annotations

import math
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from benchmarks.copies import add_copies
from benchmarks.figures import MeasurementFailed, figure, percentile
from benchmarks.provider import LightProvider
from benchmarks.rows import LIFETIME, add_connections, make_due, owners
from benchmarks.scale import Scale
from benchmarks.workers import running_workers
from knoxcall.clock import database_now
from oauth_app.models import Connection

CONNECTIONS = 50_000
# A token of an hour is renewed five minutes before its end.
INTERVAL = LIFETIME - timedelta(minutes=5)
# Refreshed before anything is measured, by a worker that has just begun.
FIRST = 20
# Seconds until the first is due, for each whose moment has to be written down before.
LEAD = 0.01
# Seconds for the worker to start, and that a refresh may be late before it counts as not made.
PATIENCE = 40.0


@dataclass(frozen=True, slots=True)
class Steady:
    """One worker and one beat. What is refreshed is due at random moments; done is what the row says of its last refresh."""

    connections: int = figure("connections in the table", "")
    latency_ms: float = figure("the provider answers after", "ms")
    seconds: float = figure("measured for", "s")
    refreshes: int = figure("fell due meanwhile, and were refreshed", "")
    p50_ms: float = figure("from due to done, p50", "ms")
    p99_ms: float = figure("from due to done, p99", "ms")
    slowest_ms: float = figure("from due to done, slowest", "ms")
    cpu_percent: float | None = figure("CPU of worker and beat, of one core", "%")


def measure(scale: Scale) -> Steady:
    """Let connections fall due for the given time, as many a second as would of all, and look when each was refreshed."""
    count = math.ceil(CONNECTIONS / INTERVAL.total_seconds() * scale.seconds)
    with LightProvider(scale.latency_ms) as provider:
        # Only what falls due is ever opened.
        add_copies(owners(provider.token_urls), max(1, min(scale.rows, CONNECTIONS) - count - FIRST))
        ids = add_connections(owners(provider.token_urls), count + FIRST)
        with running_workers(1) as workers:
            make_due(ids[:FIRST])
            workers.wait_until(lambda: provider.answers() >= FIRST, PATIENCE)
            due = _spread(ids[FIRST:], scale.seconds)
            time.sleep(max(0.0, (min(due.values()) - database_now()).total_seconds()))
            began, cpu = time.perf_counter(), workers.cpu_seconds()
            time.sleep(scale.seconds)
            lasted, cpu_after = time.perf_counter() - began, workers.cpu_seconds()
            workers.wait_until(lambda: not Connection.objects.filter(pk__in=due, generation=1).exists(), PATIENCE)
            workers.stop()
    delays = _delays(due)
    return Steady(
        connections=Connection.objects.count(),
        latency_ms=scale.latency_ms,
        seconds=lasted,
        refreshes=len(delays),
        p50_ms=percentile(delays, 50) * 1000,
        p99_ms=percentile(delays, 99) * 1000,
        slowest_ms=max(delays) * 1000,
        cpu_percent=None if cpu is None or cpu_after is None else (cpu_after - cpu) / lasted * 100,
    )


def _spread(ids: Sequence[uuid.UUID], seconds: float) -> dict[uuid.UUID, datetime]:
    """Let each fall due at a random moment of the time that is measured; returns when."""
    begins = database_now() + timedelta(seconds=1 + LEAD * len(ids))
    due = {pk: begins + timedelta(seconds=random.uniform(0, seconds)) for pk in ids}
    for pk, due_at in due.items():
        Connection.objects.filter(pk=pk).update(refresh_due_at=due_at)
    if database_now() > begins:
        raise MeasurementFailed("some were due before all of them had been told when")
    return due


def _delays(due: Mapping[uuid.UUID, datetime]) -> list[float]:
    """The seconds from the moment when each was due to that of its refresh."""
    rows = Connection.objects.filter(pk__in=due).values_list("pk", "generation", "refreshed_at")
    delays = [(refreshed_at - due[pk]).total_seconds() for pk, generation, refreshed_at in rows if generation == 2]
    if len(delays) != len(due) or min(delays) < 0:
        raise MeasurementFailed(f"{len(delays)} of {len(due)} were refreshed once, the first after {min(delays):.3f} s")
    return delays
