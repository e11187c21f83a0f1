"""Outcomes of attempts as a worker would have them, without a call; and a database that is away for those who store."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from django.db import OperationalError
from django.db.models.functions import Now

from oauth_app import outage, storing
from oauth_app.applying import apply
from oauth_app.claim import begun_at, claim_these, time_by_database
from oauth_app.models import Connection
from oauth_app.outage import tell_return
from oauth_app.outcome import Outcome, failure_outcome, place_of, token_outcome
from oauth_app.protocol.answers import TokenAnswer
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import ProviderUnavailable
from secrets_app import data_keys
from secrets_app.crypto.cipher import Plaintext
from tests.factories import Caller, an_oauth2_secret

CLIENT = OAuthClient(
    provider="custom",
    grant_type="authorization_code",
    client_id="a-client",
    client_secret="a-secret",
    auth_url="https://provider.test/authorize",
    token_url="https://provider.test/token",
)
_numbers = itertools.count(1)


def a_connection(caller: Caller, client: OAuthClient = CLIENT, **columns: Any) -> Connection:
    """Connected in its first generation, with an hour to live, and due now."""
    connection = an_oauth2_secret(caller, client, f"connection-{next(_numbers)}")
    tokens = {
        name: data_keys.seal(
            Plaintext(f"{name}-1"), place_of(name, account_id=caller.account.pk, connection_id=connection.pk)
        )
        for name in ("access_token", "refresh_token")
    }
    Connection.objects.filter(pk=connection.pk).update(
        **tokens,
        **{"status": "connected", "generation": 1, "issued_at": Now(), "refresh_due_at": Now(), "rotates": True}
        | columns,
    )
    return Connection.objects.get(pk=connection.pk)


def claimed(caller: Caller, **columns: Any) -> Connection:
    """Such a connection, claimed."""
    (claim,) = claim_these([a_connection(caller, **columns).pk])
    return claim


def an_answer(token: str = "2", **fields: Any) -> TokenAnswer:
    """A provider's answer: its tokens end in ``token``, the refresh token is a new one."""
    return TokenAnswer(
        **{
            "access_token": Plaintext(f"access_token-{token}"),
            "refresh_token": Plaintext(f"refresh_token-{token}"),
            "token_type": "Bearer",
            "expires_in": 3600,
            "scopes": None,
            **fields,
        }
    )


def a_token(claim: Connection, token: str = "2", *, client: OAuthClient = CLIENT, **fields: Any) -> Outcome:
    """The outcome of a refresh of ``claim`` that went well, with a seal for the spool, as ``refresh.attempt`` returns it."""
    reserved = data_keys.reserve(claim.account_id, 3)
    outcome = token_outcome(
        claim,
        client,
        an_answer(token, **fields),
        sent_at=begun_at(claim),
        previous=claim.refresh_token.open(),
        seal=reserved.seal,
    )
    return replace(outcome, seal=reserved.seal)


def a_failure(claim: Connection) -> Outcome:
    """The outcome of a refresh for which the provider had no time."""
    failure = ProviderUnavailable("http_503", "The provider answered with status 503.")
    return failure_outcome(claim, CLIENT, failure, now=time_by_database(claim))


class Database:
    """What storing meets when it asks the database: it can be away, refuse, or keep silent, and counts what it is asked."""

    def __init__(self) -> None:
        self.error: Callable[[Sequence[Outcome]], Exception | None] = lambda outcomes: None
        self.batches: list[list[Outcome]] = []
        self.refusals = 0
        self.answers = threading.Event()
        self.answers.set()

    def apply(self, outcomes: Sequence[Outcome]) -> set[Any]:
        self.batches.append(list(outcomes))
        assert self.answers.wait(20)
        self._check(outcomes)
        return apply(outcomes)

    def tell_return(self) -> None:
        if outage.is_known():
            self._check([])
        tell_return()

    def _check(self, outcomes: Sequence[Outcome]) -> None:
        if error := self.error(outcomes):
            self.refusals += 1
            raise error

    def go(self, error: type[Exception] = OperationalError) -> None:
        """Be away."""
        self.error = lambda outcomes: error("away")

    def come_back(self) -> None:
        self.error = lambda outcomes: None

    def fall_silent(self) -> None:
        self.answers.clear()

    def answer(self) -> None:
        self.answers.set()


def between(monkeypatch: pytest.MonkeyPatch) -> Database:
    """Put a ``Database`` between storing and the real one."""
    database = Database()
    monkeypatch.setattr(storing, "apply", database.apply)
    monkeypatch.setattr(outage, "tell_return", database.tell_return)
    return database
