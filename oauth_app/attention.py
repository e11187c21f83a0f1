"""What a person should know of a connection beyond its status; the same list for the API and the admin."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Case, Q, When
from django.db.models.functions import Now

from oauth_app.models import Connection, GrantType
from oauth_app.providers import PROVIDERS

# So many days ahead of a date that somebody has to act on.
REAUTHORIZE_NOTICE = timedelta(days=7)
CERTIFICATE_NOTICE = timedelta(days=30)

Status = Connection.Status
# What needs a person comes first.
BY_URGENCY = (
    Status.REAUTHORIZATION_REQUIRED,
    Status.REFRESH_FAILING,
    Status.NOT_CONNECTED,
    Status.CONNECTED,
    Status.DISCONNECTED,
)
URGENCY = Case(*(When(status=status, then=place) for place, status in enumerate(BY_URGENCY)))
# Whoever has ended has nothing left that could run out.
_ENDED = (Status.REAUTHORIZATION_REQUIRED, Status.DISCONNECTED)


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
        reauthorize_soon(connection, now, renewable=renewable),
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


def needs_consent_soon() -> Q:
    """Which connections ``reauthorize_soon`` has something to say about, as a condition for the database."""
    browser_grants = [grant for grant in GrantType if not grant.is_repeatable]
    return Q(
        ~Q(status__in=_ENDED),
        reauthorize_by__lte=Now() + REAUTHORIZE_NOTICE,
        refresh_token__isnull=False,
        secret__registration__grant_type__in=browser_grants,
    )


def reauthorize_soon(connection: Connection, now: datetime, *, renewable: bool) -> Attention | None:
    """The warning of a refresh token's end: one that no refresh can prevent, or that failing refreshes do not."""
    ends_at = connection.reauthorize_by
    if ends_at is None or ends_at - now > REAUTHORIZE_NOTICE or not renewable or connection.status in _ENDED:
        return None
    if GrantType(connection.secret.registration.grant_type).is_repeatable:
        # It is made again without the refresh token, and without a person.
        return None
    since, moment = ends_at - REAUTHORIZE_NOTICE, f"{ends_at:%Y-%m-%d %H:%M} UTC"
    is_fixed = connection.refresh_token_rolls is False and ends_at == connection.refresh_token_expires_at
    if ends_at <= now:
        message = f"The refresh token was good until {moment}. Send a new consent link."
    elif connection.status == Status.REFRESH_FAILING and not is_fixed:
        since = max(since, connection.status_changed_at)
        message = (
            f"The refresh token dies on {moment} if refreshes do not work again by then. Mend what makes them fail, or send a "
            "new consent link before that."
        )
    else:
        message = (
            f"The refresh token ends on {moment}, and no refresh can prevent it. Send a new consent link before that."
        )
    return Attention("reauthorize_soon", since, message, reauthorize_by=ends_at)


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
