"""Refreshing a claimed connection: decide what may be sent, call, and turn what came of it into an outcome to be stored.

Whoever comes here holds a claim (``oauth_app.claim``). Nothing here holds a transaction or a database connection while the
provider is called, and nothing is sent before the seals for its answer are at hand.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from knoxcall.waiting import release_connection
from oauth_app import outage
from oauth_app.breaker import Verdict
from oauth_app.calls import fetch_token, verdict_on
from oauth_app.claim import is_sendable, time_by_database
from oauth_app.clients import callee_of, open_client
from oauth_app.hosts import hosts
from oauth_app.models import ClientRegistration, Connection, GrantType
from oauth_app.outcome import (
    FAULT,
    NEVER_REPLAYED,
    NO_REFRESH_TOKEN,
    NOT_STORED,
    SEAL_BROKEN,
    GiveUp,
    Outcome,
    ended_outcome,
    failure_outcome,
    may_replay,
    token_outcome,
    unsent_outcome,
)
from oauth_app.protocol.answers import TokenAnswer
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import GrantDead, TokenRequestFailed
from oauth_app.protocol.requests import grant_request, refresh_request
from oauth_app.providers import ReplayPolicy
from oauth_app.storing import storer
from secrets_app import data_keys
from secrets_app.crypto.cipher import Plaintext, SealBroken

logger = logging.getLogger(__name__)

# What an answer needs at most: an access token, a refresh token, and a place in the spool.
SEALS = 3


@dataclass(frozen=True, slots=True)
class Postpone:
    """Do not send: serve the valid token to its end, and look again then. ``None``: it has no end."""

    until: datetime | None


@dataclass(frozen=True, slots=True)
class Send:
    """Send the refresh token, or make the grant again."""

    use_refresh_token: bool


@dataclass(frozen=True, slots=True, repr=False)
class _Ready:
    """What a call is made with, and its answer sealed with. Holds credentials."""

    client: OAuthClient
    refresh_token: Plaintext | None
    plan: Send
    reserved: data_keys.Reserved


def refresh(connection: Connection, registration: ClientRegistration) -> bool:
    """Carry out the claimed attempt on ``connection`` and store what came of it; ``False`` if that was not needed any more.

    Raises only what is a fault of ours, and ``OperationalError`` or ``InterfaceError`` while the database is away: the outcome
    is kept then.
    """
    outcome = attempt(connection, registration)
    try:
        return storer().store(outcome)
    finally:
        tell_host(outcome, registration)


def tell_host(outcome: Outcome, registration: ClientRegistration) -> None:
    """Tell the host's breaker what the call says of the provider, once the outcome is on its way into the database."""
    # Without a call, too: where a host is only probed, the one call may have been kept for this.
    hosts().report(callee_of(registration), outcome.connection_id, outcome.verdict, retry_after=outcome.retry_after)


def attempt(connection: Connection, registration: ClientRegistration) -> Outcome:
    """Carry out the claimed attempt on ``connection``; returns what is to be stored of it, before anything else is done."""
    ready = _prepared(connection, registration)
    if isinstance(ready, Outcome):
        return ready
    return replace(_carried_out(connection, registration, ready), seal=ready.reserved.seal)


def _prepared(connection: Connection, registration: ClientRegistration) -> _Ready | Outcome:
    """All that the call needs, or what is to be stored instead of making it."""
    try:
        reserved = data_keys.reserve(connection.account_id, SEALS)
        client = open_client(registration)
        refresh_token = connection.refresh_token.open() if connection.refresh_token else None
    except SealBroken as err:
        # A master key that is missing breaks all of them at once: they wait their back-off like any other failure.
        logger.error("connection %s cannot be refreshed: %s", connection.pk, err)
        return failure_outcome(connection, None, SEAL_BROKEN, now=time_by_database(connection))
    except outage.AWAY as err:
        outage.notice(err)
        return unsent_outcome(connection)
    except Exception:
        logger.exception("connection %s cannot be refreshed: a fault of ours", connection.pk)
        return failure_outcome(connection, None, FAULT, now=time_by_database(connection))
    finally:
        release_connection()
    plan = decide(connection, client, now=time_by_database(connection))
    if isinstance(plan, Postpone):
        return unsent_outcome(connection, refresh_due_at=plan.until)
    if isinstance(plan, GiveUp):
        return ended_outcome(connection, client, plan)
    if not is_sendable(connection):
        # Stopped for long between the claim and here: the lease may be somebody else's by now. Nothing was sent.
        return unsent_outcome(connection)
    return _Ready(client, refresh_token, plan, reserved)


def _carried_out(connection: Connection, registration: ClientRegistration, ready: _Ready) -> Outcome:
    """Call. An answer that cannot be made into a token is an unknown outcome."""
    client, refresh_token = ready.client, ready.refresh_token
    sent_at = time_by_database(connection)
    try:
        answer = _call(client, refresh_token if ready.plan.use_refresh_token else None, connection.granted_scopes)
    except TokenRequestFailed as failure:
        outcome = failure_outcome(connection, client, failure, now=time_by_database(connection))
        refused = None if failure.retryable else registration
        return replace(outcome, verdict=verdict_on(failure), retry_after=failure.retry_after, refused=refused)
    try:
        outcome = token_outcome(
            connection, client, answer, sent_at=sent_at, previous=refresh_token, seal=ready.reserved.seal
        )
    except Exception:
        logger.exception("connection %s: a fault of ours in the provider's answer", connection.pk)
        outcome = failure_outcome(connection, client, NOT_STORED, now=time_by_database(connection))
    return replace(outcome, verdict=Verdict.ANSWERED)


def decide(connection: Connection, client: OAuthClient, *, now: datetime) -> Send | Postpone | GiveUp:
    """What may be sent for ``connection``. An unknown outcome is resolved by the replay policy (design §5)."""
    repeatable = GrantType(client.grant_type).is_repeatable
    if connection.refresh_token is None:
        if repeatable:
            return Send(use_refresh_token=False)
        return Postpone(connection.expires_at) if connection.is_valid(now) else NO_REFRESH_TOKEN
    if connection.outcome_unknown_at is None or may_replay(connection, client):
        return Send(use_refresh_token=True)
    if repeatable:
        return Send(use_refresh_token=False)
    if connection.is_valid(now):
        return Postpone(connection.expires_at)
    if client.replay_policy is ReplayPolicy.ONE_TRY:
        return Send(use_refresh_token=True)
    return NEVER_REPLAYED


def _call(client: OAuthClient, refresh_token: Plaintext | None, granted: list[str] | None) -> TokenAnswer:
    if refresh_token is None:
        return _grant(client)
    try:
        return fetch_token(client, partial(refresh_request, refresh_token=refresh_token, granted=granted))
    except GrantDead:
        if not GrantType(client.grant_type).is_repeatable:
            raise
        # What we may do again without a person, we do once before we call it dead.
        return _grant(client)


def _grant(client: OAuthClient) -> TokenAnswer:
    try:
        return fetch_token(client, grant_request)
    except GrantDead as err:
        if client.grant_type != GrantType.PASSWORD:
            raise
        # There is no grant that could be dead: it is the person's credentials that were turned down.
        dead = GrantDead(err.code, "The provider refuses the username or the password.")
        dead.status = err.status
        raise dead from None
