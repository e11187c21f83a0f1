"""Finishing a consent: what the provider sent the browser back with becomes a connection (RFC 6749 §4.1, RFC 9207).

A callback that does not prove its state, its browser and its secret exchanges nothing, and neither does the second one.
"""

from __future__ import annotations

import hmac
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now

from knoxcall.context import seconds_left
from knoxcall.waiting import NoPlaceToWait, place, poll, release_connection
from oauth_app.authorize import Outcome, digest, record, redirect_uri
from oauth_app.calls import fetch_token
from oauth_app.claim import RELEASED
from oauth_app.clients import open_client
from oauth_app.given_up import give_up_late, grant_digest
from oauth_app.models import AuthorizationRequest, Connection, ConnectionEvent, ConsentLink, GrantType
from oauth_app.outage import patiently
from oauth_app.outcome import token_columns
from oauth_app.protocol.answers import TokenAnswer, read_facts, read_fragment
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import ClientRefused, GrantDead, TokenRequestFailed, plain_code
from oauth_app.protocol.identity import account_name, subject_of
from oauth_app.protocol.requests import code_request
from oauth_app.return_urls import check_return_url, return_address
from secrets_app import audit, data_keys

logger = logging.getLogger(__name__)

# A second callback with the same state waits this long for the first one's outcome.
LONGEST_WAIT = 21.0
LONGEST_EXCHANGE = timedelta(seconds=30)
# The page of a consent whose exchange was cut off. Nobody knows what became of the code; starting again is safe.
INTERRUPTED = "interrupted"
CONNECTED = ("connected", "connected_without_refresh_token")
# Not the end of anything: the same address may show another page in a moment.
PASSING = ("in_progress", "vault_unavailable")
_LONGEST_ISSUER = 300

Status = Connection.Status


@dataclass(frozen=True, slots=True)
class Callback:
    """What a browser brought to the redirect URI. Prints nothing of it.

    ``fields`` is all of it: the query, or what the implicit grant's page read from its fragment (``from_fragment``).
    """

    state: str = field(repr=False)
    code: str | None = field(repr=False, default=None)
    error: str | None = field(repr=False, default=None)
    error_description: str | None = field(repr=False, default=None)
    issuer: str | None = field(repr=False, default=None)
    fields: Mapping[str, str] = field(repr=False, default_factory=dict)
    from_fragment: bool = False

    @classmethod
    def of(cls, fields: Mapping[str, str], *, from_fragment: bool = False) -> Callback:
        """Read the parameters of RFC 6749 §4.1.2, §4.2.2 and RFC 9207."""
        return cls(
            state=fields.get("state", ""),
            code=fields.get("code"),
            error=fields.get("error"),
            error_description=fields.get("error_description"),
            issuer=fields.get("iss"),
            fields=fields,
            from_fragment=from_fragment,
        )


def complete(secret_id: uuid.UUID, callback: Callback, *, cookie: str | None, actor: audit.Actor) -> Outcome:
    """Finish a consent with what the provider sent the browser back with. Uses it at most once."""
    request = (
        AuthorizationRequest.objects.filter(state_digest=digest(callback.state))
        .select_related("link", "connection__secret__registration", "connection__environment", "connection__account")
        .first()
    )
    if request is None:
        return Outcome("unknown_state")
    if request.connection.secret_id != secret_id:
        return Outcome("wrong_secret")
    if cookie is None or not hmac.compare_digest(digest(cookie), bytes(request.cookie_digest)):
        return Outcome("wrong_browser")
    try:
        with place():
            outcome = _use(request, callback, actor)
    except NoPlaceToWait:
        # Nothing was used up: the same address works when it is opened again.
        return Outcome("vault_unavailable", request.connection)
    if outcome.connection is None:
        return outcome
    return replace(outcome, return_to=_return_to(request, outcome))


def _return_to(request: AuthorizationRequest, outcome: Outcome) -> str | None:
    """Where the browser goes instead of to our page. The list of origins is asked again: it may have become shorter."""
    connection = request.connection
    url = (request.link.return_url if request.link else "") or _client(connection).return_url
    if not url or outcome.code in PASSING:
        return None
    try:
        check_return_url(connection.account_id, url)
    except ValueError:
        return None
    return return_address(
        url, secret_id=connection.secret_id, environment=connection.environment.name, result=outcome.code
    )


