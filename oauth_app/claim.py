"""Claiming connections to refresh: who may call the provider, decided by one UPDATE.

A claim marks owner, lease and attempt, and is committed before anything is sent. The attempt mark is the journal of intent: a
lease that ran out with its mark still set means that a request may have been sent and its answer lost. The next claim moves
such a mark to ``outcome_unknown_at`` in the same statement, so that a crash is never taken for an attempt that was not made.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import Error
from django.db import connection as database

from oauth_app.models import ClientRegistration, Connection, DatabaseReturn

# Longer than a call may last (20 s), so that a lease never ends while its request is on the wire.
LEASE = timedelta(seconds=45)
# Seconds that a call, its store and its waiting for a database may take together.
LONGEST_CALL = 30.0
# After the database was away, answers may lie in the spool of any machine; so long nobody sends again what may be answered.
SPOOLS_FIRST = timedelta(seconds=60)
# What is not to be claimed now is put off so many rows at a time, out of the way of what is.
FRONT = 5_000
# What a refresh does not need to know of a connection. Loading it would cost as much as sealing.
_UNREAD = {
    "subject",
    "status_changed_at",
    "refreshed_at",
    "failed_at",
    "failure_reason",
    "failure_code",
    "failure_message",
}
_UNREAD |= {"reauthorize_told_at", "last_used_at", "created_at"}
# The columns of a connection that nobody holds.
RELEASED: dict[str, None] = {"lease_owner": None, "lease_expires_at": None, "attempt_started_at": None}

# The owners of claims that failed in this process, and may have been committed all the same.
_doubtful: set[uuid.UUID] = set()
_doubting = threading.Lock()

_CONNECTION = Connection._meta.db_table
_REGISTRATION = ClientRegistration._meta.db_table
_RETURN = DatabaseReturn._meta.db_table


@dataclass(frozen=True, slots=True)
class Avoid:
    """What a claim passes over: token hosts, clients by digest, and accounts, that may get no further call now."""

    hosts: Collection[str] = field(default_factory=frozenset)
    clients: Collection[str] = field(default_factory=frozenset)
    accounts: Collection[uuid.UUID] = field(default_factory=frozenset)

    def __bool__(self) -> bool:
        return bool(self.hosts or self.clients or self.accounts)


NOTHING = Avoid()


def claim_due(limit: int, avoid: Avoid = NOTHING) -> list[Connection]:
    """Claim up to ``limit`` due connections, the oldest deadline first. All share one owner.

    On PostgreSQL rows that another worker is claiming are skipped. The limit sits in a materialized CTE: inside `IN (…)` the
    planner may run the subquery again for every row, and exceed it.
    """
    now = _now()
    passed_over, names = _conditions(avoid)
    return _update(
        f"WITH due AS MATERIALIZED (SELECT c.id FROM {_CONNECTION} c{_joined(avoid)} "  # noqa: S608  the names are ours
        f"WHERE c.refresh_due_at <= {now} AND {_free('c')}{''.join(' AND NOT ' + part for part in passed_over)} "
        f"ORDER BY c.refresh_due_at LIMIT %s{_skip_locked('c')}) "
        f"UPDATE {_CONNECTION} SET {_marks()} WHERE id IN (SELECT id FROM due) RETURNING {_columns()}",
        before=[*names, limit],
    )


def claim_these(ids: Iterable[uuid.UUID], *, only_due: bool = False) -> list[Connection]:
    """Claim those of ``ids`` that nobody holds and that have not ended, due or not, or ``only_due`` ones."""
    wanted = [_uuid(pk) for pk in ids]
    if not wanted:
        return []
    over = (Connection.Status.REAUTHORIZATION_REQUIRED, Connection.Status.DISCONNECTED)
    ended = ", ".join(f"'{status}'" for status in over)
    due = f" AND c.refresh_due_at <= {_now()}" if only_due else ""
    return _update(
        f"WITH due AS MATERIALIZED (SELECT c.id FROM {_CONNECTION} c "  # noqa: S608  the names are ours
        f"WHERE c.id IN ({_list(wanted)}) AND c.status NOT IN ({ended}) AND {_free('c')}{due}{_skip_locked('c')}) "
        f"UPDATE {_CONNECTION} SET {_marks()} WHERE id IN (SELECT id FROM due) RETURNING {_columns()}",
        before=wanted,
    )


def claim_one(seen: Connection) -> Connection | None:
    """Claim one connection, due or not, if nobody holds it and it is as it was ``seen``; ``None`` otherwise.

    A caller who looked before somebody else's attempt must not make a second one after it, whether that brought a token (the
    generation moved) or failed (the count of failures did).
    """
    claimed = _update(
        f"UPDATE {_CONNECTION} SET {_marks()} "  # noqa: S608  the names are ours
        f"WHERE id = %s AND generation = %s AND failure_count = %s AND status = %s "
        f"AND {_free(_CONNECTION)} RETURNING {_columns()}",
        after=[_uuid(seen.pk), seen.generation, seen.failure_count, seen.status],
    )
    return claimed[0] if claimed else None


def is_sendable(connection: Connection) -> bool:
    """Whether a call begun now ends before the claim's lease does. Asked just before sending, of this machine's own clock."""
    return _elapsed() <= connection.asked_at + LEASE.total_seconds() - LONGEST_CALL


def begun_at(connection: Connection) -> datetime:
    """When the claimed attempt began, by the database's clock."""
    if connection.attempt_started_at is None:
        raise ValueError("the connection is not claimed")
    return connection.attempt_started_at


