"""How many SQL statements a fresh read and a refresh cost, counted in Django on every connection to the database."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connection as database
from django.db.backends.signals import connection_created

from benchmarks.figures import MeasurementFailed, figure
from benchmarks.provider import client_at, rotating_provider
from benchmarks.rows import add_connections, make_due
from benchmarks.scale import Scale
from oauth_app.models import Connection
from oauth_app.sweep import CALL_SLOTS, Sweeper
from tests.factories import Caller

# So many times the call slots are due where the sweep cannot take everything at once.
RUSH = 8


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
    with rotating_provider(scale.latency_ms) as provider:
        ids = add_connections(caller.account, client_at(provider.token_url), RUSH * CALL_SLOTS)
        batch = ids[:CALL_SLOTS]
        path = f"/v1/secrets/{Connection.objects.values_list('secret_id', flat=True)[0]}/oauth2/token"
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
    swept = 0
    while swept < due:
        taken = sweeper.tick()
        if not taken:
            raise MeasurementFailed(f"{swept} of {due} due connections were swept")
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
    """The statements that this process executes, in whatever thread: each of them opens a connection of its own."""
    executed: list[str] = []

    def note(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        executed.append(sql)
        return execute(sql, params, many, context)

    def watch(connection: Any, **_: Any) -> None:
        if note not in connection.execute_wrappers:
            connection.execute_wrappers.append(note)

    connection_created.connect(watch)
    try:
        with database.execute_wrapper(note):
            yield executed
    finally:
        connection_created.disconnect(watch)
