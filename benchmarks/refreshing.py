"""How many refreshes one sweeping process sustains, and what each costs."""

from __future__ import annotations

import math
import resource
import time
from dataclasses import dataclass
from unittest import mock

from django.db.models import Sum

from benchmarks.figures import MeasurementFailed, figure
from benchmarks.processes import cpu_seconds
from benchmarks.provider import LightProvider
from benchmarks.rows import add_connections, make_due, owners
from benchmarks.scale import Scale
from oauth_app import sweep
from oauth_app.models import Connection
from oauth_app.sweep import CALL_SLOTS, Sweeper

# More than one process can do however quick the provider is; so many connections are made due for each second.
MOST_PER_SECOND = 1_500


@dataclass(frozen=True, slots=True)
class Refreshing:
    """A sweeper with all its call slots, always with more due connections than it can take."""

    latency_ms: float = figure("the provider answers after", "ms")
    seconds: float = figure("measured for", "s")
    refreshes: int = figure("refreshes stored", "")
    refreshes_per_second: float = figure("rate", "refreshes/s")
    ceiling_per_second: float = figure("ceiling of the call slots at that latency", "refreshes/s")
    cpu_ms: float = figure("CPU of the sweeping process, per refresh", "ms")
    provider_cpu_ms: float | None = figure("CPU of the provider, per refresh", "ms")


def measure(scale: Scale) -> Refreshing:
    """Sweep for the given time; what counts is what was stored, and the time until the last call was."""
    ceiling = CALL_SLOTS / (scale.latency_ms / 1000)
    enough = math.ceil(min(ceiling, MOST_PER_SECOND) * scale.seconds) + 3 * CALL_SLOTS
    with LightProvider(scale.latency_ms) as provider:
        ids = add_connections(owners(provider.token_urls), enough)
        _warm_up(ids[:CALL_SLOTS])
        make_due(ids[CALL_SLOTS:])
        generations = _generations()
        own_cpu, provider_cpu = _own_cpu(), cpu_seconds(provider.pid)
        began = time.perf_counter()
        swept = _sweep(scale.seconds)
        seconds = time.perf_counter() - began
        own_cpu, provider_cpu_after = _own_cpu() - own_cpu, cpu_seconds(provider.pid)
    stored = _generations() - generations
    if not 0 < stored == swept:
        raise MeasurementFailed(f"{stored} of {swept} refreshes were stored")
    if swept == len(ids) - CALL_SLOTS:
        raise MeasurementFailed(f"all {swept} due connections were refreshed before the time was over")
    known = provider_cpu is not None and provider_cpu_after is not None
    return Refreshing(
        latency_ms=scale.latency_ms,
        seconds=seconds,
        refreshes=stored,
        refreshes_per_second=stored / seconds,
        ceiling_per_second=ceiling,
        cpu_ms=own_cpu / stored * 1000,
        provider_cpu_ms=(provider_cpu_after - provider_cpu) / stored * 1000 if known else None,
    )


def _sweep(seconds: float) -> int:
    """Tick for so long, then wait for the calls in flight; returns how many were sent."""
    sweeper = Sweeper()
    ends_at = time.monotonic() + seconds
    swept = 0
    while (left := ends_at - time.monotonic()) > 0:
        # A tick goes on while there is work; the last one has to end when the time is over.
        with mock.patch.object(sweep, "LONGEST_TICK", min(sweep.LONGEST_TICK, left)):
            swept += sweeper.tick()
    sweeper.stop()
    return swept


def _warm_up(ids: list) -> None:
    make_due(ids)
    sweeper = Sweeper()
    sweeper.tick()
    sweeper.stop()


def _generations() -> int:
    """Grows by one with every token that is stored."""
    total: int = Connection.objects.aggregate(total=Sum("generation"))["total"]
    return total


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