def time_by_database(connection: Connection) -> datetime:
    """The database's time now, or a moment before: its time at the claim, and what has passed here since. No statement."""
    return begun_at(connection) + timedelta(seconds=max(0.0, _elapsed() - connection.claimed_at))


def hand_back_all(connections: Iterable[Connection], *, seconds: float = 0.0, spread: float = 0.0) -> None:
    """Give back connections of one claim whose requests were not sent, unmarked: no outcome becomes unknown.

    They are due again after ``seconds``, and up to ``spread`` more, each at random.
    """
    rows = list(connections)
    if not rows:
        return
    due = f", refresh_due_at = {_later(seconds, spread)}" if seconds or spread else ""
    with database.cursor() as cursor:
        cursor.execute(
            f"UPDATE {_CONNECTION} SET lease_owner = NULL, lease_expires_at = NULL, attempt_started_at = NULL{due} "  # noqa: S608
            f"WHERE lease_owner = %s AND id IN ({_list(rows)})",
            [_uuid(_owner(rows)), *(_uuid(row.pk) for row in rows)],
        )


def put_off(avoid: Avoid, *, seconds: float = 0.0, spread: float = 0.0) -> int:
    """Put off what is due and to be avoided, among the first rows of the queue; returns how many rows that were.

    A claim passes over such rows one by one, so they must not gather at its front: one host's outage would slow down every
    other host's refreshes. The cost is bounded by ``FRONT``, whatever the length of the queue.
    """
    passed_over, names = _conditions(avoid)
    if not passed_over:
        return 0
    now = _now()
    with database.cursor() as cursor:
        cursor.execute(
            f"UPDATE {_CONNECTION} SET refresh_due_at = {_later(seconds, spread)} WHERE id IN ("  # noqa: S608
            f"WITH front AS MATERIALIZED (SELECT c.id, c.secret_id, c.account_id FROM {_CONNECTION} c "
            f"WHERE c.refresh_due_at <= {now} AND {_free('c')} ORDER BY c.refresh_due_at LIMIT {FRONT}), "
            # Only these are locked: other workers claim the rest of the front meanwhile.
            f"passed_over AS MATERIALIZED (SELECT c.id FROM {_CONNECTION} c WHERE c.id IN ("
            f"SELECT c.id FROM front c{_joined(avoid)} WHERE {' OR '.join(passed_over)}){_skip_locked('c')}) "
            f"SELECT id FROM passed_over) "
            f"AND refresh_due_at <= {now} AND {_free(_CONNECTION)}",
            names,
        )
        return int(cursor.rowcount)


def bring_forward(avoided: Avoid, *, spread: float) -> int:
    """Make due within ``spread`` seconds what failed for a provider that did not answer; returns how many connections."""
    conditions, names = _conditions(avoided)
    failing, unavailable = Connection.Status.REFRESH_FAILING.value, "provider_unavailable"
    with database.cursor() as cursor:
        cursor.execute(
            # Rows that somebody is storing an outcome for are left to that: two who wait for each other's rows wait for ever.
            f"UPDATE {_CONNECTION} SET refresh_due_at = {_later(0, spread)} WHERE id IN ("  # noqa: S608  the names are ours
            f"WITH failing AS MATERIALIZED (SELECT c.id FROM {_CONNECTION} c{_joined(avoided)} WHERE c.status = '{failing}' "
            f"AND c.failure_reason = '{unavailable}' AND c.refresh_due_at > {_after(spread)} "
            f"AND ({' OR '.join(conditions)}){_skip_locked('c')}) SELECT id FROM failing) AND status = '{failing}'",
            names,
        )
        return int(cursor.rowcount)


