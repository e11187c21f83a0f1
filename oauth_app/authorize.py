"""Consent: sending a person to the provider, and turning what comes back into a connection (RFC 6749 §4.1, RFC 7636, RFC 9207).

The state is 256 random bits, stored as a digest, good for one callback within 15 minutes, and bound to a cookie of the browser
that started and to the secret. A callback that does not prove all of that exchanges nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import uuid
from dataclasses import dataclass, field
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now

from knoxcall.clock import database_now
from knoxcall.context import seconds_left
from knoxcall.waiting import NoPlaceToWait, place, poll, release_connection
from oauth_app.calls import fetch_token
from oauth_app.models import AuthorizationRequest, ClientRegistration, Connection, ConnectionEvent, GrantType
from oauth_app.protocol.answers import TokenAnswer
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import ClientRefused, GrantDead, TokenRequestFailed, plain_code
from oauth_app.protocol.requests import authorization_url, code_request, new_code_verifier
from oauth_app.refresh import patiently, token_columns
from secrets_app import audit
from secrets_app.crypto.cipher import Plaintext

logger = logging.getLogger(__name__)

REQUEST_LIFETIME = timedelta(minutes=15)
BARE_START_LIFETIME = timedelta(hours=24)
MOST_OPEN_REQUESTS = 20
# A second callback with the same state waits this long for the first one's outcome.
LONGEST_WAIT = 21.0
LONGEST_EXCHANGE = timedelta(seconds=30)
# The page of a consent whose exchange was cut off. Nobody knows what became of the code; starting again is safe.
INTERRUPTED = "interrupted"

Status = Connection.Status


@dataclass(frozen=True, slots=True)
class Started:
    """Where to send the browser, and the cookie that it must bring back. Prints neither."""

    url: str = field(repr=False)
    cookie_name: str
    cookie_value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The page to show: its code, whose consent it was about, and what the provider said where that may be shown."""

    code: str
    connection: Connection | None = None
    provider_said: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Callback:
    """What a browser brought to the redirect URI. Prints nothing of it."""

    state: str = field(repr=False)
    code: str | None = field(repr=False, default=None)
    error: str | None = field(repr=False, default=None)
    error_description: str | None = field(repr=False, default=None)
    issuer: str | None = field(repr=False, default=None)


def redirect_uri(secret_id: uuid.UUID) -> str:
    """The address that is registered at the provider and that a person opens to start."""
    return f"{settings.KNOXCALL_BASE_URL}/auth/oauth2/callback/{secret_id}"


def cookie_name(state: str) -> str:
    """The cookie of one attempt: two tabs do not undo each other."""
    return "kc_consent_" + hashlib.sha256(b"cookie|" + state.encode()).hexdigest()[:16]


def find_connection(secret_id: uuid.UUID) -> Connection | None:
    """The connection of the secret's base environment, with what a consent needs."""
    return (
        Connection.objects.filter(secret_id=secret_id, environment_id=F("secret__base_environment_id"))
        .select_related("secret", "secret__registration", "environment", "account")
        .first()
    )


def start_bare(secret_id: uuid.UUID, *, actor: audit.Actor) -> Started | Outcome:
    """Start a consent at the redirect URI itself: for the first connection only, and for 24 hours."""
    with transaction.atomic():
        connection = find_connection(secret_id)
        if connection is None:
            return Outcome("not_found")
        refusal = _bare_start_refusal(connection)
        if refusal is not None:
            return Outcome(refusal, connection)
        return begin(connection, is_bare_start=True, actor=actor)


def _bare_start_refusal(connection: Connection) -> str | None:
    if connection.secret.registration.grant_type != GrantType.AUTHORIZATION_CODE:
        return "not_browser_grant"
    if not connection.account.bare_start_enabled:
        return "start_disabled"
    if connection.connected_at is not None:
        return "start_used"
    if connection.created_at + BARE_START_LIFETIME < database_now():
        return "start_expired"
    return None


