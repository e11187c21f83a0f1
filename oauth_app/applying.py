"""Applying outcomes to the database: many in one fenced UPDATE, with the history of what changes in the same transaction."""

from __future__ import annotations

import logging
import uuid
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import DEFAULT_DB_ALIAS, connections, transaction

from oauth_app.clients import open_client
from oauth_app.connections import try_again
from oauth_app.given_up import give_up_late
from oauth_app.models import ClientRegistration, Connection, ConnectionEvent
from oauth_app.outcome import Outcome, place_of
from oauth_app.protocol.answers import TokenAnswer
from oauth_app.protocol.client import OAuthClient
from secrets_app import data_keys
from secrets_app.crypto.cipher import Plaintext, SealBroken

logger = logging.getLogger(__name__)

_TABLE = Connection._meta.db_table
_FIELDS: dict[str, Any] = {column.attname: column for column in Connection._meta.concrete_fields}


def apply(outcomes: Sequence[Outcome]) -> set[uuid.UUID]:
    """Store ``outcomes``, of a connection each, all or none; returns the ids of the connections where one is stored.

    Of the others the fence stood elsewhere: the connection was renewed, ended or removed meanwhile. A token that is found
    stored already counts as stored: the acknowledgement of its commit was lost.
    """
    groups: dict[Any, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.is_token, outcome.stamps, tuple(sorted(outcome.columns))].append(outcome)
    events = [outcome for outcome in outcomes if outcome.event is not None]
    if len(groups) == 1 and not events:
        stored = _update(outcomes)
    else:
        with transaction.atomic():
            stored = {pk for group in groups.values() for pk in _update(group)}
            ConnectionEvent.objects.bulk_create(
                ConnectionEvent(
                    connection_id=outcome.connection_id,
                    previous_status=outcome.event.previous_status,
                    status=outcome.event.status,
                    code=outcome.event.code,
                    message=outcome.event.message,
                )
                for outcome in events
                if outcome.event is not None and outcome.connection_id in stored
            )
    return stored | _stored_before([o for o in outcomes if o.is_token and o.connection_id not in stored])


def settle(outcome: Outcome, *, is_stored: bool) -> None:
    """Say what became of ``outcome``, and do what follows from it.

    A token that came too late is given up: the provider should not keep it alive.
    """
    if is_stored:
        if outcome.line:
            logger.log(logging.INFO if outcome.is_token else logging.WARNING, "%s", outcome.line)
        if outcome.refused is not None:
            _follow_change(outcome.refused)
        return
    if outcome.is_token:
        logger.warning(
            "connection %s was renewed or removed meanwhile: this answer is not needed", outcome.connection_id
        )
        _give_up(outcome)