def _free(table: str) -> str:
    """The condition that a row may be claimed: nobody holds it, and no spool may hold its answer."""
    now = _now()
    marked = f"({table}.attempt_started_at IS NOT NULL OR {table}.outcome_unknown_at IS NOT NULL)"
    return (
        f"({table}.lease_expires_at IS NULL OR {table}.lease_expires_at < {now}) "
        f"AND NOT ({marked} AND {_came_back_lately()})"
    )


def _came_back_lately() -> str:
    """Whether the database was away less than ``SPOOLS_FIRST`` ago: as a worker noted, or by the server's own start."""
    since = _after(-SPOOLS_FIRST.total_seconds())
    noted = f"EXISTS (SELECT 1 FROM {_RETURN} WHERE returned_at > {since})"  # noqa: S608  the name is ours
    return f"({noted} OR pg_postmaster_start_time() > {since})" if database.vendor == "postgresql" else noted


def _conditions(avoid: Avoid) -> tuple[list[str], list[Any]]:
    """What is to be avoided, as conditions on ``c`` and, joined to it, ``r``; and their parameters."""
    lists: tuple[tuple[str, list[Any]], ...] = (
        ("r.token_host", list(avoid.hosts)),
        ("r.client_digest", list(avoid.clients)),
        ("c.account_id", [_uuid(account) for account in avoid.accounts]),
    )
    return (
        [f"{column} IN ({_list(names)})" for column, names in lists if names],
        [name for _, names in lists for name in names],
    )


def _joined(avoid: Avoid) -> str:
    return f" JOIN {_REGISTRATION} r ON r.secret_id = c.secret_id" if avoid.hosts or avoid.clients else ""


def _skip_locked(table: str) -> str:
    return f" FOR UPDATE OF {table} SKIP LOCKED" if database.features.has_select_for_update_skip_locked else ""


def _marks() -> str:
    return (
        f"lease_owner = %s, lease_expires_at = {_after(LEASE.total_seconds())}, "
        f"outcome_unknown_at = COALESCE(outcome_unknown_at, attempt_started_at), attempt_started_at = {_now()}"
    )


def give_back_doubtful() -> int:
    """Give back what a claim may have taken whose acknowledgement was lost: nothing of it was sent. Returns how many rows."""
    with _doubting:
        doubtful = list(_doubtful)
    if not doubtful:
        return 0
    given_back = Connection.objects.filter(lease_owner__in=doubtful).update(**RELEASED)
    with _doubting:
        _doubtful.difference_update(doubtful)
    return given_back


def _update(sql: str, *, before: list[Any] | None = None, after: list[Any] | None = None) -> list[Connection]:
    asked_at, owner = _elapsed(), uuid.uuid4()
    try:
        # Read at once: an unread cursor keeps SQLite's write lock.
        rows = list(Connection.objects.raw(sql, [*(before or []), _uuid(owner), *(after or [])]))
    except Error:
        with _doubting:
            _doubtful.add(owner)
        raise
    claimed_at = _elapsed()
    for row in rows:
        row.asked_at, row.claimed_at = asked_at, claimed_at
    return sorted(rows, key=lambda row: (row.refresh_due_at is None, row.refresh_due_at or row.attempt_started_at))


def _owner(rows: list[Connection]) -> uuid.UUID:
    owners = {row.lease_owner for row in rows}
    owner = owners.pop()
    if owners or owner is None:
        raise ValueError("these connections are not of one claim")
    return owner


def _columns() -> str:
    return ", ".join(str(column.column) for column in Connection._meta.concrete_fields if column.name not in _UNREAD)


def _list(values: Collection[Any]) -> str:
    return ", ".join(["%s"] * len(values))


def _uuid(value: uuid.UUID) -> Any:
    return Connection._meta.get_field("lease_owner").get_db_prep_value(value, database)


def _elapsed() -> float:
    """Seconds on a clock that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _now() -> str:
    return _after(0)


def _after(seconds: float) -> str:
    """The database's time so many seconds from now."""
    if database.vendor == "sqlite":
        return f"strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '{seconds:+.3f} seconds')"
    return f"(statement_timestamp() + interval '{seconds:.3f} seconds')"


def _later(seconds: float, spread: float) -> str:
    """The same with up to ``spread`` seconds more, which every row draws for itself."""
    if database.vendor == "sqlite":
        drawn = f"'+' || ({spread:.3f} * (abs(random()) / 9223372036854775807.0)) || ' seconds'"
        return f"strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '{seconds:+.3f} seconds', {drawn})"
    return f"({_after(seconds)} + random() * interval '{spread:.3f} seconds')"
