"""Ending connections on purpose: the tokens are gone for everyone at once, and the provider is told in the background."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from knoxcall.api.errors import NotFound
from knoxcall.api.idempotency import Attempt
from oauth_app.authorize import record, void_links
from oauth_app.claim import RELEASED
from oauth_app.connections import get_connection, get_registration
from oauth_app.given_up import give_up_stored
from oauth_app.models import AuthorizationRequest, ClientRegistration, Connection, ConnectionEvent
from oauth_app.outcome import NO_FAILURE
from secrets_app import audit
from secrets_app.models import Secret
from secrets_app.vault import Scope

Status = Connection.Status

# Nothing of the grant is left, nor of who gave it.
_FORGOTTEN: dict[str, Any] = {
    "access_token": None,
    "refresh_token": None,
    "granted_scopes": None,
    "issued_at": None,
    "expires_at": None,
    "refresh_token_expires_at": None,
    "refresh_token_rolls": None,
    "reauthorize_by": None,
    "facts": {},
    "connected_as": "",
    "subject": "",
    "grant_digest": None,
    "rotates": None,
    "refresh_due_at": None,
    "outcome_unknown_at": None,
    "previous_client_secret_used_at": None,
    **NO_FAILURE,
    **RELEASED,
}


def disconnect(scope: Scope, secret_id: uuid.UUID, *, environment: str | None, attempt: Attempt) -> Connection:
    """End a connection and make the job that revokes its tokens; a connection that has ended already stays as it is.

    A refresh that is on the wire stores nothing any more. Consents and links under way are void. Raises ``NotFound``,
    ``InvalidType``, ``ValidationFailed`` and ``TokenUnavailable``.
    """
    with transaction.atomic():
        registration = get_registration(scope, secret_id)
        found = get_connection(scope, registration.secret, environment)
        locked = Connection.objects.select_for_update(of=("self",)).select_related("environment")
        connection = locked.filter(pk=found.pk).first()
        if connection is None:
            # Deleted while we waited for the lock.
            raise NotFound
        connection.secret = registration.secret
        attempt.names(secret_id)
        if connection.status != Status.DISCONNECTED:
            _end(connection, registration, scope.actor)
    return connection


def _end(connection: Connection, registration: ClientRegistration, actor: audit.Actor) -> None:
    previous, connected_as = connection.status, connection.connected_as
    void_links(connection)
    AuthorizationRequest.objects.filter(connection=connection, used_at=None).update(used_at=Now(), outcome="superseded")
    Connection.objects.filter(pk=connection.pk).update(
        **_FORGOTTEN, status=Status.DISCONNECTED, status_changed_at=Now(), generation=F("generation") + 1
    )
    ConnectionEvent.objects.create(
        connection=connection, previous_status=previous, status=Status.DISCONNECTED, code="disconnected"
    )
    record(audit.Action.CONNECTION_ENDED, connection, actor, connected_as=connected_as or None)
    give_up_stored(connection, registration)
    connection.refresh_from_db()


def dismantle(secret: Secret) -> None:
    """Make the jobs that revoke all tokens of ``secret``, in the transaction that deletes it."""
    registration = ClientRegistration.objects.select_related("mtls_certificate").get(pk=secret.pk)
    registration.secret = secret
    # One after the other, under its lock: a refresh that is stored a moment later finds no row, and gives its tokens up itself.
    for connection in Connection.objects.select_for_update().filter(secret=secret).order_by("pk"):
        give_up_stored(connection, registration)
