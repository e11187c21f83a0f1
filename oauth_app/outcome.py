"""What came of an attempt, as columns to be stored: values only, so that it can wait while the database is away.

An outcome of a token is fenced by the generation that it replaces; any other by the lease as well, so that an attempt that was
overtaken changes nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from oauth_app import schedule
from oauth_app.breaker import Verdict
from oauth_app.claim import RELEASED
from oauth_app.models import ClientRegistration, Connection, GrantType
from oauth_app.protocol.answers import TokenAnswer
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import ClientRefused, GrantDead, OutcomeUnknown, ProviderUnavailable, TokenRequestFailed
from oauth_app.protocol.identity import account_name
from oauth_app.providers import ReplayPolicy
from secrets_app.crypto.cipher import Ciphertext, Place, Plaintext

Status = Connection.Status
# Seals a value for a place: an account's reserved seals, or its current key.
Seal = Callable[[Plaintext, Place], Ciphertext]

# The columns of a connection whose last try went well.
NO_FAILURE: dict[str, Any] = {
    "failure_count": 0,
    "failed_at": None,
    "failure_reason": "",
    "failure_code": "",
    "failure_message": "",
}
# An end that moves by less than this share of the time that passed does not move: providers round.
MOVES = 0.5
# Two refreshes so close to each other tell nothing of it.
SHORTEST_STEP = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class News:
    """What the history says about a change: a code, and our words for it."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class GiveUp(News):
    """Only a person can help."""


NO_REFRESH_TOKEN = GiveUp("no_refresh_token", "The token has expired, and the provider gave no refresh token.")
NEVER_REPLAYED = GiveUp(
    "refresh_outcome_unknown",
    "A refresh was cut off, and this provider revokes everything when a refresh token is sent twice.",
)
SEAL_BROKEN = ProviderUnavailable(
    "seal_broken", "What is stored for this connection does not open with the vault's keys."
)
FAULT = ProviderUnavailable("fault", "The vault could not make the request. Its log says why.")
PREVIOUS_SECRET_USED = News(
    "previous_client_secret_in_use", "The provider refused the new client secret and took the previous one."
)
NOT_STORED = OutcomeUnknown("not_stored", "The provider answered, and its answer could not be stored.")


@dataclass(frozen=True, slots=True)
class Event:
    """A change of state, for the history."""

    previous_status: str
    status: str
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Outcome:
    """What is to be stored of one attempt on a connection. Tokens among the columns are sealed."""

    connection_id: uuid.UUID
    account_id: uuid.UUID
    secret_id: uuid.UUID
    attempt: uuid.UUID
    """Whose claim it was; ``stored_by`` says so once the token is stored."""
    generation: int
    is_token: bool
    columns: Mapping[str, Any]
    stamps: tuple[str, ...] = ()
    """The columns that become the time at which it is stored."""
    event: Event | None = None
    line: str = ""
    """What the log says once it is stored; empty: nothing."""
    claimed: Connection | None = field(default=None, compare=False)
    client: OAuthClient | None = field(default=None, compare=False)
    """While the process that made the attempt lives: what it was made with."""
    verdict: Verdict = field(default=Verdict.SILENT, compare=False)
    """What the call says of the provider, and how long that asked to be left alone."""
    retry_after: int | None = field(default=None, compare=False)
    refused: ClientRegistration | None = field(default=None, compare=False)
    """The client that the provider refused: somebody may be changing it at this moment."""
    seal: Seal | None = field(default=None, compare=False)
    """Seals it for the spool, whatever becomes of the database."""

    def __repr__(self) -> str:
        return f"Outcome({self.connection_id}, {'token' if self.is_token else 'no token'})"

    @property
    def key(self) -> tuple[uuid.UUID, uuid.UUID]:
        """Names the attempt: there is one outcome of each."""
        return self.connection_id, self.attempt


def token_outcome(
    connection: Connection,
    client: OAuthClient,
    answer: TokenAnswer,
    *,
    sent_at: datetime,
    previous: Plaintext | None,
    seal: Seal,
) -> Outcome:
    """A refreshed token. ``sent_at`` is when the request left, by the database's clock; ``previous`` the refresh token we had."""
    columns = token_columns(connection, client, answer, issued_at=sent_at, keep_refresh_token=True, seal=seal)
    columns |= {"stored_by": connection.lease_owner, "connected_at": connection.connected_at or sent_at}
    if not connection.connected_as:
        columns["connected_as"] = account_name(client.preset, answer.identity, answer.facts)
    if previous is not None:
        brought = answer.refresh_token
        columns["rotates"] = brought is not None and brought.reveal_bytes() != previous.reveal_bytes()
    news = (
        PREVIOUS_SECRET_USED if answer.used_previous_secret and not connection.previous_client_secret_used_at else None
    )
    return _outcome(
        connection,
        client,
        columns,
        Status.CONNECTED,
        news=news,
        stamps=("refreshed_at",),
        is_token=True,
        line=f"refreshed connection {connection.pk}: generation {connection.generation + 1}",
    )


