"""Opening a client registration: the one way from what is sealed to a client that can talk to its provider."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace

from django.db.models.functions import Now

from knoxcall.client_certificates import ClientCertificate
from knoxcall.clock import database_now
from oauth_app.models import ClientRegistration
from oauth_app.protocol.client import OAuthClient
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


def registrations_of(secret_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, ClientRegistration]:
    """Client registrations with their certificates by secret id, in one statement."""
    return ClientRegistration.objects.select_related("mtls_certificate").in_bulk(list(secret_ids))


def erase_previous_secrets() -> int:
    """Erase the replaced client secrets whose time is over; returns how many."""
    return ClientRegistration.objects.filter(previous_client_secret_expires_at__lte=Now()).update(
        previous_client_secret=None, previous_client_secret_expires_at=None
    )
