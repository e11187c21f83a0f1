"""What the database server has used and done so far; of SQLite, which has no server, nothing is known."""

from __future__ import annotations

from django.db import connection as database

from benchmarks.processes import parent_of, tree_cpu_seconds


def server_cpu_seconds() -> float | None:
    """The CPU time of all PostgreSQL's processes, those of closed connections included. It has to run on this machine."""
    if database.vendor != "postgresql":
        return None
    postmaster = parent_of(_asked("SELECT pg_backend_pid()"))
    return None if postmaster is None else tree_cpu_seconds(postmaster)


def transactions() -> int | None:
    """How many transactions were committed in this database. A connection tells its own once a second, and when it is idle."""
    if database.vendor != "postgresql":
        return None
    return _asked("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")


def statements() -> int | None:
    """How many statements were executed in this database, but for those that only begin or end a transaction.

    Known where the server was started with `pg_stat_statements`, and counted from the first call on.
    """
    if database.vendor != "postgresql" or "pg_stat_statements" not in _shown("shared_preload_libraries"):
        return None
    with database.cursor() as cursor:
        cursor.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    return _asked(
        "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements JOIN pg_database ON oid = dbid "
        "WHERE datname = current_database() AND query !~* '^(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)'"
    )


def _shown(setting: str) -> str:
    with database.cursor() as cursor:
        cursor.execute(f"SHOW {setting}")
        return str(cursor.fetchone()[0])


def _asked(sql: str) -> int:
    with database.cursor() as cursor:
        cursor.execute(sql)
        return int(cursor.fetchone()[0])
