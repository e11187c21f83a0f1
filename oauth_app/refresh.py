"""Refreshing a claimed connection: decide what may be sent, call, and store the outcome before anything else is done with it.

Whoever comes here holds a claim (``oauth_app.claim``). Nothing here holds a transaction or a database connection while the
provider is called. Every store is fenced: a token by the generation it replaces, a failure by the lease as well, so that an
attempt that was overtaken changes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, transaction
from django.db.models import F
from django.db.models.functions import Coalesce, Now

from knoxcall.clock import database_now
from knoxcall.waiting import release_connection
from oauth_app import schedule
from oauth_app.calls import fetch_token
from oauth_app.claim import RELEASED, hand_back, is_sendable
from oauth_app.clients import open_client
from oauth_app.connections import try_again
from oauth_app.given_up import give_up_late
from oauth_app.models import ClientRegistration, Connection, ConnectionEvent, GrantType
from oauth_app.protocol.answers import TokenAnswer
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import (
    ClientRefused,
    GrantDead,
    OutcomeUnknown,
    ProviderUnavailable,
    TokenRequestFailed,
)
from oauth_app.protocol.identity import account_name
from oauth_app.protocol.requests import grant_request, refresh_request
from oauth_app.providers import ReplayPolicy
from secrets_app.crypto.cipher import Plaintext, SealBroken

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Status = Connection.Status
# A rotated refresh token exists nowhere but here until it is stored, so a database that is away is waited for.
STORE_PATIENCE = 4.0


@dataclass(frozen=True, slots=True)
class Postpone:
    """Do not send: serve the valid token to its end, and look again then. ``None``: it has no end."""

    until: datetime | None


@dataclass(frozen=True, slots=True)
class News:
    """What the history says about a change: a code, and our words for it."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class GiveUp(News):
    """Do not send: only a person can help."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send the refresh token, or make the grant again."""

    use_refresh_token: bool


NO_REFRESH_TOKEN = GiveUp("no_refresh_token", "The token has expired, and the provider gave no refresh token.")
NEVER_REPLAYED = GiveUp(
    "refresh_outcome_unknown",
    "A refresh was cut off, and this provider revokes everything when a refresh token is sent twice.",
)
SEAL_BROKEN = ProviderUnavailable(
    "seal_broken", "What is stored for this connection does not open with the vault's keys."
)

PREVIOUS_SECRET_USED = News(
    "previous_client_secret_in_use", "The provider refused the new client secret and took the previous one."
)
# The columns of a connection whose last try went well.
NO_FAILURE: dict[str, Any] = {
    "failure_count": 0,
    "failed_at": None,
    "failure_reason": "",
    "failure_code": "",
    "failure_message": "",
}
NOT_STORED = OutcomeUnknown("not_stored", "The provider answered, and its answer could not be stored.")


def refresh(connection: Connection, registration: ClientRegistration) -> None:
    """Carry out the claimed attempt on ``connection`` and store what came of it. Raises only what is a fault of ours."""
    try:
        client = open_client(registration)
        refresh_token = connection.refresh_token.open() if connection.refresh_token else None
    except SealBroken as err:
        # A master key that is missing breaks all of them at once: they wait their back-off like any other failure.
        logger.error("connection %s cannot be refreshed: %s", connection.pk, err)
        patiently(store_failure, connection, None, SEAL_BROKEN)
        return
    plan = decide(connection, client, now=begun_at(connection))
    if isinstance(plan, Postpone):
        hand_back(connection, refresh_due_at=plan.until)
        return
    if isinstance(plan, GiveUp):
        _store_ended(connection, plan)
        return
    if not is_sendable(connection):
        # Stopped for long between the claim and here: the lease may be somebody else's by now. Nothing was sent.
        hand_back(connection)
        return
    try:
        release_connection()
        answer = _call(client, refresh_token if plan.use_refresh_token else None, connection.granted_scopes)
    except TokenRequestFailed as failure:
        patiently(store_failure, connection, client, failure)
        if not failure.retryable:
            patiently(_follow_change, registration)
    else:
        _keep(connection, client, answer, previous=refresh_token)


def _keep(connection: Connection, client: OAuthClient, answer: TokenAnswer, *, previous: Plaintext | None) -> None:
    """Store an answer. One that the database will not take must not leave the claim standing: its outcome is unknown."""
    try:
        if not patiently(store_token, connection, client, answer, previous=previous):
            patiently(give_up_late, connection, client, answer)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        logger.exception("connection %s: the provider's answer could not be stored", connection.pk)
        patiently(store_failure, connection, client, NOT_STORED)