def _use(request: AuthorizationRequest, callback: Callback, actor: audit.Actor) -> Outcome:
    """Take the right to exchange, which one callback gets; the others show its outcome."""
    taken = AuthorizationRequest.objects.filter(pk=request.pk, used_at=None, expires_at__gt=Now()).update(used_at=Now())
    if not taken:
        return _shown_again(request, actor)
    request.refresh_from_db(fields=["used_at"])
    try:
        outcome = _refusal(request, callback) or _exchange(request, callback, actor)
    except Exception:
        # The state is used up: without an outcome the person would be told to wait, for ever.
        AuthorizationRequest.objects.filter(pk=request.pk).update(outcome=INTERRUPTED)
        raise
    if outcome.code not in CONNECTED:
        # A success writes its outcome in the transaction that stores the token.
        _end(request, outcome, actor)
    return outcome


def _end(request: AuthorizationRequest, outcome: Outcome, actor: audit.Actor) -> None:
    """Write how a consent ended that did not connect."""
    with transaction.atomic():
        AuthorizationRequest.objects.filter(pk=request.pk).update(outcome=outcome.code)
        record(audit.Action.CONSENT_FAILED, request.connection, actor, outcome=outcome.code, reason=outcome.reason)
    logger.info("consent for connection %s ended: %s (%s)", request.connection.pk, outcome.code, outcome.reason)


def _shown_again(request: AuthorizationRequest, actor: audit.Actor) -> Outcome:
    def look() -> AuthorizationRequest | None:
        found = AuthorizationRequest.objects.filter(pk=request.pk).annotate(now=Now()).first()
        if found is None:
            # Deleted with its secret.
            return AuthorizationRequest(used_at=request.created_at, outcome="not_found")
        if found.used_at is None or found.outcome:
            return found
        # The process that took it has died with it: no exchange lasts this long.
        if found.now - found.used_at > LONGEST_EXCHANGE:
            found.outcome = INTERRUPTED
            return found
        return None

    seen = poll(look, seconds=seconds_left(LONGEST_WAIT))
    if seen is None:
        return Outcome("in_progress", request.connection)
    if seen.outcome == "not_found":
        return Outcome("not_found")
    connection = request.connection
    if seen.used_at is None:
        expired = Outcome("expired", connection)
        if AuthorizationRequest.objects.filter(pk=request.pk, used_at=None).update(used_at=Now()):
            _end(request, expired, actor)
        return expired
    connection.refresh_from_db(fields=["connected_as"])
    return Outcome(seen.outcome, connection)


def _refusal(request: AuthorizationRequest, callback: Callback) -> Outcome | None:
    """Why a proven callback is not exchanged all the same."""
    connection = request.connection
    client = _client(connection)
    if client.issuer is not None:
        if callback.issuer is None and client.requires_iss:
            return Outcome("wrong_issuer", connection, reason="no_iss")
        if callback.issuer is not None and callback.issuer != client.issuer:
            return Outcome("wrong_issuer", connection, reason="other_iss")
    if callback.error is not None:
        reason = plain_code(callback.error)
        if reason == "access_denied":
            return Outcome("denied", connection, reason=reason)
        return Outcome("provider_error", connection, provider_said=callback.error_description, reason=reason)
    if callback.from_fragment != (client.grant_type == GrantType.IMPLICIT):
        # An answer of the other grant is an answer to something that we did not ask.
        return Outcome("provider_error", connection, reason="no_token" if not callback.from_fragment else "no_code")
    if not callback.from_fragment and not callback.code:
        return Outcome("provider_error", connection, reason="no_code")
    return _overtaken(request)


def _overtaken(request: AuthorizationRequest) -> Outcome | None:
    """Whether this start no longer counts: a link by a newer one or by its own use, a bare start by the first connection."""
    if request.link is not None:
        is_open = ConsentLink.objects.filter(pk=request.link.pk, voided_at=None, completed_at=None).exists()
    else:
        is_open = Connection.objects.filter(_BARE, pk=request.connection.pk).exists()
    return None if is_open else Outcome("superseded", request.connection)


_BARE = Q(connected_at=None) & ~Q(status=Status.DISCONNECTED)


