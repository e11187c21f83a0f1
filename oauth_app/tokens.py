"""The one door to an access token: serve a valid one at once, renew an expired one, once, however many ask.

A read of a valid token is one statement and no network. Of an expired one the first caller takes the claim that the workers
take too; all others, in whatever process, wait for its outcome by looking at the row.
"""

from __future__ import annotations

import hashlib
import logging
import math
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from knoxcall.api.errors import InvalidType, NotFound, TokenUnavailable
from knoxcall.context import seconds_left
from knoxcall.marks import UseMarks
from knoxcall.waiting import NoPlaceToWait, Pauses, place, poll, release_connection
from oauth_app import outage
from oauth_app.breaker import Verdict
from oauth_app.claim import claim_one, give_back_doubtful
from oauth_app.clients import callee_of
from oauth_app.connections import ensure_connection, get_registration, not_connected, revive
from oauth_app.hosts import Blocked, hosts
from oauth_app.models import Connection, GrantType
from oauth_app.recovery import make_recovered_due
from oauth_app.refresh import refresh
from secrets_app.crypto.cipher import Plaintext, SealBroken
from secrets_app.environments import get_environment
from secrets_app.vault import Scope, get_secret

# Seconds that a caller may spend here. The call deadline is 20 s and a request may last 25 s.
LONGEST_WAIT = 23.0
SHORT_WAIT = 2.0
# A Retry-After longer than this does not help: clients would rather hear the error.
HELPFUL_RETRY = 5

# Whoever insists on a call gets one, but a script in a loop must not hammer a provider that is down.
INSISTENCE = timedelta(seconds=10)
_NOT_ASKED = (
    "The provider is not being called at the moment, because other calls to it failed or too many are under way."
)
# A refresh is not begun with less time than this: cut off, it would leave an outcome unknown.
SHORTEST_CALL = 5.0

logger = logging.getLogger(__name__)
uses = UseMarks()
Status = Connection.Status


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A live access token, and what its reader should know of it. Times are the database's."""

    value: Plaintext
    token_type: str
    expires_at: datetime | None
    expires_in: int | None
    connection_status: str
    scopes: list[str] | None
    generation: int
    secret_expired: bool
    refresh_error: dict[str, str] | None
    etag: str


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a caller wants beyond a token that is valid."""

    min_ttl: int = 0
    force: bool = False
    insists: bool = False


def get_access_token(
    scope: Scope,
    secret_id: uuid.UUID,
    *,
    environment: str | None = None,
    min_ttl: int = 0,
    force_refresh: bool = False,
    insists: bool = False,
) -> AccessToken:
    """Return a valid access token of an OAuth2 secret.

    ``min_ttl`` asks for seconds that it should still live, at most half its lifetime; ``force_refresh`` for a new one. Both are
    best effort: while a valid token is there it is served, with ``refresh_error``. ``insists`` calls the provider although a
    failure's pause runs, but not sooner than ten seconds after that failure. Raises ``NotFound``, ``InvalidType``,
    ``ValidationFailed`` (environment) and ``TokenUnavailable`` with its reason.
    """
    seen = _look(scope, secret_id, environment) or _explain_absence(scope, secret_id, environment)
    if seen.secret.is_expired(seen.now) and seen.secret.strict_expiry_enforcement:
        raise TokenUnavailable("The secret has expired, and its expiry is enforced.", reason="secret_expired")
    if _is_wanting(seen, min_ttl=min_ttl, force=force_refresh):
        wish = _Wish(min_ttl=min_ttl, force=force_refresh, insists=insists)
        seen = _renewed(seen, lambda: _look(scope, secret_id, environment), wish)
    if not seen.is_valid(seen.now):
        raise _failure(seen)
    uses.note(Connection.objects.all(), seen.pk)
    try:
        return _served(seen)
    except SealBroken as err:
        logger.error("the token of connection %s does not open: %s", seen.pk, err)
        raise TokenUnavailable(
            "What is stored for this connection does not open with the vault's keys. An operator must look at it.",
            reason="provider_unavailable",
        ) from None


def refresh_now(scope: Scope, secret_id: uuid.UUID, *, environment: str | None) -> AccessToken:
    """Renew the token at once, and return what there is then; raises what ``get_access_token`` raises.

    A grant that needs no person is made again although it was ended, and in an environment where it was never made. One that was
    turned down is not made again within ten seconds.
    """
    registration = get_registration(scope, secret_id)
    if GrantType(registration.grant_type).is_repeatable:
        connection = ensure_connection(scope, registration.secret, environment)
        own = Connection.objects.filter(pk=connection.pk)
        rested = Q(failed_at=None) | Q(failed_at__lt=Now() - INSISTENCE)
        with transaction.atomic():
            revive(own.filter(status=Status.DISCONNECTED), Status.NOT_CONNECTED, code="asked_for")
            turned_down = own.filter(rested, status=Status.REAUTHORIZATION_REQUIRED)
            revive(turned_down, Status.REFRESH_FAILING, code="asked_for")
    return get_access_token(scope, secret_id, environment=environment, force_refresh=True, insists=True)


def first_fetch(connection: Connection) -> None:
    """Fetch the first token of a grant that needs no person. A failure is stored with the connection, not raised."""

    def look() -> Any:
        return _find(Connection.objects.filter(pk=connection.pk))

    try:
        _renewed(look(), look, _Wish())
    except TokenUnavailable:
        return


def _look(scope: Scope, secret_id: uuid.UUID, environment: str | None) -> Any:
    """The connection with everything a reader needs and the database's time, in one statement; ``None`` if there is none."""
    named = {"environment__name": environment} if environment else {"environment_id": F("secret__base_environment_id")}
    own = Connection.objects.filter(
        secret_id=secret_id, secret__account_id=scope.account_id, secret__mode=scope.mode, **named
    )
    return _find(own)