def _follow_change(registration: ClientRegistration) -> None:
    """Try again at once what was refused while somebody changed the client: it was the old one that was refused."""
    as_it_was = ClientRegistration.objects.filter(pk=registration.pk, updated_at=registration.updated_at)
    if registration.mtls_certificate is not None:
        as_it_was = as_it_was.filter(mtls_certificate__version=registration.mtls_certificate.version)
    with transaction.atomic():
        if not as_it_was.exists():
            try_again(registration)


def begun_at(connection: Connection) -> datetime:
    """When the claimed attempt began, by the database's clock."""
    if connection.attempt_started_at is None:
        raise ValueError("the connection is not claimed")
    return connection.attempt_started_at


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


def may_replay(connection: Connection, client: OAuthClient) -> bool:
    """Whether sending a refresh token again can do no harm: the preset says so, or the provider has shown not to rotate."""
    return client.replay_policy is ReplayPolicy.SAFE or connection.rotates is False


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
        raise GrantDead(err.code, "The provider refuses the username or the password.") from None


def token_columns(
    connection: Connection, client: OAuthClient, answer: TokenAnswer, *, issued_at: datetime, keep_refresh_token: bool
) -> dict[str, Any]:
    """The columns of a new token. ``issued_at`` is when the request for it was begun, by the database's clock.

    ``keep_refresh_token``: an answer without one means that the one we have stays good (RFC 6749 §6).
    """
    expires_at = None if answer.expires_in is None else issued_at + timedelta(seconds=answer.expires_in)
    columns: dict[str, Any] = {
        "access_token": _sealed(connection, "access_token", answer.access_token),
        "token_type": answer.token_type,
        "issued_at": issued_at,
        "expires_at": expires_at,
        "generation": F("generation") + 1,
        "status": Status.CONNECTED,
        "refreshed_at": Now(),
        "refresh_due_at": None if expires_at is None else schedule.refresh_due(issued_at, expires_at),
        "outcome_unknown_at": None,
        **NO_FAILURE,
        "previous_client_secret_used_at": (connection.previous_client_secret_used_at or Now())
        if answer.used_previous_secret
        else None,
        **RELEASED,
    }
    if answer.scopes is not None:
        columns["granted_scopes"] = list(answer.scopes)
    if answer.facts:
        columns["facts"] = {**connection.facts, **answer.facts}
    if answer.refresh_token_expires_in is not None:
        columns["refresh_token_expires_at"] = issued_at + timedelta(seconds=answer.refresh_token_expires_in)
    elif not keep_refresh_token:
        columns["refresh_token_expires_at"] = None
    has_refresh_token = keep_refresh_token and connection.refresh_token is not None
    if answer.refresh_token is not None:
        columns["refresh_token"] = _sealed(connection, "refresh_token", answer.refresh_token)
        has_refresh_token = True
    elif not keep_refresh_token:
        columns["refresh_token"] = None
    if expires_at is not None and not has_refresh_token and not GrantType(client.grant_type).is_repeatable:
        # Nothing can be done before its end; at its end the status must say so.
        columns["refresh_due_at"] = expires_at
    return columns


def store_token(
    connection: Connection, client: OAuthClient, answer: TokenAnswer, *, previous: Plaintext | None
) -> bool:
    """Store a refreshed token: one UPDATE, fenced by the generation that it replaces. ``previous``: the refresh token we had.

    False: the connection was renewed, ended or removed meanwhile, and the answer is not needed.
    """
    columns = token_columns(connection, client, answer, issued_at=begun_at(connection), keep_refresh_token=True)
    columns |= {"stored_by": connection.lease_owner, "connected_at": Coalesce("connected_at", Now())}
    if not connection.connected_as:
        columns["connected_as"] = account_name(client.preset, answer.identity, answer.facts)
    if previous is not None:
        brought = answer.refresh_token
        columns["rotates"] = brought is not None and brought.reveal_bytes() != previous.reveal_bytes()
    news = (
        PREVIOUS_SECRET_USED if answer.used_previous_secret and not connection.previous_client_secret_used_at else None
    )
    if _store(connection, columns, Status.CONNECTED, fence={"generation": connection.generation}, news=news):
        logger.info("refreshed connection %s: generation %d", connection.pk, connection.generation + 1)
        return True
    current = Connection.objects.filter(pk=connection.pk).values_list("stored_by", flat=True).first()
    if current == connection.lease_owner:
        # Our own store, whose acknowledgement was lost with the database connection.
        return True
    logger.warning("connection %s was renewed or removed meanwhile: this answer is not needed", connection.pk)
    return False