def failure_outcome(
    connection: Connection, client: OAuthClient | None, failure: TokenRequestFailed, *, now: datetime
) -> Outcome:
    """A failed attempt: what the status becomes, and when to try again. Never takes a valid token away.

    ``client`` is ``None`` where nothing was sent because the client's own document does not open.
    """
    if isinstance(failure, GrantDead):
        return ended_outcome(connection, client, GiveUp(failure.code, failure.message))
    failures = connection.failure_count + 1
    pause = schedule.backoff(failures, retry_after=failure.retry_after)
    columns: dict[str, Any] = {
        "refresh_due_at": now + (schedule.rejected_pause() if isinstance(failure, ClientRefused) else pause),
        "outcome_unknown_at": connection.outcome_unknown_at,
        **_failure_columns(failures, failure.reason, failure.code, failure.message),
        **_end_of_unused(connection, client),
    }
    if client is not None and isinstance(failure, OutcomeUnknown) and connection.refresh_token is not None:
        columns["outcome_unknown_at"] = connection.outcome_unknown_at or connection.attempt_started_at
        if not may_replay(connection, client) and not GrantType(client.grant_type).is_repeatable:
            if connection.is_valid(now):
                columns["refresh_due_at"] = connection.expires_at
            elif client.replay_policy is ReplayPolicy.NEVER:
                return ended_outcome(connection, client, NEVER_REPLAYED, unknown_since=columns["outcome_unknown_at"])
    return _outcome(
        connection,
        client,
        columns,
        Status.REFRESH_FAILING,
        news=News(failure.code, failure.message),
        stamps=("failed_at",),
        line=f"refresh of connection {connection.pk} failed ({failures} in a row): {failure.code}",
    )


def ended_outcome(
    connection: Connection, client: OAuthClient | None, end: GiveUp, *, unknown_since: datetime | None = None
) -> Outcome:
    """Stop at once and stay stopped. The refresh token is dead and forgotten; a valid access token is served to its end."""
    columns = {
        "refresh_token": None,
        "refresh_due_at": None,
        "outcome_unknown_at": unknown_since,
        "reauthorize_by": None,
        **_failure_columns(connection.failure_count + 1, "reauthorization_required", end.code, end.message),
    }
    return _outcome(
        connection,
        client,
        columns,
        Status.REAUTHORIZATION_REQUIRED,
        news=end,
        stamps=("failed_at",),
        line=f"connection {connection.pk} needs a new consent: {end.code}",
    )


def unsent_outcome(connection: Connection, **changes: Any) -> Outcome:
    """A claim of which nothing was sent: it is given back unmarked, with ``changes``."""
    return _outcome(connection, None, changes, connection.status)


def may_replay(connection: Connection, client: OAuthClient) -> bool:
    """Whether sending a refresh token again can do no harm: the preset says so, or the provider has shown not to rotate."""
    return client.replay_policy is ReplayPolicy.SAFE or connection.rotates is False


def token_columns(
    connection: Connection,
    client: OAuthClient,
    answer: TokenAnswer,
    *,
    issued_at: datetime,
    keep_refresh_token: bool,
    seal: Seal,
) -> dict[str, Any]:
    """The columns of a new token. ``issued_at`` is when the request for it was sent, by the database's clock.

    ``keep_refresh_token``: an answer without one means that the one we have stays good (RFC 6749 §6). The generation is
    counted by whoever stores this.
    """
    expires_at = None if answer.expires_in is None else issued_at + timedelta(seconds=answer.expires_in)
    columns: dict[str, Any] = {
        "access_token": _sealed(seal, connection, "access_token", answer.access_token),
        "token_type": answer.token_type,
        "issued_at": issued_at,
        "expires_at": expires_at,
        "refresh_due_at": None if expires_at is None else schedule.refresh_due(issued_at, expires_at),
        "outcome_unknown_at": None,
        **NO_FAILURE,
        "previous_client_secret_used_at": (connection.previous_client_secret_used_at or issued_at)
        if answer.used_previous_secret
        else None,
    }
    if answer.scopes is not None:
        columns["granted_scopes"] = list(answer.scopes)
    if answer.facts:
        columns["facts"] = {**connection.facts, **answer.facts}
    has_refresh_token = keep_refresh_token and connection.refresh_token is not None
    if answer.refresh_token is not None:
        columns["refresh_token"] = _sealed(seal, connection, "refresh_token", answer.refresh_token)
        has_refresh_token = True
    elif not keep_refresh_token:
        columns["refresh_token"] = None
    if has_refresh_token:
        columns |= _refresh_token_life(connection, client, answer, issued_at, is_refresh=keep_refresh_token)
        columns["refresh_due_at"] = _kept_alive(columns, client, issued_at)
    else:
        columns |= {"refresh_token_expires_at": None, "refresh_token_rolls": None, "reauthorize_by": None}
        if expires_at is not None and not GrantType(client.grant_type).is_repeatable:
            # Nothing can be done before its end; at its end the status must say so.
            columns["refresh_due_at"] = expires_at
    return columns


