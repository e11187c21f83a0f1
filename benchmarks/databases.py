"""The databases that are measured on: made for the run, on loopback, and gone with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from tests.support.services import NoPostgres, postgres_binaries, postgresql, valkey

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
            # The tests' own does not wait for the disk, which would make every write look cheaper than it is.
            database, broker = stack.enter_context(postgresql(durable=True)), stack.enter_context(valkey())
            found["postgresql"] = {"DATABASE_URL": database, "REDIS_URL": broker}
        yield found


def has_postgres() -> bool:
    try:
        postgres_binaries()
    except NoPostgres:
        return False
    return True
