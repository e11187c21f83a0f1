"""Connections by the thousand: rows as the vault makes them, really sealed, but without a consent for each."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db import connection as database
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from billing_app.models import Account
from oauth_app.models import ClientRegistration, Connection
from oauth_app.protocol.client import OAuthClient
from secrets_app.crypto.cipher import Plaintext
from secrets_app.models import Environment, Mode, Secret

# As long as a signed JWT with a few claims.
ACCESS_TOKEN = "a" * 1000
REFRESH_TOKEN = "r" * 64
LIFETIME = timedelta(hours=1)
_BATCH = 2_000


def add_connections(account: Account, client: OAuthClient, count: int) -> list[uuid.UUID]:
    """Add ``count`` connections with valid tokens, none of them due; returns their ids."""
    environment = Environment.objects.get(account=account, mode=Mode.LIVE, name="production")
    ids: list[uuid.UUID] = []
    for first in range(0, count, _BATCH):
        ids += _add(account, environment, client, min(_BATCH, count - first))
    if database.vendor == "postgresql":
        # So that the planner knows the tables; autovacuum would tell it within a minute.
        with database.cursor() as cursor:
            cursor.execute("ANALYZE")
    return ids


def make_due(ids: Sequence[uuid.UUID]) -> None:
    """Let these connections be due since a second ago."""
    _update(ids, refresh_due_at=Now() - timedelta(seconds=1))


def put_back(ids: Sequence[uuid.UUID]) -> None:
    """Let these connections be held by nobody, and due in an hour."""
    released = dict.fromkeys(("lease_owner", "lease_expires_at", "attempt_started_at", "outcome_unknown_at"))
    _update(ids, refresh_due_at=Now() + LIFETIME, **released)


def _update(ids: Sequence[uuid.UUID], **columns: Any) -> None:
    for first in range(0, len(ids), _BATCH):
        Connection.objects.filter(pk__in=ids[first : first + _BATCH]).update(**columns)


def _add(account: Account, environment: Environment, client: OAuthClient, count: int) -> list[uuid.UUID]:
    now = timezone.now()
    secrets = [
        Secret(
            account=account,
            mode=Mode.LIVE,
            name=f"benchmark-{uuid.uuid4().hex}",
            secret_type=Secret.Type.OAUTH2,
            base_environment=environment,
        )
        for _ in range(count)
    ]
    registrations = [
        ClientRegistration(
            secret=secret,
            account=account,
            provider=client.provider,
            grant_type=client.grant_type,
            token_host=client.token_host,
            document=client.to_document(),
        )
        for secret in secrets
    ]
    connections = [
        Connection(
            account=account,
            secret=secret,
            environment=environment,
            access_token=Plaintext(ACCESS_TOKEN),
            refresh_token=Plaintext(REFRESH_TOKEN),
            token_type="Bearer",
            issued_at=now,
            expires_at=now + LIFETIME,
            generation=1,
            status=Connection.Status.CONNECTED,
            connected_at=now,
            refreshed_at=now,
            # Spread over the lifetime, as those of a vault that has run for a while.
            refresh_due_at=now + LIFETIME * (1 + number / count),
        )
        for number, secret in enumerate(secrets)
    ]
    with transaction.atomic():
        Secret.objects.bulk_create(secrets)
        ClientRegistration.objects.bulk_create(registrations)
        Connection.objects.bulk_create(connections)
    return [row.pk for row in connections]
