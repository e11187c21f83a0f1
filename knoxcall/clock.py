"""One clock: the database's. Leases, due times and expiries are set and compared with it, so that machines may disagree."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import connection


def database_now() -> datetime:
    """The database's idea of the time, in UTC: microseconds on PostgreSQL, milliseconds on SQLite."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')")
            return datetime.fromisoformat(cursor.fetchone()[0]).replace(tzinfo=UTC)
        cursor.execute("SELECT statement_timestamp()")
        moment: datetime = cursor.fetchone()[0]
        return moment.astimezone(UTC)


def iso(moment: datetime | None) -> str | None:
    """``2026-03-10T15:30:00.000Z``, the only form in which a time leaves the vault."""
    if moment is None:
        return None
    # Not strftime: its %Y has one digit in the year 1.
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
