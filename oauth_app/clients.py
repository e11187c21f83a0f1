"""Opening a client registration: the one way from what is sealed to a client that can talk to its provider."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace

from django.db.models.functions import Now

from knoxcall.client_certificates import ClientCertificate
from knoxcall.clock import database_now
from oauth_app.hosts import Callee
from oauth_app.models import ClientRegistration
from oauth_app.protocol.client import OAuthClient
from secrets_app.data_keys import keyed_digest
from secrets_app.models import Certificate

# The client secret that was replaced is tried for so long after that.
PREVIOUS_SECRET_HOURS = 24


def open_client(registration: ClientRegistration) -> OAuthClient:
    """The client with its certificate, and with the previous secret while that may be tried. Raises ``SealBroken``.

    The registration must have been loaded with its certificate, or this asks the database for it.
    """
    client = OAuthClient.from_document(registration.document.open())
    previous, certificate = registration.previous_client_secret, registration.mtls_certificate
    if previous is not None and not _may_be_tried(registration):
        previous = None
    if previous is None and certificate is None:
        return client
    return replace(
        client,
        previous_client_secret=previous.open().reveal() if previous is not None else None,
        certificate=client_certificate(certificate) if certificate is not None else None,
    )


def _may_be_tried(registration: ClientRegistration) -> bool:
    # The schedule erases it some minutes later.
    ends_at = registration.previous_client_secret_expires_at
    return ends_at is not None and ends_at > database_now()


def client_certificate(certificate: Certificate) -> ClientCertificate:
    """What is shown to a token endpoint, on behalf of the certificate's account. Raises ``SealBroken``."""
    key, passphrase = certificate.private_key, certificate.passphrase
    if key is None:
        raise ValueError("the certificate holds no private key")
    return ClientCertificate(
        owner=str(certificate.account_id),
        chain=certificate.chain.encode(),
        private_key=key.open().reveal_bytes(),
        passphrase=passphrase.open().reveal_bytes() if passphrase is not None else None,
    )


def client_digest(client: OAuthClient) -> str:
    """Names the client at its provider without telling its id: whatever has this digest shares the provider's limits."""
    _, digest = keyed_digest("client", "\0".join((client.provider, client.token_host, client.client_id)).encode())
    return digest.hex()[:32]


def callee_of(registration: ClientRegistration) -> Callee:
    """Whom a call for this registration goes to. One from before there were digests counts as a client of its own."""
    return Callee(registration.token_host, registration.client_digest or registration.pk.hex)


def registrations_of(secret_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, ClientRegistration]:
    """Client registrations with their certificates by secret id, in one statement, or two where there are certificates."""
    registrations: dict[uuid.UUID, ClientRegistration] = ClientRegistration.objects.in_bulk(list(secret_ids))
    # Few clients have one; joined, they would cost every other as much as its own columns.
    shown = {r.mtls_certificate_id for r in registrations.values() if r.mtls_certificate_id is not None}
    if shown:
        certificates = Certificate.objects.in_bulk(list(shown))
        for registration in registrations.values():
            if registration.mtls_certificate_id is not None:
                registration.mtls_certificate = certificates.get(registration.mtls_certificate_id)
    return registrations


def erase_previous_secrets() -> int:
    """Erase the replaced client secrets whose time is over; returns how many."""
    return ClientRegistration.objects.filter(previous_client_secret_expires_at__lte=Now()).update(
        previous_client_secret=None, previous_client_secret_expires_at=None
    )
