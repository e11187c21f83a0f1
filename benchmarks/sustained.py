"""How many refreshes the workers of one machine sustain, and what each costs: real processes, as the Procfile starts them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Sum
from django.db.models.functions import Now

from benchmarks.figures import MeasurementFailed, figure
from benchmarks.processes import cpu_seconds, is_connected, memory_mb
from benchmarks.provider import LightProvider
from benchmarks.rows import ACCOUNTS, add_connections, make_all_due, owners
from benchmarks.scale import Scale
from benchmarks.server import server_cpu_seconds, statements, transactions
from benchmarks.workers import Workers, running_workers
from oauth_app.models import Connection

# More than the workers of one machine can do; so many connections are made due for each second.
MOST_PER_SECOND = 1_500
# Seconds until all workers call, at most, and then until they are as busy as they get.
START = 40.0
WARM_UP = 3.0


@dataclass(frozen=True, slots=True)
class Run:
    """So many workers and one beat, with always more due than they can take."""

    seconds: float = figure("measured for", "s")
    refreshes: int = figure("refreshes stored", "")
    refreshes_per_second: float = figure("rate", "refreshes/s")
    cpu_ms: float | None = figure("CPU of workers and beat, per refresh", "ms")
    database_cpu_ms: float | None = figure("CPU of PostgreSQL, per refresh", "ms")
    provider_cpu_ms: float | None = figure("CPU of the provider, per answer", "ms")
    statements: float | None = figure("SQL statements, claims included, per refresh", "")
    transactions: float | None = figure("transactions, per refresh", "")
    resident_mb: float | None = figure("memory of a worker, resident", "MB")
    proportional_mb: float | None = figure("memory of a worker, proportional (PSS)", "MB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sustained:
    """The same with one worker and with two."""

    latency_ms: float = figure("the provider answers after", "ms")
    accounts: int = figure("accounts", "")
    hosts: int = figure("token hosts", "")
    connections: int = figure("connections in the table", "")
    one_worker: Run
    two_workers: Run


@dataclass(frozen=True, slots=True)
class _Counters:
    """What was used and done up to a moment."""

    at: float
    stored: int
    answers: int
    cpu: float | None
    database_cpu: float | None
    provider_cpu: float | None
    statements: int | None
    transactions: int | None


def measure(scale: Scale) -> Sustained:
    """Let one worker refresh for the given time, then two; what counts is what was stored."""
    with LightProvider(scale.latency_ms) as provider:
        count = math.ceil(MOST_PER_SECOND * (scale.seconds + WARM_UP))
        add_connections(owners(provider.token_urls), count)
        one, two = (_run(workers, provider, scale.seconds) for workers in (1, 2))
    return Sustained(
        latency_ms=scale.latency_ms,
        accounts=ACCOUNTS,
        hosts=len(provider.token_urls),
        connections=count,
        one_worker=one,
        two_workers=two,
    )


def _run(count: int, provider: LightProvider, seconds: float) -> Run:
    make_all_due()
    stored, answers = _generations(), provider.answers()
    with running_workers(count) as workers:
        workers.wait_until(lambda: all(is_connected(pid, provider.ports) for pid in workers.pids), START)
        time.sleep(min(seconds, WARM_UP))
        before = _counters(workers, provider)
        time.sleep(seconds)
        after = _counters(workers, provider)
        memory = [memory_mb(pid) for pid in workers.pids]
        if not Connection.objects.filter(refresh_due_at__lte=Now(), lease_owner=None).exists():
            raise MeasurementFailed("all that was due was refreshed before the time was over")
        workers.check()
        workers.stop()
    stored, answers = _generations() - stored, provider.answers() - answers
    if stored != answers:
        raise MeasurementFailed(f"{stored} of {answers} answers were stored")
    return _result(before, after, memory)


def _counters(workers: Workers, provider: LightProvider) -> _Counters:
    return _Counters(
        at=time.perf_counter(),
        stored=_generations(),
        answers=provider.answers(),
        cpu=workers.cpu_seconds(),
        database_cpu=server_cpu_seconds(),
        provider_cpu=cpu_seconds(provider.pid),
        statements=statements(),
        transactions=transactions(),
    )


def _result(before: _Counters, after: _Counters, memory: Sequence[tuple[float, float] | None]) -> Run:
    stored = after.stored - before.stored
    if stored <= 0:
        raise MeasurementFailed("nothing was stored")

    def per_refresh(name: str, of: int = stored) -> float | None:
        began, ended = getattr(before, name), getattr(after, name)
        return None if began is None or ended is None else (ended - began) / of

    def milliseconds(seconds: float | None) -> float | None:
        return None if seconds is None else seconds * 1000

    return Run(
        seconds=after.at - before.at,
        refreshes=stored,
        refreshes_per_second=stored / (after.at - before.at),
        cpu_ms=milliseconds(per_refresh("cpu")),
        database_cpu_ms=milliseconds(per_refresh("database_cpu")),
        provider_cpu_ms=milliseconds(per_refresh("provider_cpu", max(1, after.answers - before.answers))),
        statements=per_refresh("statements"),
        transactions=per_refresh("transactions"),
        resident_mb=max((used[0] for used in memory if used), default=None),
        proportional_mb=max((used[1] for used in memory if used), default=None),
    )


def _generations() -> int:
    """Grows by one with every token that is stored."""
    generations: int = Connection.objects.aggregate(total=Sum("generation"))["total"]
    return generations
