"""Writing client registrations: creating them with their first connection, and changing them while connections live on."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from billing_app.limits import check_oauth2_allowed
from knoxcall.api.errors import ValidationFailed, invalid
from knoxcall.api.idempotency import Attempt
from oauth_app.clients import PREVIOUS_SECRET_HOURS, open_client
from oauth_app.configure import Configuration, find_certificate, given_of
from oauth_app.connections import get_registration
from oauth_app.discovery import DiscoveryFailed, discover
from oauth_app.models import ClientRegistration, Connection, ConnectionEvent, GrantType, Issuer
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.metadata import IssuerMetadata
from oauth_app.providers import CUSTOM, PROVIDERS
from oauth_app.tokens import first_fetch
from secrets_app import audit
from secrets_app.crypto.cipher import Plaintext, SealBroken
from secrets_app.models import Certificate, Secret
from secrets_app.vault import NewSecret, Scope, create_secret
from secrets_app.vault import record as record_about

logger = logging.getLogger(__name__)

Status = Connection.Status

# What the provider knows us by: with one of these changed, what it refused before may work now.
CREDENTIALS = frozenset(
    {"client_id", "client_secret", "username", "password", "mtls_certificate_id", "token_url", "issuer_url"}
)


def configured(scope: Scope, provider: str, grant: GrantType, given: Mapping[str, Any]) -> Configuration:
    """A configuration with all that has to be looked up for it: the issuer's metadata, the certificate.

    May call the issuer, so no transaction may be open. Raises ``ValidationFailed``.
    """
    certificate_id, issuer_url = given.get("mtls_certificate_id"), given.get("issuer_url")
    return Configuration(
        provider=PROVIDERS[provider],
        grant=grant,
        given=given,
        certificate=find_certificate(scope, certificate_id) if certificate_id else None,
        metadata=_discovered(issuer_url) if issuer_url and provider == CUSTOM else None,
    )


def _discovered(issuer_url: str) -> IssuerMetadata:
    try:
        return discover(issuer_url)
    except DiscoveryFailed as err:
        raise invalid("issuer_url", err.message) from None


def create_oauth2_secret(
    scope: Scope,
    new: NewSecret,
    client: OAuthClient,
    *,
    attempt: Attempt,
    certificate: Certificate | None = None,
) -> Secret:
    """Create the secret with a connection in its base environment; for repeatable grants fetch the token before returning.

    A fetch that fails leaves the secret and a connection that says why. Raises what ``create_secret`` raises.
    """
    made: list[Connection] = []
    repeatable = GrantType(client.grant_type).is_repeatable

    def furnish(secret: Secret) -> None:
        ClientRegistration.objects.create(
            secret=secret,
            account_id=secret.account_id,
            provider=client.provider,
            grant_type=client.grant_type,
            **_columns(client, certificate),
        )
        connection = Connection.objects.create(
            account_id=secret.account_id,
            secret=secret,
            environment=secret.base_environment,
            # Due at once: should this process die before the fetch, the sweep makes it.
            refresh_due_at=Now() if repeatable else None,
        )
        made.append(connection)

    secret = create_secret(
        scope, new, secret_type=Secret.Type.OAUTH2, furnish=furnish, attempt=attempt, check_account=check_oauth2_allowed
    )
    if repeatable:
        first_fetch(made[0])
    return secret


def change_client(
    scope: Scope, secret_id: uuid.UUID, changes: Mapping[str, Any], *, keep_previous: bool, attempt: Attempt
) -> ClientRegistration:
    """Change a client registration; ``None`` takes a value away. Connections stay, and what failed is tried again at once.

    A client secret that is replaced is kept for a day as a fall-back, unless ``keep_previous`` is false: then none is. Raises
    ``NotFound``, ``InvalidType`` and ``ValidationFailed``; then nothing has changed.
    """
    if not changes and keep_previous:
        raise ValidationFailed("Give at least one field to change.")
    # The issuer is asked before anything is locked: it may take its time, and inside it will be known.
    known = get_registration(scope, secret_id).issuer
    if issuer_url := changes.get("issuer_url", known and known.url):
        _discovered(issuer_url)
    with transaction.atomic():
        registration = get_registration(scope, secret_id, lock=True)
        before = open_client(registration)
        if changes:
            client, certificate = _changed(scope, registration, before, changes)
            _keep_previous(registration, before, client)
            _write(registration, client, certificate)
            registration.version += 1
        if not keep_previous:
            registration.previous_client_secret = registration.previous_client_secret_expires_at = None
        registration.save()
        attempt.names(secret_id)
        if changes:
            _try_again(registration, is_credential=bool(CREDENTIALS & changes.keys()))
        details: dict[str, object] = {
            "name": registration.secret.name,
            "changed": ", ".join(sorted(changes)),
            "keep_previous": keep_previous,
        }
        record_about(audit.Action.CLIENT_CHANGED, scope, registration.secret, details=details)
    return registration


def _changed(
    scope: Scope, registration: ClientRegistration, before: OAuthClient, changes: Mapping[str, Any]
) -> tuple[OAuthClient, Certificate | None]:
    known = given_of(before)
    if registration.mtls_certificate_id is not None:
        known["mtls_certificate_id"] = registration.mtls_certificate_id
    given = {name: value for name, value in {**known, **changes}.items() if value is not None}
    if not given.get("client_id"):
        raise invalid("client_id", "It cannot be taken away.")
    configuration = configured(scope, registration.provider, GrantType(registration.grant_type), given)
    return configuration.client(registration.account_id), configuration.certificate


def _columns(client: OAuthClient, certificate: Certificate | None) -> dict[str, Any]:
    if certificate is not None and not Secret.objects.select_for_update().filter(pk=certificate.pk).exists():
        # Asked under its lock, so that nobody deletes it meanwhile.
        raise invalid("mtls_certificate_id", "There is no certificate with this id.")
    return {
        "mtls_certificate": certificate,
        "issuer": Issuer.objects.filter(url=client.issuer_url).first() if client.issuer_url else None,
        "scopes": list(client.scopes),
        "token_host": client.token_host,
        "document": client.to_document(),
    }


def _write(registration: ClientRegistration, client: OAuthClient, certificate: Certificate | None) -> None:
    for name, value in _columns(client, certificate).items():
        setattr(registration, name, value)


def _keep_previous(registration: ClientRegistration, before: OAuthClient, client: OAuthClient) -> None:
    if before.client_secret is None or before.client_secret == client.client_secret:
        return
    registration.previous_client_secret = Plaintext(before.client_secret)
    registration.previous_client_secret_expires_at = Now() + timedelta(hours=PREVIOUS_SECRET_HOURS)


def _try_again(registration: ClientRegistration, *, is_credential: bool) -> None:
    """Make what failed due: with another configuration it may work."""
    connections = Connection.objects.filter(secret_id=registration.pk)
    connections.filter(status=Status.REFRESH_FAILING).update(refresh_due_at=Now())
    if not is_credential or not GrantType(registration.grant_type).is_repeatable:
        return
    # A grant that needs no person was refused for its credentials, and these have changed.
    for connection in connections.filter(status=Status.REAUTHORIZATION_REQUIRED).select_for_update():
        Connection.objects.filter(pk=connection.pk).update(
            status=Status.REFRESH_FAILING, status_changed_at=Now(), refresh_due_at=Now()
        )
        ConnectionEvent.objects.create(
            connection=connection,
            previous_status=connection.status,
            status=Status.REFRESH_FAILING,
            code="credentials_changed",
        )


def follow_issuer(*, issuer: Issuer, metadata: IssuerMetadata, **_: object) -> None:
    """Let the clients of ``issuer`` use the addresses that it names now. Receives ``issuer_changed``, inside its transaction."""
    registrations = ClientRegistration.objects.filter(issuer=issuer).select_related("mtls_certificate", "secret")
    for registration in registrations.select_for_update(of=("self",)):
        try:
            before = open_client(registration)
            configuration = Configuration(
                provider=PROVIDERS[registration.provider],
                grant=GrantType(registration.grant_type),
                given=given_of(before),
                certificate=registration.mtls_certificate,
                metadata=metadata,
            )
            client = configuration.client(registration.account_id)
        except (SealBroken, ValidationFailed) as err:
            # It stays as it was, and its calls tell what is wrong; the others follow.
            logger.error("the client of secret %s cannot follow its issuer: %s", registration.pk, type(err).__name__)
            continue
        _write(registration, client, registration.mtls_certificate)
        registration.save()


def use_new_certificate(*, certificate: Certificate, **_: object) -> None:
    """Let what failed with the old certificate be tried with the new one at once. Receives ``certificate_replaced``."""
    for registration in ClientRegistration.objects.filter(mtls_certificate=certificate):
        _try_again(registration, is_credential=True)
