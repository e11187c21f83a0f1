"""The databases that are measured on: made for the run, on loopback, and gone with it."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg

from tests.support.services import NoPostgres, Postgres, postgres_binaries, valkey
from tests.support.stoppable import Stoppable

# The environment that makes a process work on a database, by the database's name.
Environments = dict[str, Mapping[str, str]]


@contextlib.contextmanager
def environments(chosen: str) -> Iterator[Environments]:
    """The environments of ``chosen``: `sqlite`, `postgres`, `both`, or `auto` for both where PostgreSQL is installed.

    Raises ``NoPostgres`` where it is asked for by name and missing.
    """
    with contextlib.ExitStack() as stack:
        found: Environments = {}
        if chosen != "postgres":
            found["sqlite"] = {}
        if chosen in ("postgres", "both") or (chosen == "auto" and has_postgres()):
            database, broker = stack.enter_context(_postgresql()), stack.enter_context(valkey())
            found["postgresql"] = {"DATABASE_URL": database, "REDIS_URL": broker}
        yield found


@contextlib.contextmanager
def _postgresql() -> Iterator[str]:
    """A new cluster that counts statements, if its server came with what counts them; yields the URL of its empty database.

    Unlike the tests' own it waits for the disk: otherwise every write would look cheaper than it is.
    """
    with tempfile.TemporaryDirectory(prefix="kc-postgres-") as name:
        server = Postgres(Path(name), durable=True)
        if (postgres_binaries().parent / "lib" / "pg_stat_statements.so").exists():
            server.command += ["-c", "shared_preload_libraries=pg_stat_statements"]
        running = Stoppable(server, psycopg.OperationalError, **server.options)
        try:
            running.start()
            yield server.url
        finally:
            # Rolls back what is open, and ends in good order.
            running.stop(signal.SIGINT)


def has_postgres() -> bool:
    try:
        postgres_binaries()
    except NoPostgres:
        return False
    return True