def _exchange(request: AuthorizationRequest, callback: Callback, actor: audit.Actor) -> Outcome:
    connection = request.connection
    client = _client(connection)
    try:
        if callback.from_fragment:
            answer = read_fragment(client, callback.fields)
        else:
            answer = _exchange_code(request, client, callback.code or "")
    except TokenRequestFailed as failure:
        refused = isinstance(failure, GrantDead | ClientRefused) or callback.from_fragment
        return Outcome("exchange_failed" if refused else "provider_unavailable", connection, reason=failure.code)
    answer = replace(answer, facts={**answer.facts, **read_facts(client.preset.callback_facts, callback.fields)})
    outcome = patiently(_store, request, client, answer, actor, callback.issuer)
    if outcome.code not in CONNECTED:
        patiently(give_up_late, connection, client, answer, is_new_grant=True)
    return outcome


def _exchange_code(request: AuthorizationRequest, client: OAuthClient, code: str) -> TokenAnswer:
    verifier = request.code_verifier.open().reveal() if request.code_verifier is not None else None
    build = partial(
        code_request,
        code=code,
        redirect_uri=redirect_uri(request.connection.secret_id),
        code_verifier=verifier,
    )
    release_connection()
    return fetch_token(client, build)


def _store(
    request: AuthorizationRequest, client: OAuthClient, answer: TokenAnswer, actor: audit.Actor, issuer: str | None
) -> Outcome:
    """Make the connection. A new consent supersedes whatever was there, a refresh in flight included."""
    connection = request.connection
    columns = _columns(request, client, answer)
    expected = answer.expires_in is not None and answer.refresh_token is None
    lacks = expected and client.grant_type != GrantType.IMPLICIT
    code = "connected_without_refresh_token" if lacks else "connected"
    with transaction.atomic():
        previous = (
            Connection.objects.select_for_update().filter(pk=connection.pk).values_list("status", flat=True).first()
        )
        if previous is None:
            return Outcome("not_found")
        if overtaken := _overtaken(request):
            return overtaken
        Connection.objects.filter(pk=connection.pk).update(**columns)
        if request.link is not None:
            ConsentLink.objects.filter(pk=request.link.pk).update(completed_at=Now())
        if previous != Status.CONNECTED:
            ConnectionEvent.objects.create(
                connection=connection, previous_status=previous, status=Status.CONNECTED, code="consent"
            )
        AuthorizationRequest.objects.filter(pk=request.pk).update(outcome=code)
        connection.connected_as = columns["connected_as"]
        told: dict[str, Any] = {"connected_as": connection.connected_as or None}
        if client.issuer is None and issuer:
            # There is nothing to compare it with; whoever looks into an incident wants to know it.
            told["iss"] = _printable(issuer)[:_LONGEST_ISSUER]
        record(audit.Action.CONSENT_COMPLETED, connection, actor, outcome=code, **told)
    logger.info("connection %s was connected by consent", connection.pk)
    return Outcome(code, connection)


def _columns(request: AuthorizationRequest, client: OAuthClient, answer: TokenAnswer) -> dict[str, Any]:
    connection, used_at = request.connection, request.used_at
    if used_at is None:
        raise ValueError("the authorization request was not taken")
    return {
        **token_columns(connection, client, answer, issued_at=used_at, keep_refresh_token=False, seal=data_keys.seal),
        **RELEASED,
        "status": Status.CONNECTED,
        "generation": F("generation") + 1,
        "refreshed_at": Now(),
        # What the previous grant was given, told us and did says nothing of this one.
        "granted_scopes": None if answer.scopes is None else list(answer.scopes),
        "facts": answer.facts,
        "connected_as": account_name(client.preset, answer.identity, answer.facts),
        "subject": subject_of(client.preset, answer.identity, answer.facts),
        "grant_digest": grant_digest(client, answer, answer.facts),
        "rotates": None,
        "connected_at": Coalesce("connected_at", Now()),
        "status_changed_at": Now(),
        "stored_by": request.pk,
    }


def _printable(text: str) -> str:
    # PostgreSQL's JSON takes no zero byte, and the token is stored in the same transaction.
    return "".join(character for character in text if character.isprintable())


def _client(connection: Connection) -> OAuthClient:
    return open_client(connection.secret.registration)