def store_failure(connection: Connection, client: OAuthClient | None, failure: TokenRequestFailed) -> None:
    """Store a failed attempt: what the status becomes, and when to try again. Never takes a valid token away.

    ``client`` is ``None`` where nothing was sent because the client's own document does not open.
    """
    if isinstance(failure, GrantDead):
        _store_ended(connection, GiveUp(failure.code, failure.message))
        return
    failures = connection.failure_count + 1
    now = database_now()
    columns: dict[str, Any] = {
        "status": Status.REFRESH_FAILING,
        "refresh_due_at": now + schedule.backoff(failures, retry_after=failure.retry_after),
        **_failure_columns(failures, failure.reason, failure.code, failure.message),
        **RELEASED,
    }
    if isinstance(failure, ClientRefused):
        columns["refresh_due_at"] = now + schedule.rejected_pause()
    if client is not None and isinstance(failure, OutcomeUnknown) and connection.refresh_token is not None:
        columns["outcome_unknown_at"] = connection.outcome_unknown_at or connection.attempt_started_at
        if not may_replay(connection, client) and not GrantType(client.grant_type).is_repeatable:
            if connection.is_valid(now):
                columns["refresh_due_at"] = connection.expires_at
            elif client.replay_policy is ReplayPolicy.NEVER:
                _store_ended(connection, NEVER_REPLAYED, outcome_unknown_at=columns["outcome_unknown_at"])
                return
    else:
        # Nothing was consumed by this attempt; what an earlier one left unknown stays unknown.
        columns["outcome_unknown_at"] = connection.outcome_unknown_at
    news = News(failure.code, failure.message)
    if _store(connection, columns, Status.REFRESH_FAILING, fence=_own(connection), news=news):
        logger.warning("refresh of connection %s failed (%d in a row): %s", connection.pk, failures, failure.code)


def _store_ended(connection: Connection, end: GiveUp, **further: Any) -> None:
    """Stop at once and stay stopped. The refresh token is dead and forgotten; a valid access token is served to its end."""
    columns = {
        "status": Status.REAUTHORIZATION_REQUIRED,
        "refresh_token": None,
        "refresh_due_at": None,
        "outcome_unknown_at": None,
        **_failure_columns(connection.failure_count + 1, "reauthorization_required", end.code, end.message),
        **RELEASED,
        **further,
    }
    status = Status.REAUTHORIZATION_REQUIRED
    if _store(connection, columns, status, fence=_own(connection), news=end):
        logger.warning("connection %s needs a new consent: %s", connection.pk, end.code)


def _store(
    connection: Connection, columns: dict[str, Any], status: str, *, fence: dict[str, Any], news: News | None = None
) -> bool:
    """Make one fenced UPDATE; with a change of state, or with ``news``, its event in the same transaction.

    False: the fence stood elsewhere.
    """
    row = Connection.objects.filter(pk=connection.pk, **fence)
    changes = connection.status != status
    if not changes and (news is None or status != Status.CONNECTED):
        return bool(row.update(**columns))
    if changes:
        columns = columns | {"status_changed_at": Now()}
    with transaction.atomic():
        if not row.update(**columns):
            return False
        ConnectionEvent.objects.create(
            connection_id=connection.pk,
            previous_status=connection.status,
            status=status,
            code=news.code[:64] if news else "",
            message=news.message[:500] if news else "",
        )
    return True


def _own(connection: Connection) -> dict[str, Any]:
    return {"generation": connection.generation, "lease_owner": connection.lease_owner}


def _failure_columns(count: int, reason: str, code: str, message: str) -> dict[str, Any]:
    return {
        "failure_count": count,
        "failed_at": Now(),
        "failure_reason": reason,
        "failure_code": code[:64],
        "failure_message": message[:500],
    }


def _sealed(connection: Connection, column: str, value: Plaintext) -> bytes:
    field = Connection._meta.get_field(column)
    sealed: bytes = field.seal(value, account=connection.account_id, row=connection.pk)  # type: ignore[union-attr]
    return sealed


def patiently(store: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run ``store``, and run it again while the database is away, for a few seconds.

    Stores are fenced, so a repeated one does no harm.
    """
    deadline = time.monotonic() + STORE_PATIENCE
    pause = 0.05
    while True:
        try:
            return store(*args, **kwargs)
        except (OperationalError, InterfaceError) as err:
            if time.monotonic() + pause > deadline:
                logger.error("an answer of a provider could not be stored: %s", type(err).__name__)
                raise
            release_connection()
            time.sleep(pause)
            pause = min(1.0, pause * 2)