def _refresh_token_life(
    connection: Connection, client: OAuthClient, answer: TokenAnswer, issued_at: datetime, *, is_refresh: bool
) -> dict[str, Any]:
    """How long the refresh token lives, and by when a person has to consent again, if refreshing does not prevent that."""
    before = connection.refresh_token_expires_at if is_refresh else None
    rolls = connection.refresh_token_rolls if is_refresh else None
    stated, lifetime = answer.refresh_token_expires_in, client.preset.refresh_token_lifetime
    ends_at = before if stated is None else issued_at + timedelta(seconds=stated)
    if stated is None and lifetime is not None:
        # It counts from the consent, whatever is refreshed since.
        ends_at, rolls = before or issued_at + timedelta(seconds=lifetime), False
    elif before is not None and ends_at is not None and connection.issued_at is not None:
        passed = issued_at - connection.issued_at
        if passed >= SHORTEST_STEP:
            rolls = ends_at - before > passed * MOVES
    by = ends_at if rolls is False else None
    life: dict[str, Any] = {"refresh_token_expires_at": ends_at, "refresh_token_rolls": rolls, "reauthorize_by": by}
    if not is_refresh:
        # Another grant, whose end nobody has been told of.
        life["reauthorize_told_at"] = None
    return life


def _kept_alive(columns: Mapping[str, Any], client: OAuthClient, issued_at: datetime) -> datetime | None:
    """When to refresh: when the access token is due, or before the refresh token dies of not being used."""
    ends = [columns["refresh_token_expires_at"]] if columns["refresh_token_rolls"] is not False else []
    if client.preset.refresh_token_idle is not None:
        ends.append(issued_at + timedelta(seconds=client.preset.refresh_token_idle))
    # One that is over, or all but over, is put off by no refresh: asking for one would only ask ever faster.
    ends = [end for end in ends if end is not None and end - issued_at > SHORTEST_STEP]
    due = [columns["refresh_due_at"], *(schedule.keep_alive_due(issued_at, end) for end in ends)]
    return min((moment for moment in due if moment is not None), default=None)


def _end_of_unused(connection: Connection, client: OAuthClient | None) -> dict[str, Any]:
    """While refreshes fail the refresh token is not used, and nothing puts off its end."""
    if connection.refresh_token is None or client is None:
        return {}
    ends = [connection.refresh_token_expires_at]
    if client.preset.refresh_token_idle is not None and connection.issued_at is not None:
        ends.append(connection.issued_at + timedelta(seconds=client.preset.refresh_token_idle))
    return {"reauthorize_by": min((end for end in ends if end is not None), default=None)}


def _outcome(
    connection: Connection,
    client: OAuthClient | None,
    columns: Mapping[str, Any],
    status: str,
    *,
    news: News | None = None,
    stamps: tuple[str, ...] = (),
    is_token: bool = False,
    line: str = "",
) -> Outcome:
    assert connection.lease_owner is not None
    event = None
    if connection.status != status:
        stamps = (*stamps, "status_changed_at")
    if connection.status != status or (news is not None and status == Status.CONNECTED):
        code, message = (news.code[:64], news.message[:500]) if news else ("", "")
        event = Event(connection.status, status, code, message)
    return Outcome(
        connection_id=connection.pk,
        account_id=connection.account_id,
        secret_id=connection.secret_id,
        attempt=connection.lease_owner,
        generation=connection.generation,
        is_token=is_token,
        columns={**columns, "status": str(status), **RELEASED},
        stamps=stamps,
        event=event,
        line=line,
        claimed=connection,
        client=client,
    )


def _failure_columns(count: int, reason: str, code: str, message: str) -> dict[str, Any]:
    return {
        "failure_count": count,
        "failure_reason": reason,
        "failure_code": code[:64],
        "failure_message": message[:500],
    }


def place_of(name: str, *, account_id: uuid.UUID, connection_id: uuid.UUID) -> Place:
    """Where the sealed column ``name`` of a connection lives."""
    column: Any = Connection._meta.get_field(name)
    place: Place = column.place(account=account_id, row=connection_id)
    return place


def _sealed(seal: Seal, connection: Connection, column: str, value: Plaintext) -> Ciphertext:
    return seal(value, place_of(column, account_id=connection.account_id, connection_id=connection.pk))