def _find(rows: Any) -> Any:
    # Not `first()`: it would sort what can only be one row, and this is the statement that every reader waits for.
    try:
        return rows.select_related("secret", "secret__registration").annotate(now=Now()).get()
    except Connection.DoesNotExist:
        return None


def _explain_absence(scope: Scope, secret_id: uuid.UUID, environment: str | None) -> Any:
    secret = get_secret(scope, secret_id)
    if secret.secret_type != "oauth2":
        raise InvalidType(f"This secret is of type `{secret.secret_type}`; only `oauth2` secrets have access tokens.")
    if environment is not None:
        get_environment(account_id=scope.account_id, mode=scope.mode, name=environment)
        raise not_connected()
    raise NotFound


def _is_wanting(seen: Any, *, min_ttl: int, force: bool) -> bool:
    """Whether a renewal should be tried before answering."""
    if seen.status in (Status.DISCONNECTED, Status.REAUTHORIZATION_REQUIRED):
        # Not even a grant that could be made again: a password that was refused too often locks its account.
        return False
    if not seen.is_valid(seen.now):
        return _has_means(seen)
    if not _can_refresh(seen):
        return False
    if force:
        return True
    if not min_ttl or seen.expires_at is None:
        return False
    lifetime = seen.expires_at - (seen.issued_at or seen.now)
    return bool(seen.expires_at - seen.now < min(timedelta(seconds=min_ttl), lifetime / 2))


def _can_refresh(seen: Any) -> bool:
    return seen.refresh_token is not None or GrantType(seen.secret.registration.grant_type).is_repeatable


def _has_means(seen: Any) -> bool:
    # An expired token that nothing can renew is claimed all the same: the attempt ends by making the status true.
    return _can_refresh(seen) or seen.access_token is not None


def _is_backing_off(seen: Any, wish: _Wish) -> bool:
    """Whether a failure was stored and its pause runs: then the answer is that failure, in every process, without a call."""
    if wish.insists and seen.failed_at is not None and seen.now - seen.failed_at > INSISTENCE:
        return False
    return bool(
        seen.status == Status.REFRESH_FAILING and seen.refresh_due_at is not None and seen.refresh_due_at > seen.now
    )


def _renewed(seen: Any, look: Any, wish: _Wish) -> Any:
    """Renew the token or wait for whoever does; returns the row as it is after that, however it went."""
    try:
        with place():
            return _renewed_or_waited_for(seen, look, wish)
    except NoPlaceToWait:
        if seen.is_valid(seen.now):
            return seen
        raise TokenUnavailable(
            "Too many callers are waiting for tokens. Try again in a second.",
            reason="provider_unavailable",
            retry_after=1,
        ) from None
    finally:
        release_connection()


def _renewed_or_waited_for(seen: Any, look: Any, wish: _Wish) -> Any:
    generation = seen.generation
    # Who has a valid token to show does not wait long for a better one that nobody is fetching.
    pauses = Pauses(seconds_left(SHORT_WAIT if seen.is_valid(seen.now) else LONGEST_WAIT))
    while True:
        if seen.is_leased(seen.now):
            # Join the attempt in flight, and look at what came of it.
            settled = poll(lambda: _settled(look()), seconds=seconds_left(LONGEST_WAIT))
            if settled is None:
                return _found(look())
            seen = settled
        if seen.generation != generation:
            return seen
        if _is_backing_off(seen, wish) or not _is_wanting(seen, min_ttl=wish.min_ttl, force=wish.force):
            return seen
        if seconds_left(SHORTEST_CALL) < SHORTEST_CALL:
            return seen
        blocked = _call_for(seen)
        if blocked is not None and not blocked.is_full:
            # The provider is not asked now, by nobody: the answer is what is known.
            return _unasked(seen, blocked)
        if blocked is None:
            return _found(look())
        # Too many calls are under way there, or somebody else changed the row a moment ago.
        if not pauses.take():
            return _unasked(seen, blocked)
        seen = _found(look())


