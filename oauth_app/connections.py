"""Finding and making connections: an OAuth2 secret has one per environment."""

from __future__ import annotations

import uuid
from typing import Any

from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.db.models.functions import Now

from knoxcall.api.errors import InvalidType, NotFound, TokenUnavailable
from oauth_app.models import ClientRegistration, Connection, ConnectionEvent, GrantType, RevocationJob
from secrets_app.environments import get_environment
from secrets_app.models import Environment, Secret
from secrets_app.vault import Scope, get_secret


def get_oauth2_secret(scope: Scope, secret_id: uuid.UUID) -> Secret:
    """An OAuth2 secret of the scope. Raises ``NotFound`` and ``InvalidType``."""
    secret = get_secret(scope, secret_id)
    if secret.secret_type != Secret.Type.OAUTH2:
        raise InvalidType(f"This secret is of type `{secret.secret_type}`; only `oauth2` secrets have connections.")
    return secret


def get_registration(scope: Scope, secret_id: uuid.UUID, *, lock: bool = False) -> ClientRegistration:
    """The client registration of an OAuth2 secret, with its certificate; ``lock`` takes the row to the transaction's end.

    Raises ``NotFound`` and ``InvalidType``.
    """
    secret = get_oauth2_secret(scope, secret_id)
    if lock:
        ClientRegistration.objects.select_for_update().filter(pk=secret.pk).first()
    registration = ClientRegistration.objects.select_related("mtls_certificate").filter(pk=secret.pk).first()
    if registration is None:
        # Deleted since.
        raise NotFound
    registration.secret = secret
    return registration


def get_connection(scope: Scope, secret: Secret, environment: str | None) -> Connection:
    """The connection of ``secret`` in an environment, the base environment unless named.

    Raises ``ValidationFailed`` for an unknown environment, ``TokenUnavailable`` (`not_connected`) where it was never connected.
    """
    place = _place(scope, secret, environment)
    connection = Connection.objects.filter(secret=secret, environment=place).select_related("environment").first()
    if connection is None:
        raise not_connected()
    connection.secret = secret
    return connection


def not_connected() -> TokenUnavailable:
    """The error about a secret that was never connected in the environment that was asked for."""
    return TokenUnavailable("The secret is not connected in this environment.", reason="not_connected")


def ensure_connection(scope: Scope, secret: Secret, environment: str | None) -> Connection:
    """The same, made where there is none: due at once where no person is needed."""
    place = _place(scope, secret, environment)
    connection, _ = Connection.objects.get_or_create(
        secret=secret,
        environment=place,
        defaults={
            "account_id": secret.account_id,
            "refresh_due_at": Now() if GrantType(secret.registration.grant_type).is_repeatable else None,
        },
    )
    connection.secret, connection.environment = secret, place
    return connection


def try_again(registration: ClientRegistration, *, is_credential: bool = True) -> None:
    """Make due what failed: with another configuration it may work. Belongs into the transaction that changes it.

    ``is_credential``: what changed is what the provider knows us by, so grants that need no person and were turned down are
    made again.
    """
    connections = Connection.objects.filter(secret_id=registration.pk)
    connections.filter(status=Connection.Status.REFRESH_FAILING).update(refresh_due_at=Now())
    if is_credential and GrantType(registration.grant_type).is_repeatable:
        turned_down = connections.filter(status=Connection.Status.REAUTHORIZATION_REQUIRED)
        revive(turned_down, Connection.Status.REFRESH_FAILING, code="credentials_changed")


def revive(ended: QuerySet[Connection], status: str, *, code: str) -> None:
    """Let connections that had ended be due at once, as ``status``. Belongs into a transaction."""
    for connection in ended.select_for_update():
        Connection.objects.filter(pk=connection.pk).update(status=status, status_changed_at=Now(), refresh_due_at=Now())
        ConnectionEvent.objects.create(
            connection=connection, previous_status=connection.status, status=status, code=code
        )


def _place(scope: Scope, secret: Secret, name: str | None) -> Environment:
    if name is None:
        return secret.base_environment
    return get_environment(account_id=scope.account_id, mode=scope.mode, name=name)


def get_shown(scope: Scope, secret_id: uuid.UUID, environment: str | None) -> Any:
    """A connection as people see it: nothing that is sealed is read. Carries ``now``, ``renewable`` and ``last_revocation``.

    Raises what ``get_connection`` raises.
    """
    secret = get_oauth2_secret(scope, secret_id)
    own = Connection.objects.filter(secret=secret, environment=_place(scope, secret, environment))
    shown: Any = shown_connections(own).annotate(now=Now()).first()
    if shown is None:
        raise not_connected()
    shown.last_revocation = RevocationJob.objects.filter(connection_id=shown.pk).defer("document").first()
    return shown


def shown_connections(queryset: QuerySet[Connection]) -> QuerySet[Any]:
    """``queryset`` with what describes a connection, and without what is sealed; ``renewable``: it has a refresh token."""
    has_refresh_token = ExpressionWrapper(Q(refresh_token__isnull=False), BooleanField())
    return (
        queryset.select_related(
            "secret__registration__mtls_certificate", "secret__registration__issuer", "environment", "account"
        )
        .defer(
            "access_token",
            "refresh_token",
            "secret__registration__document",
            "secret__registration__previous_client_secret",
            "secret__registration__mtls_certificate__content",
            "secret__registration__mtls_certificate__private_key",
            "secret__registration__mtls_certificate__passphrase",
        )
        .annotate(renewable=has_refresh_token)
    )
