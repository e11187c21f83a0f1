"""The history of connections: ends of refresh tokens foretold once, and old events pruned, whatever a connection does."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection as database
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from oauth_app import history
from oauth_app.fake_provider import Answer
from oauth_app.history import KEPT_FOR, MOST_KEPT, foretell, prune_events
from oauth_app.models import ClientRegistration, Connection, ConnectionEvent
from oauth_app.tasks import prune
from oauth_app.tokens import refresh_now
from tests.factories import Caller, a_client, age, an_oauth2_secret, consent
from tests.support.crowd import all_at_once

pytestmark = pytest.mark.django_db

Status = Connection.Status
CODE = "reauthorize_soon"


@pytest.fixture
def caller() -> Caller:
    return Caller()


@pytest.fixture
def connected(caller, provider, http) -> Connection:
    return consent(an_oauth2_secret(caller, a_client(provider)), http)


def ends_in(days: float, connection: Connection | None = None, **columns: Any) -> None:
    rows = Connection.objects.filter(pk=connection.pk) if connection else Connection.objects.all()
    rows.update(reauthorize_by=Now() + timedelta(days=days), **columns)


def told() -> list[ConnectionEvent]:
    return list(ConnectionEvent.objects.filter(code=CODE).order_by("pk"))


def some_events(connection: Connection, number: int, *, at: datetime | None = None) -> list[int]:
    """Ids of new events of ``connection``, oldest first."""
    made = ConnectionEvent.objects.bulk_create(
        ConnectionEvent(connection=connection, previous_status=Status.CONNECTED, status=Status.REFRESH_FAILING)
        for _ in range(number)
    )
    ids = [event.pk for event in made]
    if at is not None:
        ConnectionEvent.objects.filter(pk__in=ids).update(created_at=at)
    return ids


def events_of(connection: Connection) -> list[int]:
    return list(connection.events.order_by("pk").values_list("pk", flat=True))


# What is foretold


def test_an_end_within_seven_days_is_told_once(connected, caplog):
    ends_in(6)
    with caplog.at_level(logging.WARNING, logger="oauth_app.history"):
        assert [foretell(), foretell()] == [1, 0]
    [event] = told()
    assert (event.connection_id, event.previous_status, event.status) == (connected.pk, "connected", "connected")
    assert event.message
    assert [str(connected.pk) in record.getMessage() for record in caplog.records] == [True]
    connected.refresh_from_db()
    assert connected.status == Status.CONNECTED
    assert connected.reauthorize_told_at is not None


@pytest.mark.parametrize("days", [8, -1, None])
def test_an_end_that_is_far_or_past_or_unknown_is_not_told(connected, days):
    if days is not None:
        ends_in(days)
    assert foretell() == 0


@pytest.mark.parametrize(
    "columns",
    [
        {"status": Status.REAUTHORIZATION_REQUIRED, "refresh_due_at": None},
        {"status": Status.DISCONNECTED, "refresh_due_at": None},
        {"refresh_token": None},
    ],
    ids=["ended", "disconnected", "without refresh token"],
)
def test_what_has_ended_and_what_has_no_refresh_token_is_not_told(connected, columns):
    ends_in(3, **columns)
    assert foretell() == 0


def test_a_grant_that_needs_no_person_is_not_told(connected):
    ends_in(3)
    ClientRegistration.objects.update(grant_type="password")
    assert foretell() == 0


def test_a_failing_connection_is_told_and_goes_on_failing(connected):
    ends_in(3, status=Status.REFRESH_FAILING)
    assert foretell() == 1
    assert [(event.previous_status, event.status) for event in told()] == [("refresh_failing", "refresh_failing")]


def test_the_end_of_the_next_refresh_token_is_told_anew(connected):
    ends_in(6)
    assert foretell() == 1
    # Consented again: there is a new end, and seven days before it came while nobody looked.
    Connection.objects.update(reauthorize_told_at=Now() - timedelta(days=90))
    assert foretell() == 1


def test_an_end_that_moves_within_the_seven_days_is_not_told_again(connected):
    for days in (2, 3, 6):
        ends_in(days)
        foretell()
    assert len(told()) == 1


def test_batches_follow_one_another_until_all_are_told(caller, provider, http, monkeypatch):
    monkeypatch.setattr(history, "FORETOLD_AT_ONCE", 2)
    for number in range(5):
        consent(an_oauth2_secret(caller, a_client(provider), f"c{number}"), http)
    ends_in(3)
    assert foretell() == 5
    assert len({event.connection_id for event in told()}) == 5


def test_a_run_tells_so_many_and_leaves_the_rest_to_the_next(caller, provider, http, monkeypatch):
    monkeypatch.setattr(history, "FORETOLD_AT_ONCE", 2)
    monkeypatch.setattr(history, "FORETOLD_IN_A_RUN", 3)
    for number in range(4):
        consent(an_oauth2_secret(caller, a_client(provider), f"c{number}"), http)
    ends_in(3)
    assert [foretell(), foretell(), foretell()] == [3, 1, 0]


def test_a_batch_costs_the_same_few_statements_whatever_its_size_and_reads_nothing_sealed(caller, provider, http):
    def statements() -> int:
        Connection.objects.update(reauthorize_told_at=None)
        with CaptureQueriesContext(database) as queries:
            foretell()
        assert not [query for query in queries if '"access_token"' in query["sql"].split(" FROM ")[0]]
        return len(queries)

    consent(an_oauth2_secret(caller, a_client(provider), "first"), http)
    ends_in(3)
    one = statements()
    for number in range(5):
        consent(an_oauth2_secret(caller, a_client(provider), f"c{number}"), http)
    ends_in(3)
    assert statements() == one


@pytest.mark.django_db(transaction=True)
def test_of_workers_that_look_at_the_same_moment_one_tells(provider, http):
    caller = Caller()
    for number in range(6):
        consent(an_oauth2_secret(caller, a_client(provider), f"c{number}"), http)
    ends_in(3)
    assert sum(all_at_once(*[foretell] * 4)) == 6
    assert len({event.connection_id for event in told()}) == len(told()) == 6


@pytest.mark.django_db(transaction=True)
def test_without_its_event_nothing_is_marked_as_told(provider, http, monkeypatch):
    consent(an_oauth2_secret(Caller(), a_client(provider)), http)
    ends_in(3)
    with monkeypatch.context() as broken:
        broken.setattr(history, "reauthorize_soon", None)
        with pytest.raises(TypeError):
            foretell()
    assert foretell() == 1


# What is kept


def test_events_older_than_90_days_go(connected):
    old = some_events(connected, 3, at=timezone.now() - KEPT_FOR - timedelta(minutes=1))
    young = some_events(connected, 2, at=timezone.now() - KEPT_FOR + timedelta(minutes=1))
    assert prune_events() == 3
    assert set(events_of(connected)) & {*old, *young} == set(young)


def test_the_newest_hundred_of_each_connection_stay(caller, connected, provider):
    quiet = an_oauth2_secret(caller, a_client(provider), "quiet")
    few = some_events(quiet, MOST_KEPT)
    many = some_events(connected, MOST_KEPT + 30)
    prune_events()
    assert events_of(connected) == many[-MOST_KEPT:]
    assert events_of(quiet) == few
    assert prune_events() == 0


def test_many_events_go_in_batches_of_a_few_statements_each(caller, connected, provider, monkeypatch):
    monkeypatch.setattr(history, "PRUNED_AT_ONCE", 50)
    other = an_oauth2_secret(caller, a_client(provider), "other")
    for connection in (connected, other):
        some_events(connection, 70, at=timezone.now() - KEPT_FOR - timedelta(days=1))
        some_events(connection, MOST_KEPT + 40)
    with CaptureQueriesContext(database) as queries:
        deleted = prune_events()
    assert (len(events_of(connected)), len(events_of(other))) == (MOST_KEPT, MOST_KEPT)
    batches = deleted // 50 + 2
    # With savepoints, which are there in a test only.
    assert len(queries) <= 1 + 5 * batches


def test_a_run_deletes_so_many_and_leaves_the_rest_to_the_next(connected, monkeypatch):
    monkeypatch.setattr(history, "PRUNED_AT_ONCE", 10)
    monkeypatch.setattr(history, "PRUNED_IN_A_RUN", 25)
    ConnectionEvent.objects.all().delete()
    some_events(connected, 40, at=timezone.now() - KEPT_FOR - timedelta(days=1))
    assert [prune_events(), prune_events(), prune_events()] == [25, 15, 0]


@pytest.mark.django_db(transaction=True)
def test_workers_that_prune_at_the_same_moment_do_not_stand_in_each_others_way(provider, monkeypatch):
    monkeypatch.setattr(history, "PRUNED_AT_ONCE", 20)
    connection = an_oauth2_secret(Caller(), a_client(provider))
    some_events(connection, 200, at=timezone.now() - KEPT_FOR - timedelta(days=1))
    some_events(connection, MOST_KEPT + 100)
    all_at_once(*[prune_events] * 4)
    prune_events()
    assert len(events_of(connection)) == MOST_KEPT


def test_the_history_of_a_connection_that_fails_and_recovers_all_the_time_stays_small(caller, connected, provider):
    for _ in range(MOST_KEPT // 2 + 10):
        age(connected, expires_in=600)
        provider.next(Answer.busy(503))
        refresh_now(caller.scope, connected.secret_id, environment=None)
        Connection.objects.update(failed_at=Now() - timedelta(minutes=1))
        refresh_now(caller.scope, connected.secret_id, environment=None)
    assert len(events_of(connected)) > MOST_KEPT
    last = events_of(connected)[-1]
    prune()
    assert len(events_of(connected)) == MOST_KEPT
    assert events_of(connected)[-1] == last


def test_the_schedule_foretells(connected):
    ends_in(3)
    prune()
    assert len(told()) == 1
