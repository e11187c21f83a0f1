"""Connections by the thousand: rows as the vault makes them, really sealed, but without a consent for each.

One of each owner is made by the models; the others are copies of it under keys of their own, which the models would take
twenty times as long for.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connection as database
from django.db import models, transaction
from django.db.models.functions import Now
from django.utils import timezone

from benchmarks.provider import client_at
from benchmarks.tokens import ACCESS_TOKEN, REFRESH_TOKEN
from billing_app.models import Account
from oauth_app.models import ClientRegistration, Connection
from oauth_app.protocol.client import OAuthClient
from secrets_app.crypto.cipher import Plaintext
from secrets_app.models import Environment, Mode, Secret
from tests.factories import an_account

LIFETIME = timedelta(hours=1)
# No account may hold more than a part of a worker's call slots, so the load has to come from several.
ACCOUNTS = 8
_BATCH = 2_000
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose connection it is, and by which client it is had."""

    account: Account
    environment: Environment
    client: OAuthClient


def owners(token_urls: Sequence[str], *, accounts: int = ACCOUNTS) -> list[Owner]:
    """New accounts, each with a client of its own at every token endpoint."""
    return [owner for number in range(accounts) for owner in owners_in(an_account(), token_urls, f"client-{number}")]


def owners_in(account: Account, token_urls: Sequence[str], client_id: str = "client") -> list[Owner]:
    """The same account with a client at every token endpoint."""
    environment = Environment.objects.get(account=account, mode=Mode.LIVE, name="production")
    return [Owner(account, environment, client_at(url, client_id)) for url in token_urls]


def add_connections(owners: Sequence[Owner], count: int) -> list[uuid.UUID]:
    """Add ``count`` connections with valid tokens, none of them due; returns their ids. The owners take turns."""
    patterns = [_Pattern(owner) for owner in owners[:count]]
    ids = [pattern.connection["id"] for pattern in patterns]
    for first in range(len(ids), count, _BATCH):
        numbers = range(first, min(first + _BATCH, count))
        copies = [patterns[number % len(patterns)].copy(number / count) for number in numbers]
        with transaction.atomic():
            for model, rows in zip((Secret, ClientRegistration, Connection), zip(*copies, strict=True), strict=True):
                _insert(model, rows)
        ids += [connection["id"] for _, _, connection in copies]
    tell_planner()
    return ids


def tell_planner() -> None:
    """Let the planner know the tables, and what in them is visible to all; autovacuum would do so within a minute."""
    if database.vendor == "postgresql":
        with database.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")


def make_due(ids: Sequence[uuid.UUID]) -> None:
    """Let these connections be due since a second ago."""
    _update(ids, refresh_due_at=Now() - timedelta(seconds=1))


def make_all_due() -> None:
    """Let every connection be due since a random moment of the last minute: what is due together lies far apart."""
    if database.vendor == "postgresql":
        moment = "now() - random() * interval '60 seconds'"
    else:
        moment = "strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || (abs(random()) % 60000 / 1000.0) || ' seconds')"
    with database.cursor() as cursor:
        cursor.execute(f"UPDATE {Connection._meta.db_table} SET refresh_due_at = {moment}")
    tell_planner()


def put_back(ids: Sequence[uuid.UUID]) -> None:
    """Let these connections be held by nobody, and due in an hour."""
    released = dict.fromkeys(("lease_owner", "lease_expires_at", "attempt_started_at", "outcome_unknown_at"))
    _update(ids, refresh_due_at=Now() + LIFETIME, **released)


def _update(ids: Sequence[uuid.UUID], **columns: Any) -> None:
    for first in range(0, len(ids), _BATCH):
        Connection.objects.filter(pk__in=ids[first : first + _BATCH]).update(**columns)


class _Pattern:
    """The rows of one owner's connection, of which copies are made."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        secret = _secret(owner)
        registration, connection = _registration(owner, secret), _connection(owner, secret)
        self._began = connection.issued_at
        for row in (secret, registration, connection):
            row.save(force_insert=True)
        self._secret, self._registration, self.connection = map(_row_of, (secret, registration, connection))

    def copy(self, late: float) -> tuple[Row, Row, Row]:
        """Secret, registration and connection; ``late`` is the part of a lifetime by which it is due after an hour."""
        secret = self._secret | {"id": uuid.uuid4(), "name": f"benchmark-{uuid.uuid4().hex}"}
        document = self._sealed(ClientRegistration, secret["id"], document=self._owner.client.to_document())
        registration = self._registration | {"secret_id": secret["id"]} | document
        key, due_at = uuid.uuid4(), self._began + LIFETIME * (1 + late)
        tokens = self._sealed(
            Connection, key, access_token=Plaintext(ACCESS_TOKEN), refresh_token=Plaintext(REFRESH_TOKEN)
        )
        connection = self.connection | {"id": key, "secret_id": secret["id"], "refresh_due_at": due_at} | tokens
        return secret, registration, connection

    def _sealed(self, model: type[models.Model], row: uuid.UUID, **values: Plaintext) -> Row:
        account = self._owner.account.pk
        fields = {name: model._meta.get_field(name) for name in values}
        return {str(fields[name].column): fields[name].seal(values[name], account=account, row=row) for name in values}


def _row_of(row: models.Model) -> Row:
    """The columns of ``row`` as they are read back."""
    fields = row._meta.concrete_fields
    with database.cursor() as cursor:
        columns = [str(field.column) for field in fields]
        pk = row._meta.pk
        assert pk is not None
        cursor.execute(
            f"SELECT {', '.join(columns)} FROM {row._meta.db_table} WHERE {pk.column} = %s",
            [pk.get_db_prep_value(row.pk, database)],
        )
        values = dict(zip(columns, cursor.fetchone(), strict=True))
    return values | {str(pk.column): row.pk}


def _insert(model: type[models.Model], rows: Sequence[Row]) -> None:
    table, columns = model._meta.db_table, list(rows[0])
    with database.cursor() as cursor:
        if database.vendor == "postgresql":
            # What the rows point to is there, so no trigger has to look: that takes longer than the rest.
            cursor.execute("SET LOCAL session_replication_role = replica")
            with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(list(row.values()))
        else:
            places = ", ".join(["%s"] * len(columns))
            cursor.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", _as_sqlite(rows))


def _as_sqlite(rows: Iterable[Row]) -> Iterator[list[Any]]:
    for row in rows:
        yield [value.hex if isinstance(value, uuid.UUID) else value for value in row.values()]


def _secret(owner: Owner) -> Secret:
    return Secret(
        account=owner.account,
        mode=Mode.LIVE,
        name=f"benchmark-{uuid.uuid4().hex}",
        secret_type=Secret.Type.OAUTH2,
        base_environment=owner.environment,
    )


def _registration(owner: Owner, secret: Secret) -> ClientRegistration:
    return ClientRegistration(
        secret=secret,
        account=owner.account,
        provider=owner.client.provider,
        grant_type=owner.client.grant_type,
        token_host=owner.client.token_host,
        document=owner.client.to_document(),
    )


def _connection(owner: Owner, secret: Secret) -> Connection:
    now = timezone.now()
    return Connection(
        account=owner.account,
        secret=secret,
        environment=owner.environment,
        access_token=Plaintext(ACCESS_TOKEN),
        refresh_token=Plaintext(REFRESH_TOKEN),
        token_type="Bearer",
        issued_at=now,
        expires_at=now + LIFETIME,
        generation=1,
        status=Connection.Status.CONNECTED,
        connected_at=now,
        refreshed_at=now,
        refresh_due_at=now + LIFETIME,
    )
