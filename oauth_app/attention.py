"""What a person should know of a connection beyond its status; the same list for the API and the admin."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from oauth_app.models import Connection, GrantType
from oauth_app.providers import PROVIDERS

# So many days ahead of a date that somebody has to act on.
REAUTHORIZE_NOTICE = timedelta(days=7)
CERTIFICATE_NOTICE = timedelta(days=30)

Status = Connection.Status


@dataclass(frozen=True, slots=True)
class Attention:
    """One thing to know: its code, since when it is so, and what to do, in plain words."""

    code: str
    since: datetime | None
    message: str
    reauthorize_by: datetime | None = None


def attention_of(connection: Connection, now: datetime, *, renewable: bool | None = None) -> list[Attention]:
    """What there is to know of ``connection``, loaded with its secret's registration and that one's certificate.

    ``renewable`` says whether there is a refresh token, for a caller that did not load it.
    """
    renewable = connection.refresh_token is not None if renewable is None else renewable
    checks = (
        _unknown_outcome(connection),
        _no_refresh_token(connection, renewable),
        _reauthorize_soon(connection, now),
        _previous_secret(connection, now),
        _scopes_differ(connection),
        _certificate_expiring(connection, now),
    )
    return [found for found in checks if found is not None]


def _unknown_outcome(connection: Connection) -> Attention | None:
    if connection.outcome_unknown_at is None:
        return None
    return Attention(
        "refresh_outcome_unknown",
        connection.outcome_unknown_at,
        "A refresh was cut off, and nobody knows whether the provider used up the refresh token. It is resolved by the "
        "connection's replay policy.",
    )


def _no_refresh_token(connection: Connection, renewable: bool) -> Attention | None:
    grant = GrantType(connection.secret.registration.grant_type)
    is_wanting = grant is GrantType.AUTHORIZATION_CODE and connection.status == Status.CONNECTED and not renewable
    if not is_wanting or connection.expires_at is None:
        return None
    return Attention(
        "no_refresh_token",
        connection.issued_at,
        "The provider gave no refresh token: when the access token ends, a person must consent again. Ask for offline access "
        "(a scope such as offline_access, or a parameter such as access_type=offline), then send a new consent link.",
        reauthorize_by=connection.expires_at,
    )


def _reauthorize_soon(connection: Connection, now: datetime) -> Attention | None:
    ends_at = connection.refresh_token_expires_at
    if ends_at is None or ends_at - now > REAUTHORIZE_NOTICE or connection.status == Status.REAUTHORIZATION_REQUIRED:
        return None
    return Attention(
        "reauthorize_soon",
        ends_at - REAUTHORIZE_NOTICE,
        "The refresh token ends soon, and the provider gives no other without a consent. Send a new consent link in time.",
        reauthorize_by=ends_at,
    )


def _previous_secret(connection: Connection, now: datetime) -> Attention | None:
    ends_at = connection.secret.registration.previous_client_secret_expires_at
    if connection.previous_client_secret_used_at is None or ends_at is None or ends_at <= now:
        return None
    return Attention(
        "previous_client_secret_in_use",
        connection.previous_client_secret_used_at,
        "The provider refuses the new client secret and takes the previous one, which the vault forgets a day after the change. "
        "Set the new one at the provider.",
    )


def _scopes_differ(connection: Connection) -> Attention | None:
    registration = connection.secret.registration
    if connection.granted_scopes is None or connection.status == Status.DISCONNECTED:
        return None
    missing = PROVIDERS[registration.provider].missing_scopes(registration.scopes, connection.granted_scopes)
    if not missing:
        return None
    return Attention(
        "scopes_differ",
        connection.issued_at,
        f"Asked for, and not granted: {', '.join(sorted(missing))}.",
    )


def _certificate_expiring(connection: Connection, now: datetime) -> Attention | None:
    certificate = connection.secret.registration.mtls_certificate
    if certificate is None or certificate.expires_at - now > CERTIFICATE_NOTICE:
        return None
    verb = "expired" if certificate.expires_at <= now else "expires"
    return Attention(
        "certificate_expiring",
        certificate.expires_at - CERTIFICATE_NOTICE,
        f"The client certificate {verb} on {certificate.expires_at:%Y-%m-%d}. Replace it; the next call uses the new one.",
    )
