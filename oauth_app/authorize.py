"""Starting a consent: at the bare redirect URI, or by a link; either way the browser is sent to the provider with a state.

The state is 256 random bits, stored as a digest, good for one callback within 15 minutes, and bound to a cookie of the browser
that started, to the secret and to its environment (RFC 6749 §10.12, RFC 9700 §4.7). What comes back is ``oauth_app.complete``'s.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from knoxcall.api.errors import NotFound, ValidationFailed, invalid
from knoxcall.clock import database_now
from oauth_app.clients import open_client
from oauth_app.connections import ensure_connection, get_registration
from oauth_app.models import AuthorizationRequest, Connection, ConsentLink, GrantType
from oauth_app.protocol.requests import authorization_url, new_code_verifier
from oauth_app.return_urls import check_return_url
from secrets_app import audit
from secrets_app.crypto.cipher import Plaintext
from secrets_app.vault import Scope

REQUEST_LIFETIME = timedelta(minutes=15)
LINK_LIFETIME = timedelta(minutes=15)
BARE_START_LIFETIME = timedelta(hours=24)
MOST_OPEN_REQUESTS = 20


@dataclass(frozen=True, slots=True)
class Started:
    """Where to send the browser, and the cookie that it must bring back. Prints neither."""

    url: str = field(repr=False)
    cookie_name: str
    cookie_value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The page to show: its code, whose consent it was about, and what the provider said where that may be shown.

    ``return_to`` is where the browser goes instead.
    """

    code: str
    connection: Connection | None = None
    provider_said: str | None = None
    reason: str | None = None
    return_to: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NewLink:
    """A consent link that was just made. ``url`` is shown once; only a digest of it is stored."""

    url: str = field(repr=False)
    expires_at: datetime
    connection: Connection


def redirect_uri(secret_id: uuid.UUID) -> str:
    """The address that is registered at the provider and that a person opens to start."""
    return f"{settings.KNOXCALL_BASE_URL}/auth/oauth2/callback/{secret_id}"


def cookie_name(state: str) -> str:
    """The cookie of one attempt: two tabs do not undo each other."""
    return "kc_consent_" + hashlib.sha256(b"cookie|" + state.encode()).hexdigest()[:16]


def digest(text: str) -> bytes:
    """What is stored of a state, a cookie or a link. Each is 256 random bits: a plain digest is enough, nobody can search it."""
    return hashlib.sha256(text.encode()).digest()


def find_connection(secret_id: uuid.UUID) -> Connection | None:
    """The connection of the secret's base environment, with what a consent needs."""
    return (
        Connection.objects.filter(secret_id=secret_id, environment_id=F("secret__base_environment_id"))
        .select_related("secret", "secret__registration", "environment", "account")
        .first()
    )


def create_link(
    scope: Scope, secret_id: uuid.UUID, *, environment: str | None = None, return_url: str | None = None
) -> NewLink:
    """Make a link that starts a consent, for whoever is to give it; an earlier one of the same connection is void from now on.

    ``environment`` is the base environment unless named; its connection is made if there is none. Raises ``NotFound``,
    ``InvalidType`` and ``ValidationFailed``.
    """
    token = secrets.token_urlsafe(32)
    with transaction.atomic():
        registration = get_registration(scope, secret_id)
        if not GrantType(registration.grant_type).uses_browser:
            raise ValidationFailed(f"The grant {registration.grant_type} needs nobody's consent.")
        if return_url is not None:
            try:
                check_return_url(scope.account_id, return_url)
            except ValueError as err:
                raise invalid("return_url", str(err)) from None
        connection = ensure_connection(scope, registration.secret, environment)
        # Under its lock, so that of two links made at once one is the newer.
        if not _lock(connection):
            raise NotFound
        void_links(connection)
        link = ConsentLink.objects.create(
            account_id=scope.account_id,
            connection=connection,
            token_digest=digest(token),
            return_url=return_url or "",
            created_by=scope.actor.name,
            expires_at=database_now() + LINK_LIFETIME,
        )
        record(audit.Action.CONSENT_LINK_CREATED, connection, scope.actor, link=str(link.pk))
    # In the query, which our log leaves out.
    return NewLink(f"{settings.KNOXCALL_BASE_URL}/auth/oauth2/connect?link={token}", link.expires_at, connection)