def begin(connection: Connection, *, is_bare_start: bool, actor: audit.Actor) -> Started | Outcome:
    """Open a consent for ``connection``. Must run in a transaction: it locks the connection, so that starts are counted truly."""
    Connection.objects.select_for_update().get(pk=connection.pk)
    open_requests = connection.authorization_requests.filter(used_at=None, expires_at__gt=Now())
    if open_requests.count() >= MOST_OPEN_REQUESTS:
        return Outcome("too_many_open", connection)
    client = OAuthClient.from_document(connection.secret.registration.document.open())
    state, cookie = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    verifier = new_code_verifier() if client.pkce else None
    request = AuthorizationRequest(
        account_id=connection.account_id,
        connection=connection,
        is_bare_start=is_bare_start,
        state_digest=_digest(state),
        cookie_digest=_digest(cookie),
        ip_address=actor.ip_address,
        expires_at=database_now() + REQUEST_LIFETIME,
    )
    if verifier is not None:
        request.code_verifier = Plaintext(verifier)
    request.save(force_insert=True)
    _record(audit.Action.CONSENT_STARTED, connection, actor, bare_start=is_bare_start)
    url = authorization_url(
        client, redirect_uri=redirect_uri(connection.secret_id), state=state, code_verifier=verifier
    )
    return Started(url, cookie_name(state), cookie)


def complete(secret_id: uuid.UUID, callback: Callback, *, cookie: str | None, actor: audit.Actor) -> Outcome:
    """Finish a consent with what the provider sent the browser back with. Exchanges the code at most once."""
    request = (
        AuthorizationRequest.objects.filter(state_digest=_digest(callback.state))
        .select_related("connection__secret__registration", "connection__environment", "connection__account")
        .first()
    )
    if request is None:
        return Outcome("unknown_state")
    if request.connection.secret_id != secret_id:
        return Outcome("wrong_secret")
    if cookie is None or not hmac.compare_digest(_digest(cookie), bytes(request.cookie_digest)):
        return Outcome("wrong_browser")
    try:
        with place():
            return _use(request, callback, actor)
    except NoPlaceToWait:
        # Nothing was used up: the same address works when it is opened again.
        return Outcome("vault_unavailable", request.connection)


def _use(request: AuthorizationRequest, callback: Callback, actor: audit.Actor) -> Outcome:
    """Take the right to exchange, which one callback gets; the others show its outcome."""
    taken = AuthorizationRequest.objects.filter(pk=request.pk, used_at=None, expires_at__gt=Now()).update(used_at=Now())
    if not taken:
        return _shown_again(request)
    request.refresh_from_db(fields=["used_at"])
    connection = request.connection
    try:
        outcome = _refusal(request, callback) or _exchange(request, callback, actor)
    except Exception:
        # The state is used up: without an outcome the person would be told to wait, for ever.
        AuthorizationRequest.objects.filter(pk=request.pk).update(outcome=INTERRUPTED)
        raise
    if outcome.code not in ("connected", "connected_without_refresh_token"):
        # A success writes its outcome in the transaction that stores the token.
        with transaction.atomic():
            AuthorizationRequest.objects.filter(pk=request.pk).update(outcome=outcome.code)
            _record(audit.Action.CONSENT_FAILED, connection, actor, outcome=outcome.code, reason=outcome.reason)
        logger.info("consent for connection %s ended: %s (%s)", connection.pk, outcome.code, outcome.reason)
    return outcome


def _shown_again(request: AuthorizationRequest) -> Outcome:
    def look() -> AuthorizationRequest | None:
        found = AuthorizationRequest.objects.filter(pk=request.pk).annotate(now=Now()).first()
        if found is None or found.used_at is None or found.outcome:
            return found
        # The process that took it has died with it: no exchange lasts this long.
        if found.now - found.used_at > LONGEST_EXCHANGE:
            found.outcome = INTERRUPTED
            return found
        return None

    seen = poll(look, seconds=seconds_left(LONGEST_WAIT))
    if seen is None:
        return Outcome("in_progress", request.connection)
    if seen.used_at is None:
        return Outcome("expired", request.connection)
    return Outcome(seen.outcome, request.connection)


