"""Faults that must never cost a grant: found by an adversary, kept so that they stay found."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from oauth_app.claim import claim_one
from oauth_app.fake_provider import Answer, Drop
from oauth_app.models import Connection
from oauth_app.providers import ReplayPolicy
from oauth_app.refresh import refresh
from tests.factories import Caller, a_client, age, an_oauth2_secret, consent

pytestmark = pytest.mark.django_db(transaction=True)

LONG_CODE = "a" * 20 + ("_" + "b" * 20) * 4


def connected(provider: Any, http: Any, **client: Any) -> Connection:
    return consent(an_oauth2_secret(Caller(), a_client(provider, **client)), http)


def renew(connection: Connection) -> Connection:
    claimed = claim_one(connection)
    assert claimed is not None
    refresh(claimed, connection.secret.registration)
    return Connection.objects.get(pk=connection.pk)


def test_a_claimant_that_slept_past_its_lease_sends_nothing(provider: Any, http: Any) -> None:
    connection = age(connected(provider, http), expires_in=-1)
    sleeper = claim_one(connection)
    assert sleeper is not None
    # It was stopped for a minute between its claim and its call, and another process has renewed the token since.
    sleeper.asked_at -= 60
    Connection.objects.filter(pk=connection.pk).update(lease_expires_at=Now() - timedelta(seconds=15))
    renewed = renew(connection)
    assert (renewed.generation, provider.reuses) == (2, 0)

    refresh(sleeper, connection.secret.registration)

    assert provider.reuses == 0
    assert Connection.objects.get(pk=connection.pk).generation == 2


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (504, {"status": 504, "error": "Gateway Timeout", "path": "/token"}),
        (502, {"error": {"code": 502, "message": "bad gateway"}}),
        (500, {"error": "server_error"}),
    ],
)
def test_a_gateway_that_says_error_in_json_leaves_the_outcome_unknown(
    provider: Any, http: Any, status: int, document: Any
) -> None:
    connection = age(connected(provider, http, replay_policy=ReplayPolicy.NEVER), expires_in=600)
    body = json.dumps(document).encode()
    provider.next(Answer(status=status, body=body, content_type="application/json", takes_effect=True))

    after = renew(connection)

    assert after.outcome_unknown_at is not None
    Connection.objects.filter(pk=after.pk).update(refresh_due_at=Now() - timedelta(seconds=1))
    renew(after)
    assert provider.reuses == 0


def test_a_lost_refresh_of_a_token_that_never_expires_is_not_replayed_while_that_is_good(
    provider: Any, http: Any
) -> None:
    provider.omit = ("expires_in",)
    connection = connected(provider, http, replay_policy=ReplayPolicy.ONE_TRY)
    assert connection.expires_at is None
    provider.next(Answer.dropped(Drop.CLOSED, takes_effect=True))

    after = renew(connection)
    renew(after)

    assert provider.reuses == 0


def test_a_dead_grant_is_not_claimed_by_a_reader_who_looked_before_it_died(provider: Any, http: Any) -> None:
    connection = age(connected(provider, http), expires_in=-1)
    provider.answer = Answer.error("invalid_grant")
    after = renew(connection)
    assert after.failure_code == "invalid_grant"

    assert claim_one(connection) is None


@pytest.mark.parametrize(
    "extra",
    [{"scope": "a\0b"}, {"scope": "a\ud800b"}, {"refresh_token": "a\ud800"}],
    ids=["nul in a scope", "surrogate in a scope", "surrogate in a refresh token"],
)
def test_text_that_no_database_takes_does_not_cost_the_token(provider: Any, http: Any, extra: Any) -> None:
    connection = age(connected(provider, http), expires_in=600)
    provider.extra = extra

    after = renew(connection)

    assert after.lease_owner is None
    assert after.generation == 2 or after.failure_code


def test_a_long_error_code_is_stored(provider: Any, http: Any) -> None:
    connection = age(connected(provider, http), expires_in=600)
    provider.answer = Answer.error(LONG_CODE)

    after = renew(connection)

    assert (after.status, after.lease_owner) == ("refresh_failing", None)
    assert all(len(event.code) <= 64 for event in after.events.all())