def void_links(connection: Connection) -> None:
    """Void the links of ``connection`` that are still open, and with them the consents that they started."""
    ConsentLink.objects.filter(connection=connection, voided_at=None, completed_at=None).update(voided_at=Now())


def start_by_link(token: str, *, actor: audit.Actor) -> Started | Outcome:
    """Start a consent by a link, as often as it is opened."""
    with transaction.atomic():
        link = (
            ConsentLink.objects.filter(token_digest=digest(token))
            .select_related(
                "connection__secret__registration", "connection__environment", "connection__account", "account"
            )
            .annotate(now=Now())
            .first()
        )
        if link is None:
            return Outcome("not_found")
        if link.completed_at is not None:
            return Outcome("link_used", link.connection)
        if link.voided_at is not None:
            return Outcome("link_replaced", link.connection)
        if link.expires_at <= link.now:
            return Outcome("link_expired", link.connection)
        return begin(link.connection, link=link, actor=actor)


def start_bare(secret_id: uuid.UUID, *, actor: audit.Actor) -> Started | Outcome:
    """Start a consent at the redirect URI itself: for the first connection only, and for 24 hours."""
    with transaction.atomic():
        connection = find_connection(secret_id)
        if connection is None:
            return Outcome("not_found")
        refusal = _bare_start_refusal(connection)
        if refusal is not None:
            return Outcome(refusal, connection)
        return begin(connection, link=None, actor=actor)


def _bare_start_refusal(connection: Connection) -> str | None:
    if not GrantType(connection.secret.registration.grant_type).uses_browser:
        return "not_browser_grant"
    if not connection.account.bare_start_enabled:
        return "start_disabled"
    if connection.connected_at is not None or connection.status == Connection.Status.DISCONNECTED:
        return "start_used"
    if connection.created_at + BARE_START_LIFETIME < database_now():
        return "start_expired"
    return None


def begin(connection: Connection, *, link: ConsentLink | None, actor: audit.Actor) -> Started | Outcome:
    """Open a consent for ``connection``; without a link it is a bare start.

    Must run in a transaction: it locks the connection, so that starts are counted truly.
    """
    if not _lock(connection):
        return Outcome("not_found")
    open_requests = connection.authorization_requests.filter(used_at=None, expires_at__gt=Now())
    # What an earlier link started leads nowhere any more: it must not stand in the way of the one that replaced it.
    open_requests = open_requests.exclude(link__voided_at__isnull=False)
    if open_requests.count() >= MOST_OPEN_REQUESTS:
        return Outcome("too_many_open", connection)
    client = open_client(connection.secret.registration)
    state, cookie = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    # The implicit grant has no second step that could prove a verifier.
    verifier = new_code_verifier() if client.pkce and client.grant_type != GrantType.IMPLICIT else None
    request = AuthorizationRequest(
        account_id=connection.account_id,
        connection=connection,
        is_bare_start=link is None,
        link=link,
        state_digest=digest(state),
        cookie_digest=digest(cookie),
        ip_address=actor.ip_address,
        expires_at=database_now() + REQUEST_LIFETIME,
    )
    if verifier is not None:
        request.code_verifier = Plaintext(verifier)
    request.save(force_insert=True)
    record(audit.Action.CONSENT_STARTED, connection, actor, bare_start=link is None)
    url = authorization_url(
        client, redirect_uri=redirect_uri(connection.secret_id), state=state, code_verifier=verifier
    )
    return Started(url, cookie_name(state), cookie)


def _lock(connection: Connection) -> bool:
    """Lock ``connection`` to the transaction's end; ``False``: it was deleted meanwhile."""
    return Connection.objects.select_for_update().filter(pk=connection.pk).first() is not None


def record(action: audit.Action, connection: Connection, actor: audit.Actor, **details: object) -> None:
    """Write an audit event about ``connection``, under its secret."""
    audit.record(
        action,
        account_id=connection.account_id,
        mode=connection.secret.mode,
        resource_type="secret",
        resource_id=connection.secret_id,
        actor=actor,
        details={"name": connection.secret.name, "environment": connection.environment.name, **details},
    )


def prune() -> int:
    """Delete consents and links that ended or ran out more than a day ago; returns how many rows."""
    day_ago = Now() - timedelta(days=1)
    requests, _ = AuthorizationRequest.objects.filter(expires_at__lt=day_ago).delete()
    links, _ = ConsentLink.objects.filter(expires_at__lt=day_ago).delete()
    return requests + links
