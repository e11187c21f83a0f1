"""Claiming connections to refresh: who may call the provider, decided by one UPDATE.

A claim marks owner, lease and attempt, and is committed before anything is sent. The attempt mark is the journal of intent: a
lease that ran out with its mark still set means that a request may have been sent and its answer lost. The next claim moves
such a mark to ``outcome_unknown_at`` in the same statement, so that a crash is never taken for an attempt that was not made.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import Any

from django.db import connection as database

from oauth_app.models import Connection

# Longer than a call may last (20 s), so that a lease never ends while its request is on the wire.
LEASE = timedelta(seconds=45)
# Seconds that a call, its store and its waiting for a database may take together.
LONGEST_CALL = 30.0
# The columns of a connection that nobody holds.
RELEASED: dict[str, None] = {"lease_owner": None, "lease_expires_at": None, "attempt_started_at": None}


def claim_due(limit: int) -> list[Connection]:
    """Claim up to ``limit`` due connections, the oldest deadline first. All share one owner.

    On PostgreSQL rows that another worker is claiming are skipped. The limit sits in a materialized CTE: inside `IN (…)` the
    planner may run the subquery again for every row, and exceed it.
    """
    now, lease_end = _now(), _lease_end()
    due = f"refresh_due_at <= {now} AND (lease_expires_at IS NULL OR lease_expires_at < {now})"
    skip = " FOR UPDATE SKIP LOCKED" if database.features.has_select_for_update_skip_locked else ""
    table = Connection._meta.db_table
    return _update(
        f"WITH due AS MATERIALIZED (SELECT id FROM {table} WHERE {due} ORDER BY refresh_due_at LIMIT %s{skip}) "  # noqa: S608
        f"UPDATE {table} SET {_marks(now, lease_end)} WHERE id IN (SELECT id FROM due) RETURNING {_columns()}",
        before=[limit],
    )


def claim_one(seen: Connection) -> Connection | None:
    """Claim one connection, due or not, if nobody holds it and it is as it was ``seen``; ``None`` otherwise.

    A caller who looked before somebody else's attempt must not make a second one after it, whether that brought a token (the
    generation moved) or failed (the count of failures did).
    """
    now, lease_end = _now(), _lease_end()
    table = Connection._meta.db_table
    claimed = _update(
        f"UPDATE {table} SET {_marks(now, lease_end)} "  # noqa: S608  the names are ours
        f"WHERE id = %s AND generation = %s AND failure_count = %s AND status = %s "
        f"AND (lease_expires_at IS NULL OR lease_expires_at < {now}) RETURNING {_columns()}",
        after=[_uuid(seen.pk), seen.generation, seen.failure_count, seen.status],
    )
    return claimed[0] if claimed else None


def is_sendable(connection: Connection) -> bool:
    """Whether a call begun now ends before the claim's lease does. Asked just before sending, of this machine's own clock."""
    return _elapsed() <= connection.sendable_until


def hand_back(connection: Connection, **changes: Any) -> None:
    """Give up a claim whose request was not sent: lease and mark are cleared, ``changes`` made; no outcome becomes unknown."""
    Connection.objects.filter(pk=connection.pk, lease_owner=connection.lease_owner).update(**RELEASED, **changes)


def _marks(now: str, lease_end: str) -> str:
    return (
        f"lease_owner = %s, lease_expires_at = {lease_end}, "
        f"outcome_unknown_at = COALESCE(outcome_unknown_at, attempt_started_at), attempt_started_at = {now}"
    )


def _update(sql: str, *, before: list[Any] | None = None, after: list[Any] | None = None) -> list[Connection]:
    # Read at once: an unread cursor keeps SQLite's write lock.
    asked_at = _elapsed()
    rows = list(Connection.objects.raw(sql, [*(before or []), _uuid(uuid.uuid4()), *(after or [])]))
    for row in rows:
        row.sendable_until = asked_at + LEASE.total_seconds() - LONGEST_CALL
    return sorted(rows, key=lambda row: (row.refresh_due_at is None, row.refresh_due_at or row.created_at))


def _columns() -> str:
    return ", ".join(str(field.column) for field in Connection._meta.concrete_fields)


def _uuid(value: uuid.UUID) -> Any:
    return Connection._meta.get_field("lease_owner").get_db_prep_value(value, database)


def _elapsed() -> float:
    """Seconds on a clock that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _now() -> str:
    return "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')" if database.vendor == "sqlite" else "statement_timestamp()"


def _lease_end() -> str:
    seconds = int(LEASE.total_seconds())
    if database.vendor == "sqlite":
        return f"strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '+{seconds} seconds')"
    return f"statement_timestamp() + interval '{seconds} seconds'"
