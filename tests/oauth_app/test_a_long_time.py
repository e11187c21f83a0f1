"""What happens in hours and days, told without waiting for them: time is made to pass for the rows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import models
from django.db.models import F, Min
from django.db.models.functions import Now

from knoxcall.clock import database_now
from oauth_app import hosts
from oauth_app.fake_provider import Answer, Drop, RefreshTokens
from oauth_app.models import Connection
from oauth_app.sweep import Sweeper
from tests.factories import Caller, a_client, age, an_oauth2_secret, consent

pytestmark = pytest.mark.django_db(transaction=True)

Status = Connection.Status
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
_TIMES = [field.name for field in Connection._meta.concrete_fields if isinstance(field, models.DateTimeField)]


def let_pass(time: timedelta) -> None:
    """Let so much time pass for every connection, all of whose moments lie further back by that, and for the breakers."""
    hosts.hosts()._offset += time.total_seconds()
    Connection.objects.update(**{name: F(name) - time for name in _TIMES})


def sweep() -> None:
    """One sweep of a worker, to its end."""
    sweeper = Sweeper(slots=16)
    sweeper.tick()
    sweeper.stop()


def live_through(span: timedelta) -> None:
    """Sweep whenever something is due, until so much time has passed."""
    left = span
    while True:
        sweep()
        due = Connection.objects.aggregate(due=Min("refresh_due_at"))["due"]
        pause = left if due is None else max(due - database_now(), timedelta(0)) + timedelta(seconds=1)
        if pause >= left:
            return
        let_pass(pause)
        left -= pause


def connected(provider: Any, http: Any, **client: Any) -> Connection:
    return consent(an_oauth2_secret(Caller(), a_client(provider, **client)), http)


def now_of(connection: Connection) -> Connection:
    return Connection.objects.get(pk=connection.pk)


@pytest.fixture(autouse=True)
def _a_clock_of_its_own(settings: Any) -> None:
    """Breakers go by this process's own clock while there is no Valkey, whose clock cannot be moved."""
    settings.REDIS_URL = "unix:///nonexistent"
    hosts.forget()


def test_a_refused_client_is_called_at_most_twice_in_a_day(provider: Any, http: Any) -> None:
    connection = age(connected(provider, http), expires_in=600)
    provider.answer = Answer.error("invalid_client", status=401)

    live_through(DAY)

    assert 1 <= provider.count("refresh_token") <= 2
    assert now_of(connection).status == Status.REFRESH_FAILING


def test_a_dead_grant_is_called_once_and_never_again(provider: Any, http: Any) -> None:
    connection = age(connected(provider, http), expires_in=600)
    provider.revoke_grants()

    live_through(7 * DAY)

    assert provider.count("refresh_token") == 1
    assert now_of(connection).status == Status.REAUTHORIZATION_REQUIRED


def test_an_outage_of_an_hour_ends_without_a_hand_and_costs_few_calls(provider: Any, http: Any) -> None:
    caller = Caller()
    connections = [
        age(consent(an_oauth2_secret(caller, a_client(provider), name=f"c{n}"), http), expires_in=600) for n in range(3)
    ]
    provider.answer = Answer.busy(503)
    live_through(HOUR)
    assert {now_of(connection).status for connection in connections} == {Status.REFRESH_FAILING}
    # Fifteen seconds, doubling to fifteen minutes, and a random part of each.
    assert provider.count("refresh_token") <= 3 * 40

    provider.answer = None
    live_through(timedelta(minutes=20))

    assert {now_of(connection).status for connection in connections} == {Status.CONNECTED}
    assert provider.reuses == 0


def test_a_lost_answer_is_replayed_once_at_the_end_of_the_token(provider: Any, http: Any) -> None:
    connection = age(connected(provider, http), expires_in=600)
    provider.next(Answer.dropped(Drop.CLOSED, takes_effect=True))

    live_through(timedelta(minutes=9))
    assert provider.count("refresh_token") == 1
    live_through(HOUR)

    # It was consumed, and this provider revokes at the replay: a person is asked, after the token's end and not before.
    assert (provider.reuses, now_of(connection).status) == (1, Status.REAUTHORIZATION_REQUIRED)


def test_a_day_of_hourly_tokens_is_a_refresh_an_hour(provider: Any, http: Any) -> None:
    connection = connected(provider, http)

    live_through(DAY)

    assert 24 <= provider.count("refresh_token") <= 28
    assert (now_of(connection).status, provider.reuses) == (Status.CONNECTED, 0)


def test_a_refresh_token_that_dies_unused_is_used_in_time(provider: Any, http: Any) -> None:
    provider.omit = ("expires_in",)
    provider.refresh_token_expires_in = 30 * 86_400
    connection = connected(provider, http)
    assert connection.expires_at is None

    live_through(90 * DAY)

    after = now_of(connection)
    assert after.refresh_token_expires_at > database_now() + 6 * DAY
    assert 3 <= provider.count("refresh_token") <= 6
    assert after.reauthorize_by is None


def test_a_fixed_end_of_the_refresh_token_is_foretold(provider: Any, http: Any) -> None:
    provider.refresh_token_expires_in = 30 * 86_400
    provider.refresh_tokens = RefreshTokens.REPEATED
    connection = connected(provider, http)
    ends_at: datetime = connection.refresh_token_expires_at

    let_pass(10 * DAY)
    provider.refresh_token_expires_in = 20 * 86_400
    Connection.objects.update(refresh_due_at=Now())
    sweep()

    after = now_of(connection)
    assert after.refresh_token_rolls is False
    assert abs(after.reauthorize_by - (ends_at - 10 * DAY)) < timedelta(minutes=1)