def _update(outcomes: Sequence[Outcome]) -> set[uuid.UUID]:
    """One UPDATE for outcomes that change the same columns; returns the ids of the rows that it changed.

    What is the same in all of them is said once: most columns of a refreshed token are.
    """
    connection, first = connections[DEFAULT_DB_ALIAS], outcomes[0]
    # Rows are locked in one order, whoever else stores at the same moment.
    ordered = sorted(outcomes, key=lambda outcome: outcome.connection_id)
    fence = ("id", "generation") if first.is_token else ("id", "generation", "lease_owner")
    same = {name for name, value in first.columns.items() if all(o.columns[name] == value for o in ordered)}
    own = [name for name in sorted(first.columns) if name not in same]
    columns = [_FIELDS[name] for name in (*fence, *own)]
    row = f"({', '.join(_placeholder(column, connection) for column in columns)})"
    parameters: list[Any] = []
    for outcome in ordered:
        values = [outcome.connection_id, outcome.generation, outcome.attempt][: len(fence)]
        values += [outcome.columns[name] for name in own]
        parameters += [
            column.get_db_prep_save(value, connection) for column, value in zip(columns, values, strict=True)
        ]
    quoted = connection.ops.quote_name
    changes = [f"{quoted(name)} = v.new_{name}" for name in own]
    for name in sorted(same):
        changes.append(f"{quoted(name)} = {_placeholder(_FIELDS[name], connection)}")
        parameters.append(_FIELDS[name].get_db_prep_save(first.columns[name], connection))
    changes += [f"{quoted(name)} = {_now(connection)}" for name in first.stamps]
    if first.is_token:
        changes.append(f"generation = {_TABLE}.generation + 1")
    fenced = " AND ".join(f"{_TABLE}.{name} = v.{name}" for name in fence)
    names = ", ".join([*fence, *(f"new_{name}" for name in own)])
    sql = (
        f"WITH v ({names}) AS (VALUES {', '.join([row] * len(ordered))}) "  # noqa: S608  the names are ours
        f"UPDATE {_TABLE} SET {', '.join(changes)} FROM v WHERE {fenced} RETURNING {_TABLE}.id"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return {_FIELDS["id"].to_python(pk) for (pk,) in cursor.fetchall()}


def _stored_before(missed: Sequence[Outcome]) -> set[uuid.UUID]:
    if not missed:
        return set()
    rows = Connection.objects.filter(pk__in=[outcome.connection_id for outcome in missed])
    by = dict(rows.values_list("pk", "stored_by"))
    return {outcome.connection_id for outcome in missed if by.get(outcome.connection_id) == outcome.attempt}


def _give_up(outcome: Outcome) -> None:
    """Revoke the tokens of ``outcome`` if their connection has ended; its client may be known, or has to be opened."""
    try:
        client = outcome.client or _client_of(outcome.secret_id)
        connection = (
            outcome.claimed or Connection.objects.select_related("environment").filter(pk=outcome.connection_id).first()
        )
        if client is None or connection is None:
            logger.warning(
                "connection %s and its client are gone: nobody can revoke this answer", outcome.connection_id
            )
            return
        give_up_late(connection, client, _answer(outcome))
    except ObjectDoesNotExist:
        logger.warning(
            "connection %s and its environment are gone: nobody can revoke this answer", outcome.connection_id
        )
    except SealBroken as err:
        logger.error("an answer that connection %s does not need cannot be revoked: %s", outcome.connection_id, err)


def _follow_change(registration: ClientRegistration) -> None:
    """Try again at once what was refused while somebody changed the client: it was the old one that was refused."""
    as_it_was = ClientRegistration.objects.filter(pk=registration.pk, updated_at=registration.updated_at)
    if registration.mtls_certificate is not None:
        as_it_was = as_it_was.filter(mtls_certificate__version=registration.mtls_certificate.version)
    with transaction.atomic():
        if not as_it_was.exists():
            try_again(registration)


def _client_of(secret_id: uuid.UUID) -> OAuthClient | None:
    registration = ClientRegistration.objects.select_related("mtls_certificate").filter(pk=secret_id).first()
    return open_client(registration) if registration else None


def _answer(outcome: Outcome) -> TokenAnswer:
    """As much of the provider's answer as is needed to revoke it."""

    def opened(name: str) -> Plaintext | None:
        sealed = outcome.columns.get(name)
        place = place_of(name, account_id=outcome.account_id, connection_id=outcome.connection_id)
        return data_keys.unseal(sealed, place) if sealed else None

    access_token = opened("access_token")
    assert access_token is not None
    return TokenAnswer(
        access_token=access_token,
        refresh_token=opened("refresh_token"),
        token_type=outcome.columns["token_type"],
        expires_in=None,
        scopes=None,
        facts=outcome.columns.get("facts", {}),
    )


def _placeholder(column: Any, connection: Any) -> str:
    if connection.vendor != "postgresql":
        return "%s"
    # A cast to varchar(n) would cut off what is too long, and say nothing.
    kind = "text" if column.get_internal_type() == "CharField" else column.db_type(connection)
    return f"%s::{kind}"


def _now(connection: Any) -> str:
    is_sqlite = connection.vendor == "sqlite"
    return "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')" if is_sqlite else "statement_timestamp()"
