"""A client that is to talk to another host: what was entrusted for the old one does not follow it there.

Whoever may change a client may not read its secrets. If they went along to any address that is typed in, they could be read
there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.db.models import F
from django.db.models.functions import Now

from knoxcall.api.errors import ValidationFailed
from oauth_app.claim import RELEASED
from oauth_app.models import ClientRegistration, Connection, GrantType
from oauth_app.protocol.client import OAuthClient
from oauth_app.providers import CUSTOM


def leads_elsewhere(before: OAuthClient, client: OAuthClient) -> bool:
    """Whether ``client`` sends credentials or tokens to an origin that ``before`` sends none to.

    A preset's own hosts are the provider's, whatever fills their variables.
    """
    known = _origins(before.revocation_url, before.mtls_revocation_url, before.token_url, before.mtls_token_url)
    receivers = _origins(client.revocation_url, client.mtls_revocation_url)
    if client.provider == CUSTOM:
        receivers |= _origins(client.token_url, client.mtls_token_url)
    return bool(receivers - known)


def _origins(*addresses: str | None) -> set[tuple[str, str]]:
    parts = [urlsplit(address) for address in addresses if address]
    return {(part.scheme, part.netloc.lower()) for part in parts}


def check_credentials_given(client: OAuthClient, changes: Mapping[str, Any]) -> None:
    """Raise ``ValidationFailed`` where ``client`` would take along a secret that is not among the ``changes``, typed in anew."""
    names = [
        name for name in ("client_secret", "password") if getattr(client, name) is not None and name not in changes
    ]
    if names:
        message = "The address that it is sent to changes: give it again."
        raise ValidationFailed(f"{names[0]}: {message}", fields={name: [message] for name in names})


def forget_refresh_tokens(registration: ClientRegistration) -> None:
    """Forget the refresh tokens, which the old host gave; access tokens are served to their end.

    A refresh that is on the wire stores nothing any more. Where a person consented, they have to consent again.
    """
    repeatable = GrantType(registration.grant_type).is_repeatable
    Connection.objects.filter(secret_id=registration.pk, refresh_token__isnull=False).update(
        refresh_token=None,
        generation=F("generation") + 1,
        refresh_due_at=Now() if repeatable else F("expires_at"),
        outcome_unknown_at=None,
        reauthorize_by=None,
        **RELEASED,
    )
