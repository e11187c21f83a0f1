"""Outages of the database: told to everybody once, and for a while nobody sends again what a spool may hold the answer to."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import InterfaceError, InternalError, OperationalError, connections
from django.db import connection as database
from django.db.models.functions import Now
from django.db.transaction import atomic

from knoxcall.api.errors import TokenUnavailable
from knoxcall.clock import database_now
from oauth_app import claim, outage, tokens
from oauth_app.claim import claim_due, claim_one, claim_these
from oauth_app.models import Connection, DatabaseReturn
from tests.factories import Caller, a_client, age, an_oauth2_secret, consent
from tests.oauth_app.outcomes import a_connection

MINUTE = timedelta(seconds=60)


@pytest.fixture(autouse=True)
def _no_outage(monkeypatch) -> None:
    monkeypatch.setattr(outage, "_since", None)


@pytest.fixture
def told(caplog):
    return lambda: [record.levelname for record in caplog.records if record.name == outage.__name__]


# Telling


def test_an_outage_is_told_once(told):
    for error in (OperationalError("away"), InterfaceError("away"), OperationalError("still away")):
        outage.notice(error)
    assert outage.is_known()
    assert told() == ["ERROR"]


def test_what_the_database_said_is_not_in_the_log(caplog):
    outage.notice(OperationalError("connection to server at 10.0.0.1, user vault, failed"))
    assert "10.0.0.1" not in caplog.text


def test_the_return_is_told_once_to_the_log_and_to_everybody(db, told):
    outage.notice(OperationalError("away"))
    outage.tell_return()
    outage.tell_return()
    assert not outage.is_known()
    assert told() == ["ERROR", "WARNING"]
    assert DatabaseReturn.objects.filter(returned_at__gt=Now() - timedelta(seconds=5)).count() == 1


def test_a_second_return_takes_the_place_of_the_first(db):
    DatabaseReturn.objects.create(returned_at=Now() - timedelta(days=1))
    outage.notice(OperationalError("away"))
    outage.tell_return()
    assert DatabaseReturn.objects.get().returned_at > database_now() - timedelta(minutes=1)


def test_without_an_outage_nothing_is_asked(db, django_assert_num_queries, told):
    with django_assert_num_queries(0):
        outage.tell_return()
    assert told() == []


def test_a_database_that_is_still_away_stays_away(monkeypatch, told):
    def away(*args: Any, **kwargs: Any) -> Any:
        raise OperationalError("still away")

    outage.notice(OperationalError("away"))
    with monkeypatch.context() as patch:
        patch.setattr(DatabaseReturn.objects, "update_or_create", away)
        with pytest.raises(outage.AWAY):
            outage.tell_return()
    assert outage.is_known()
    assert told() == ["ERROR"]


@pytest.mark.parametrize("error", [OperationalError, InterfaceError, InternalError])
def test_a_read_only_database_is_as_good_as_away(error):
    """PostgreSQL's error for it is an internal one (25006)."""
    assert isinstance(error("cannot execute UPDATE in a read-only transaction"), outage.AWAY)


@pytest.mark.django_db(transaction=True)
def test_a_row_that_somebody_keeps_locked_is_told_from_an_outage():
    row = a_connection(Caller())
    raised: list[Exception] = []

    def lock() -> None:
        with database.cursor() as cursor:
            is_postgres = database.vendor == "postgresql"
            cursor.execute("SET lock_timeout = 50" if is_postgres else "PRAGMA busy_timeout = 50")
        try:
            Connection.objects.filter(pk=row.pk).update(failure_count=1)
        except outage.AWAY as err:
            raised.append(err)
        finally:
            connections.close_all()

    with atomic():
        Connection.objects.filter(pk=row.pk).update(failure_count=2)
        other = threading.Thread(target=lock)
        other.start()
        other.join()
    (error,) = raised
    # SQLite locks the whole file: that is an outage to everybody.
    assert outage.is_lock(error) is (database.vendor == "postgresql")


# Patience


def test_a_store_is_repeated_while_the_database_is_away():
    failures = iter([OperationalError("away"), InterfaceError("away")])

    def store(value: int, *, add: int) -> int:
        for failure in failures:
            raise failure
        return value + add

    assert outage.patiently(store, 1, add=2) == 3


def test_patience_has_an_end(monkeypatch):
    monkeypatch.setattr(outage, "CONSENT_PATIENCE", 0.2)
    tries = []

    def store() -> None:
        tries.append(1)
        raise OperationalError("away")

    with pytest.raises(OperationalError):
        outage.patiently(store)
    assert 2 <= len(tries) <= 4


def test_a_fault_of_ours_is_not_repeated():
    tries = []

    def store() -> None:
        tries.append(1)
        raise KeyError

    with pytest.raises(KeyError):
        outage.patiently(store)
    assert len(tries) == 1


# Spools first


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


MARKS = {
    "cut off": {
        "lease_owner": "00000000-0000-0000-0000-000000000001",
        "lease_expires_at": Now() - timedelta(seconds=5),
        "attempt_started_at": Now() - timedelta(seconds=50),
    },
    "unknown": {"outcome_unknown_at": Now() - timedelta(hours=1)},
}


def came_back(ago: float) -> None:
    DatabaseReturn.objects.update_or_create(pk=1, defaults={"returned_at": Now() - timedelta(seconds=ago)})


def claims(row: Connection) -> dict[str, bool]:
    """Whether each of the ways to claim ``row`` does."""
    ways = {
        "due": lambda: claim_due(10),
        "these": lambda: claim_these([row.pk]),
        "one": lambda: [found for found in [claim_one(row)] if found],
    }
    before = Connection.objects.filter(pk=row.pk).values().get()
    won = {}
    for name, way in ways.items():
        won[name] = [found.pk for found in way()] == [row.pk]
        Connection.objects.filter(pk=row.pk).update(**before)
    return won


