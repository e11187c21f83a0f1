"""Connections by the million, made by the database itself: copies of a few that are really sealed, under keys of their own.

They share the sealed values of what they were copied from, which open in one place only: so they can be claimed, which opens
nothing, and not be refreshed.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from django.db import connection as database
from django.db import models, transaction

from benchmarks.rows import LIFETIME, Owner, add_connections, tell_planner
from oauth_app.models import ClientRegistration, Connection
from secrets_app.models import Secret

_CONNECTION, _REGISTRATION, _SECRET = (model._meta.db_table for model in (Connection, ClientRegistration, Secret))
# Number, keys and pattern of each copy.
_COPIES = """
    CREATE TEMPORARY TABLE copies AS
    WITH RECURSIVE
        numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < {count}),
        patterns AS (SELECT id AS pattern, row_number() OVER () AS place FROM {connection} WHERE id IN ({patterns}))
    SELECT number, pattern, {key} AS id, {key} AS secret_id
    FROM numbers JOIN patterns ON place = number % {places} + 1
"""


def add_copies(owners: Sequence[Owner], count: int) -> list[uuid.UUID]:
    """Add ``count`` connections, none of them due; returns their ids. The owners take turns."""
    patterns = add_connections(owners, min(len(owners), count))
    copies = count - len(patterns)
    if copies:
        with transaction.atomic():
            _copy(patterns, copies)
        tell_planner()
    return list(Connection.objects.filter(account__in={owner.account for owner in owners}).values_list("pk", flat=True))


def _copy(patterns: Sequence[uuid.UUID], count: int) -> None:
    is_postgresql = database.vendor == "postgresql"
    key = "gen_random_uuid()" if is_postgresql else "lower(hex(randomblob(16)))"
    seconds = LIFETIME.total_seconds()
    # Spread over the lifetime, as those of a vault that has run for a while.
    if is_postgresql:
        due_at = f"now() + interval '{seconds} seconds' * (1 + number / {count}.0)"
    else:
        due_at = f"strftime('%Y-%m-%d %H:%M:%f', 'now', '+' || ({seconds} * (1 + number / {count}.0)) || ' seconds')"
    names = {"places": len(patterns), "patterns": ", ".join(f"'{_spelt(pattern)}'" for pattern in patterns)}
    with database.cursor() as cursor:
        if is_postgresql:
            # What the rows point to is there, so no trigger has to look: that takes longer than the rest.
            cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(_COPIES.format(count=count, connection=_CONNECTION, key=key, **names))
        cursor.execute(_insert(Secret, _SECRET, {"id": "k.secret_id", "name": "'copy-' || k.id"}))
        cursor.execute(_insert(ClientRegistration, _REGISTRATION, {"secret_id": "k.secret_id"}))
        given = {"id": "k.id", "secret_id": "k.secret_id", "refresh_due_at": due_at}
        cursor.execute(_insert(Connection, _CONNECTION, given))
        cursor.execute("DROP TABLE copies")


def _insert(model: type[models.Model], table: str, given: dict[str, str]) -> str:
    """The statement that copies rows of ``model`` with the ``given`` columns."""
    columns = [str(field.column) for field in model._meta.concrete_fields]
    pattern = {_CONNECTION: "c", _REGISTRATION: "r", _SECRET: "s"}[table]
    values = [given.get(column, f"{pattern}.{column}") for column in columns]
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM copies k "
        f"JOIN {_CONNECTION} c ON c.id = k.pattern JOIN {_SECRET} s ON s.id = c.secret_id "
        f"JOIN {_REGISTRATION} r ON r.secret_id = c.secret_id"
    )


def _spelt(key: uuid.UUID) -> str:
    return str(key) if database.vendor == "postgresql" else key.hex
