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
from oauth_app.clients import PREVIOUS_SECRET_HOURS, client_digest, open_client
from oauth_app.configure import ADDRESSES, INSTANCE, Configuration, find_certificate, given_of
from oauth_app.connections import get_registration, try_again
from oauth_app.discovery import DiscoveryFailed, discover
from oauth_app.models import ClientRegistration, Connection, GrantType, Issuer
from oauth_app.moves import check_credentials_given, forget_refresh_tokens, leads_elsewhere
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.metadata import IssuerMetadata
from oauth_app.providers import CUSTOM, PROVIDERS, TokenAuthMethod
from oauth_app.tokens import first_fetch
from secrets_app import audit
from secrets_app.crypto.cipher import Plaintext, SealBroken
from secrets_app.models import Certificate, Secret
from secrets_app.vault import NewSecret, Scope, create_secret
from secrets_app.vault import record as record_about

logger = logging.getLogger(__name__)

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

    Credentials do not follow to another host (``oauth_app.moves``). A client secret that is replaced is kept for a day as a
    fall-back, unless ``keep_previous`` is false: then none is. Raises ``NotFound``, ``InvalidType`` and ``ValidationFailed``;
    then nothing has changed.
    """
    if not changes and keep_previous:
        raise ValidationFailed("Give at least one field to change.")
    # A new issuer is asked before anything is locked: it may take its time.
    issuer_url = changes.get("issuer_url")
    is_custom = get_registration(scope, secret_id).provider == CUSTOM
    metadata = _discovered(issuer_url) if issuer_url and is_custom else None
    with transaction.atomic():
        registration = get_registration(scope, secret_id, lock=True)
        before = open_client(registration)
        if changes:
            client, certificate = _changed(scope, registration, before, changes, metadata)
            is_moved = leads_elsewhere(before, client)
            if is_moved:
                check_credentials_given(client, changes)
            _write(registration, client, certificate)
            # After the certificate's lock, as where that is replaced: the connections come last.
            _keep_previous(registration, before, client)
            if is_moved:
                forget_refresh_tokens(registration)
            registration.version += 1
        if not keep_previous:
            _forget_previous(registration)
        registration.save()
        attempt.names(secret_id)
        if changes:
            try_again(registration, is_credential=bool(CREDENTIALS & changes.keys()))
        details: dict[str, object] = {
            "name": registration.secret.name,
            "changed": ", ".join(sorted(changes)),
            "keep_previous": keep_previous,
        }
        record_about(audit.Action.CLIENT_CHANGED, scope, registration.secret, details=details)
    return registration


def _changed(
    scope: Scope,
    registration: ClientRegistration,
    before: OAuthClient,
    changes: Mapping[str, Any],
    metadata: IssuerMetadata | None,
) -> tuple[OAuthClient, Certificate | None]:
    known = given_of(before)
    # What says the same in another way takes the place of what is known.
    if changes.get("issuer_url") is not None:
        known = {name: value for name, value in known.items() if name not in ADDRESSES}
    if INSTANCE in changes:
        known.pop("login_host", None)
    if registration.mtls_certificate_id is not None:
        known["mtls_certificate_id"] = registration.mtls_certificate_id
    given = {name: value for name, value in {**known, **changes}.items() if value is not None}
    if not given.get("client_id"):
        raise invalid("client_id", "It cannot be taken away.")
    certificate_id = given.get("mtls_certificate_id")
    if metadata is None and registration.issuer is not None and "issuer_url" in given:
        # What the client goes by already, however old: an issuer that is away must not keep a leaked secret in use.
        metadata = IssuerMetadata.from_json(registration.issuer.metadata)
    configuration = Configuration(
        provider=PROVIDERS[registration.provider],
        grant=GrantType(registration.grant_type),
        given=given,
        certificate=find_certificate(scope, certificate_id) if certificate_id else None,
        metadata=metadata,
        known_return_url=before.return_url,
    )
    return configuration.client(registration.account_id), configuration.certificate


def _columns(client: OAuthClient, certificate: Certificate | None) -> dict[str, Any]:
    if certificate is not None:
        # Asked under its lock, so that nobody deletes it meanwhile, or takes its key away.
        Secret.objects.select_for_update().filter(pk=certificate.pk).first()
        if not Certificate.objects.filter(pk=certificate.pk, private_key__isnull=False).exists():
            raise invalid("mtls_certificate_id", "There is no certificate with this id and a private key.")
    return {
        "mtls_certificate": certificate,
        "issuer": Issuer.objects.filter(url=client.issuer_url).first() if client.issuer_url else None,
        "scopes": list(client.scopes),
        "token_host": client.token_host,
        "client_digest": client_digest(client),
        "document": client.to_document(),
    }


def _write(registration: ClientRegistration, client: OAuthClient, certificate: Certificate | None) -> None:
    for name, value in _columns(client, certificate).items():
        setattr(registration, name, value)


def _keep_previous(registration: ClientRegistration, before: OAuthClient, client: OAuthClient) -> None:
    if not _is_same_client(before, client):
        # To another provider, or under another id, it would only give the secret away.
        _forget_previous(registration)
        return
    if before.client_secret is None or before.client_secret == client.client_secret:
        return
    _forget_previous(registration)
    registration.previous_client_secret = Plaintext(before.client_secret)
    registration.previous_client_secret_expires_at = Now() + timedelta(hours=PREVIOUS_SECRET_HOURS)


def _is_same_client(before: OAuthClient, client: OAuthClient) -> bool:
    """Whether a secret of ``before`` could still be one of ``client``: the same id at the same place, which is shown secrets."""
    shows_one = client.client_secret is not None and client.token_auth_method is not TokenAuthMethod.NONE
    return shows_one and (before.client_id, before.token_url) == (client.client_id, client.token_url)


def _forget_previous(registration: ClientRegistration) -> None:
    registration.previous_client_secret = registration.previous_client_secret_expires_at = None
    Connection.objects.filter(secret_id=registration.pk).update(previous_client_secret_used_at=None)


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
                known_return_url=before.return_url,
            )
            client = configuration.client(registration.account_id)
        except (SealBroken, ValidationFailed) as err:
            # It stays as it was, and its calls tell what is wrong; the others follow.
            logger.error("the client of secret %s cannot follow its issuer: %s", registration.pk, type(err).__name__)
            continue
        _write(registration, client, registration.mtls_certificate)
        registration.save()
        try_again(registration, is_credential=False)


def use_new_certificate(*, certificate: Certificate, **_: object) -> None:
    """Let what failed with the old certificate be tried with the new one at once. Receives ``certificate_replaced``.

    Raises ``ValidationFailed``, so that nothing is replaced, where clients need a private key and there would be none.
    """
    registrations = ClientRegistration.objects.filter(mtls_certificate=certificate)
    if certificate.private_key is None and registrations.exists():
        raise invalid("private_key", "OAuth2 secrets show this certificate, so it needs its private key.")
    for registration in registrations:
        try_again(registration)