NOBODY, EVERYBODY = dict.fromkeys(("due", "these", "one"), False), dict.fromkeys(("due", "these", "one"), True)


@pytest.mark.parametrize("mark", MARKS)
def test_for_a_minute_after_an_outage_nobody_claims_what_a_spool_may_hold_the_answer_to(caller, monkeypatch, mark):
    monkeypatch.setattr(claim, "SPOOLS_FIRST", MINUTE)
    came_back(ago=1)
    assert claims(a_connection(caller, **MARKS[mark])) == NOBODY


@pytest.mark.parametrize("mark", MARKS)
def test_once_that_is_over_it_is_claimed(caller, monkeypatch, mark):
    # PostgreSQL counts from its own start, too, which was some seconds ago.
    monkeypatch.setattr(claim, "SPOOLS_FIRST", timedelta(seconds=2))
    row = a_connection(caller, **MARKS[mark])
    came_back(ago=0)
    assert claims(row) == NOBODY
    came_back(ago=2.5)
    assert claims(row) == EVERYBODY


def test_what_nobody_attempted_is_claimed_all_the_same(caller, monkeypatch):
    monkeypatch.setattr(claim, "SPOOLS_FIRST", MINUTE)
    came_back(ago=1)
    assert claims(a_connection(caller)) == EVERYBODY


def test_what_was_given_back_counts_as_not_attempted(caller, monkeypatch):
    row = a_connection(caller)
    (claimed,) = claim_due(1)
    claim.hand_back_all([claimed])
    monkeypatch.setattr(claim, "SPOOLS_FIRST", MINUTE)
    came_back(ago=1)
    assert claims(row) == EVERYBODY


def test_a_server_that_was_started_lately_was_away_although_nobody_noticed(caller, monkeypatch):
    monkeypatch.setattr(claim, "SPOOLS_FIRST", timedelta(days=3650))
    assert not DatabaseReturn.objects.exists()
    # SQLite has no server: what was away there is noticed by whoever was kept waiting, who is on the same machine.
    is_server = database.vendor == "postgresql"
    assert claims(a_connection(caller)) == EVERYBODY
    Connection.objects.update(refresh_due_at=None)
    assert claims(a_connection(caller, **MARKS["unknown"])) == (NOBODY if is_server else EVERYBODY)


def test_among_what_is_due_only_the_marked_wait(caller, monkeypatch):
    monkeypatch.setattr(claim, "SPOOLS_FIRST", MINUTE)
    came_back(ago=1)
    rows = [a_connection(caller, **(MARKS["unknown"] if n % 2 else {})) for n in range(6)]
    assert {row.pk for row in claim_due(10)} == {row.pk for row in rows[::2]}


@pytest.fixture
def cut_off(caller, provider, http, monkeypatch) -> Connection:
    """Connected by consent, and its refresh was cut off by an outage from which the database came back a second ago."""
    connection = consent(an_oauth2_secret(caller, a_client(provider, replay_policy="safe")), http)
    Connection.objects.filter(pk=connection.pk).update(**MARKS["cut off"])
    came_back(ago=1)
    monkeypatch.setattr(claim, "SPOOLS_FIRST", MINUTE)
    monkeypatch.setattr(tokens, "LONGEST_WAIT", 0.3)
    return connection


def test_a_reader_of_a_valid_token_is_served_without_a_call(caller, cut_off, provider):
    age(cut_off, expires_in=100)
    for wish in ({}, {"min_ttl": 600}, {"force_refresh": True}, {"force_refresh": True, "insists": True}):
        assert tokens.get_access_token(caller.scope, cut_off.secret_id, **wish).generation == 1
    assert provider.refreshes == 0


def test_a_reader_of_an_expired_token_hears_that_it_takes_a_while_and_nothing_is_sent(caller, cut_off, provider):
    age(cut_off, expires_in=-1)
    with pytest.raises(TokenUnavailable) as refusal:
        tokens.get_access_token(caller.scope, cut_off.secret_id)
    assert refusal.value.extra["reason"] == "provider_unavailable"
    assert provider.refreshes == 0


def test_a_reader_gets_what_the_spool_brings_meanwhile(caller, cut_off, provider, monkeypatch):
    monkeypatch.setattr(tokens, "LONGEST_WAIT", 5.0)
    age(cut_off, expires_in=-1)
    seen = tokens._look

    def stored_meanwhile(*args: Any) -> Any:
        Connection.objects.filter(pk=cut_off.pk, generation=1).update(
            generation=2,
            expires_at=Now() + timedelta(hours=1),
            lease_owner=None,
            lease_expires_at=None,
            attempt_started_at=None,
        )
        return seen(*args)

    first = seen(caller.scope, cut_off.secret_id, None)
    answers = iter([first])
    monkeypatch.setattr(tokens, "_look", lambda *args: next(answers, None) or stored_meanwhile(*args))
    assert tokens.get_access_token(caller.scope, cut_off.secret_id).generation == 2
    assert provider.refreshes == 0


def test_once_the_minute_is_over_the_reader_sends(caller, cut_off, provider, monkeypatch):
    monkeypatch.setattr(claim, "SPOOLS_FIRST", timedelta(seconds=0))
    age(cut_off, expires_in=-1)
    assert tokens.get_access_token(caller.scope, cut_off.secret_id).generation == 2
    assert provider.refreshes == 1