def _call_for(seen: Any) -> Blocked | None:
    """Claim and refresh; a ``Blocked`` says why not, which is for a moment only where it ``is_full``."""
    callee, gate = callee_of(seen.secret.registration), hosts()
    gate.sync()
    if not gate.enter({callee.host: 1})[callee.host]:
        return Blocked(1.0, is_full=True)
    try:
        if blocked := gate.ask(callee):
            return blocked
        outage.tell_return()
        give_back_doubtful()
        claimed = claim_one(seen)
        if claimed is None:
            gate.report(callee, seen.pk, Verdict.SILENT)
            return Blocked(1.0, is_full=True)
        refresh(claimed, seen.secret.registration)
        make_recovered_due()
        return None
    finally:
        gate.leave(callee.host)


def _unasked(seen: Any, blocked: Blocked) -> Any:
    """The row of a connection whose provider is not asked now, if its token is valid. Raises ``TokenUnavailable`` otherwise.

    What is known of its last failure is said then; but it is the host that has to be waited for.
    """
    if seen.is_valid(seen.now):
        return seen
    message, reason = _NOT_ASKED, "provider_unavailable"
    if seen.failure_code:
        message, reason = f"{seen.failure_message} ({seen.failure_code})", seen.failure_reason
    wait = math.ceil(blocked.seconds)
    is_helpful = reason == "provider_unavailable" and wait <= HELPFUL_RETRY
    raise TokenUnavailable(message, reason=reason, retry_after=max(1, wait) if is_helpful else None)


def _found(seen: Any) -> Any:
    if seen is None:
        raise NotFound
    return seen


def _settled(seen: Any) -> Any:
    """The row once nobody holds it; ``None`` while somebody does."""
    return None if _found(seen).is_leased(seen.now) else seen


def _served(seen: Any) -> AccessToken:
    expires_in = None if seen.expires_at is None else max(0, math.floor((seen.expires_at - seen.now).total_seconds()))
    expired = seen.secret.is_expired(seen.now)
    refresh_error = None
    if seen.failure_code and seen.status != Status.CONNECTED:
        refresh_error = {"code": seen.failure_code, "message": seen.failure_message, "reason": seen.failure_reason}
    facts = (str(seen.pk), str(seen.generation), seen.status, str(refresh_error), str(expired))
    return AccessToken(
        value=seen.access_token.open(),
        token_type=seen.token_type,
        expires_at=seen.expires_at,
        expires_in=expires_in,
        connection_status=seen.status,
        scopes=seen.secret.registration.scopes if seen.granted_scopes is None else seen.granted_scopes,
        generation=seen.generation,
        secret_expired=expired,
        refresh_error=refresh_error,
        etag=f'"{hashlib.sha256("|".join(facts).encode()).hexdigest()[:32]}"',
    )


def _failure(seen: Any) -> TokenUnavailable:
    """Why there is no token, from what is stored with the connection."""
    if seen.status == Status.REAUTHORIZATION_REQUIRED:
        return TokenUnavailable(
            f"The grant is no longer valid ({seen.failure_code}). A person must consent again.",
            reason="reauthorization_required",
        )
    if seen.status == Status.REFRESH_FAILING:
        wait = math.ceil((seen.refresh_due_at - seen.now).total_seconds()) if seen.refresh_due_at else HELPFUL_RETRY + 1
        return TokenUnavailable(
            f"{seen.failure_message} ({seen.failure_code})",
            reason=seen.failure_reason,
            retry_after=max(1, wait)
            if seen.failure_reason == "provider_unavailable" and wait <= HELPFUL_RETRY
            else None,
        )
    if seen.status == Status.DISCONNECTED:
        return TokenUnavailable("The secret was disconnected.", reason="not_connected")
    if seen.access_token is None:
        return TokenUnavailable("The secret is not connected: nobody has consented yet.", reason="not_connected")
    return TokenUnavailable(
        "The token has expired and could not be renewed in time.", reason="provider_unavailable", retry_after=1
    )