def _refusal(request: AuthorizationRequest, callback: Callback) -> Outcome | None:
    """Why a proven callback is not exchanged all the same."""
    connection = request.connection
    client = _client(connection)
    if client.issuer is not None and callback.issuer is not None and callback.issuer != client.issuer:
        return Outcome("wrong_issuer", connection)
    if callback.error is not None:
        reason = plain_code(callback.error)
        if reason == "access_denied":
            return Outcome("denied", connection, reason=reason)
        return Outcome("provider_error", connection, provider_said=callback.error_description, reason=reason)
    if not callback.code:
        return Outcome("provider_error", connection, reason="no_code")
    if request.is_bare_start and Connection.objects.filter(pk=connection.pk, connected_at__isnull=False).exists():
        return Outcome("superseded", connection)
    return None


def _exchange(request: AuthorizationRequest, callback: Callback, actor: audit.Actor) -> Outcome:
    connection = request.connection
    client = _client(connection)
    verifier = request.code_verifier.open().reveal() if request.code_verifier is not None else None
    token_request = code_request(
        client, code=callback.code or "", redirect_uri=redirect_uri(connection.secret_id), code_verifier=verifier
    )
    release_connection()
    try:
        answer = fetch_token(client, token_request)
    except TokenRequestFailed as failure:
        refused = isinstance(failure, GrantDead | ClientRefused)
        return Outcome("exchange_failed" if refused else "provider_unavailable", connection, reason=failure.code)
    return patiently(_store, request, client, answer, actor)


def _store(request: AuthorizationRequest, client: OAuthClient, answer: TokenAnswer, actor: audit.Actor) -> Outcome:
    """Make the connection. A new consent supersedes whatever was there, a refresh in flight included."""
    connection, used_at = request.connection, request.used_at
    if used_at is None:
        raise ValueError("the authorization request was not taken")
    columns = token_columns(connection, client, answer, issued_at=used_at, keep_refresh_token=False)
    columns |= {
        # What the previous grant was given, told us and did says nothing of this one.
        "granted_scopes": None if answer.scopes is None else list(answer.scopes),
        "facts": answer.facts,
        "rotates": None,
        "connected_at": Coalesce("connected_at", Now()),
        "status_changed_at": Now(),
        "stored_by": request.pk,
    }
    expected = answer.expires_in is not None and answer.refresh_token is None
    code = "connected_without_refresh_token" if expected else "connected"
    fence = Q(connected_at=None) if request.is_bare_start else Q()
    with transaction.atomic():
        previous = (
            Connection.objects.select_for_update().filter(pk=connection.pk).values_list("status", flat=True).first()
        )
        stored = Connection.objects.filter(fence, pk=connection.pk).update(**columns)
        if not stored:
            return Outcome("not_found" if previous is None else "superseded", connection)
        if previous is not None and previous != Status.CONNECTED:
            ConnectionEvent.objects.create(
                connection=connection, previous_status=previous, status=Status.CONNECTED, code="consent"
            )
        AuthorizationRequest.objects.filter(pk=request.pk).update(outcome=code)
        _record(audit.Action.CONSENT_COMPLETED, connection, actor, outcome=code)
    logger.info("connection %s was connected by consent", connection.pk)
    return Outcome(code, connection)


def _client(connection: Connection) -> OAuthClient:
    registration: ClientRegistration = connection.secret.registration
    return OAuthClient.from_document(registration.document.open())


def _record(action: audit.Action, connection: Connection, actor: audit.Actor, **details: object) -> None:
    audit.record(
        action,
        account_id=connection.account_id,
        mode=connection.secret.mode,
        resource_type="secret",
        resource_id=connection.secret_id,
        actor=actor,
        details={"name": connection.secret.name, "environment": connection.environment.name, **details},
    )


def _digest(text: str) -> bytes:
    # The text is 256 random bits: a plain digest is enough, and nobody can search it.
    return hashlib.sha256(text.encode()).digest()


def prune() -> int:
    """Delete consents that ended or ran out more than a day ago; returns how many."""
    deleted, _ = AuthorizationRequest.objects.filter(expires_at__lt=Now() - timedelta(days=1)).delete()
    return deleted
