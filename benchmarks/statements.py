"""How many SQL statements a fresh read and a refresh cost, counted in Django in whatever thread they are executed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from django.db.backends.utils import CursorWrapper

from benchmarks.figures import MeasurementFailed, figure
from benchmarks.provider import LightProvider
from benchmarks.rows import add_connections, make_due, owners, owners_in
from benchmarks.scale import Scale
from oauth_app.models import Connection
from oauth_app.sweep import CALL_SLOTS, Sweeper
from tests.factories import Caller

# So many times the call slots are due where the sweep cannot take everything at once.
RUSH = 8
# Seconds for that.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Statements:
    """Counts, not times, of a process that has done the same before."""

    per_fresh_read: int = figure("per read of a fresh token", "statements")
    batch: int = figure("call slots of the sweep", "")
    per_refresh: float = figure("per refresh, as many due as slots", "statements")
    per_refresh_in_a_rush: float = figure(f"per refresh, {RUSH} times as many due", "statements")


def measure(scale: Scale) -> Statements:
    """Count those of one read through all middleware, and those of ticks that refresh everything that is due."""
    caller = Caller()
    with LightProvider(scale.latency_ms) as provider:
        (read,) = add_connections(owners_in(caller.account, provider.token_urls), 1)
        ids = add_connections(owners(provider.token_urls), RUSH * CALL_SLOTS)
        batch = ids[:CALL_SLOTS]
        path = f"/v1/secrets/{Connection.objects.get(pk=read).secret_id}/oauth2/token"
        return Statements(
            per_fresh_read=_counted(lambda: _read(caller, path)),
            batch=len(batch),
            per_refresh=_counted(lambda: _sweep(len(batch)), lambda: make_due(batch)) / len(batch),
            per_refresh_in_a_rush=_counted(lambda: _sweep(len(ids)), lambda: make_due(ids)) / len(ids),
        )


def _read(caller: Caller, path: str) -> None:
    answer = caller.get(path, Host="localhost")
    if answer.status_code != 200:
        raise MeasurementFailed(f"a read was answered with {answer.status_code}")


def _sweep(due: int) -> None:
    """Refresh all that is due, in one tick if that is long enough."""
    sweeper = Sweeper()
    swept, deadline = 0, time.monotonic() + PATIENCE
    while swept < due:
        taken = sweeper.tick()
        if time.monotonic() > deadline:
            raise MeasurementFailed(f"{swept} of {due} due connections were swept")
        # What found its host or its account with all it may have is due again in a moment.
        time.sleep(0 if taken else 0.01)
        swept += taken
    sweeper.stop()


def _counted(call: Callable[[], None], prepare: Callable[[], None] = lambda: None) -> int:
    """The statements of ``call`` when it is made a second time; those of ``prepare``, made before each, do not count."""
    prepare()
    call()
    prepare()
    with _counting() as executed:
        call()
    return len(executed)


@contextlib.contextmanager
def _counting() -> Iterator[list[str]]:
    """The statements that this process executes, in threads that may be older than the count; of many at once, each."""
    executed: list[str] = []
    execute, executemany = CursorWrapper.execute, CursorWrapper.executemany

    def counted(cursor: Any, sql: str, params: Any = None) -> Any:
        executed.append(sql)
        return execute(cursor, sql, params)

    def counted_many(cursor: Any, sql: str, param_list: Any) -> Any:
        sets = list(param_list)
        executed.extend([sql] * len(sets))
        return executemany(cursor, sql, sets)

    with mock.patch.multiple(CursorWrapper, execute=counted, executemany=counted_many):
        yield executed
