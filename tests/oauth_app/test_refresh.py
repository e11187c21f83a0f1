"""Refreshing: what is stored after each kind of answer, what is decided after a crash, and that nothing is lost."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import OperationalError
from django.db.models.functions import Now

from oauth_app import refresh as refresh_module
from oauth_app import storing
from oauth_app.applying import apply
from oauth_app.claim import claim_due, claim_one
from oauth_app.clients import registrations_of
from oauth_app.fake_provider import Answer, Drop, RefreshTokens
from oauth_app.models import Connection, ConnectionEvent
from oauth_app.refresh import refresh
from secrets_app import data_keys
from secrets_app.crypto.cipher import Ciphertext
from tests.factories import Caller, a_client, age, an_oauth2_secret, consent
from tests.oauth_app.outcomes import between

Status = Connection.Status


@pytest.fixture
def client(provider):
    return a_client(provider)


@pytest.fixture
def connected(db, client, http) -> Connection:
    """A connection by authorization code, due, with a refresh token that the provider knows."""
    return age(consent(an_oauth2_secret(Caller(), client), http), expires_in=600)


@pytest.fixture
def connected_as(db, provider, http):
    """Make such a connection of a client that differs."""

    def make(**further) -> Connection:
        return age(consent(an_oauth2_secret(Caller(), a_client(provider, **further)), http), expires_in=600)

    return make


@pytest.fixture
def by_password(db, provider) -> Connection:
    """A connection by password, which may be repeated, with a refresh token."""
    connection = an_oauth2_secret(Caller(), a_client(provider, grant_type="password"))
    return age(connection, expires_in=600)


def run(connection: Connection) -> Connection:
    """Claim and refresh it, as a worker does; returns the row as it is then."""
    (claimed,) = claim_due(5)
    refresh(claimed, registrations_of([claimed.secret_id])[claimed.secret_id])
    return Connection.objects.get(pk=connection.pk)


def crash(connection: Connection) -> None:
    """Leave the connection as a worker does that died while its request was on the wire."""
    assert claim_one(connection)
    Connection.objects.update(lease_expires_at=Now() - timedelta(seconds=1))


def revealed(sealed) -> str:
    return sealed.open().reveal()


def test_a_refresh_stores_both_tokens_and_the_next_generation(connected, provider):
    after = run(connected)
    assert provider.is_live(revealed(after.access_token))
    assert revealed(after.refresh_token) != revealed(connected.refresh_token)
    assert after.generation == 2
    assert after.status == Status.CONNECTED
    assert after.rotates is True
    assert after.lease_owner is None
    assert after.attempt_started_at is None
    assert after.refresh_due_at < after.expires_at
    assert provider.refreshes == 1


def test_an_answer_without_refresh_token_keeps_the_one_we_have(connected, provider):
    provider.refresh_tokens = RefreshTokens.KEPT
    after = run(connected)
    assert revealed(after.refresh_token) == revealed(connected.refresh_token)
    assert after.rotates is False


def test_a_lifetime_counts_from_before_the_request_was_sent(connected, provider):
    provider.delay = 0.3
    after = run(connected)
    assert after.expires_at == after.issued_at + timedelta(seconds=3600)
    assert after.refreshed_at - after.issued_at >= timedelta(seconds=0.3)


def test_five_generations_in_a_row_under_strict_rotation(connected, provider):
    for generation in range(2, 7):
        Connection.objects.update(refresh_due_at=Now())
        assert run(connected).generation == generation
    assert provider.reuses == 0


def test_a_dead_grant_stops_at_once_and_keeps_the_valid_token(connected, provider):
    provider.revoke_grants()
    after = run(connected)
    assert after.status == Status.REAUTHORIZATION_REQUIRED
    assert after.refresh_due_at is None
    assert after.refresh_token is None
    assert after.access_token is not None
    assert after.failure_code == "invalid_grant"
    assert claim_due(5) == []


def test_a_refused_client_is_tried_again_in_a_day(connected, provider):
    provider.next(Answer.error("invalid_client", status=401))
    after = run(connected)
    assert after.status == Status.REFRESH_FAILING
    assert after.failure_reason == "provider_rejected"
    assert after.refresh_due_at - after.failed_at > timedelta(hours=23)
    assert after.refresh_token is not None


@pytest.mark.parametrize("answer", [Answer.busy(503, retry_after=300), Answer.busy(429, retry_after=300)])
def test_retry_after_is_honoured(connected, provider, answer):
    provider.next(answer)
    after = run(connected)
    assert after.status == Status.REFRESH_FAILING
    assert after.failure_reason == "provider_unavailable"
    assert after.refresh_due_at - after.failed_at >= timedelta(seconds=299)
    assert after.outcome_unknown_at is None


def test_a_success_after_failures_clears_them(connected, provider):
    provider.next(Answer.busy(503, retry_after=1))
    assert run(connected).failure_count == 1
    Connection.objects.update(refresh_due_at=Now())
    after = run(connected)
    assert (after.status, after.failure_count, after.failure_code, after.failed_at) == (Status.CONNECTED, 0, "", None)


@pytest.mark.parametrize(
    "answer",
    [
        Answer.html(502),
        Answer.empty(200),
        Answer.dropped(Drop.MID_ANSWER, takes_effect=True),
        Answer.dropped(Drop.CLOSED, takes_effect=True),
    ],
)
def test_a_sent_request_without_readable_answer_leaves_the_outcome_unknown(connected, provider, answer):
    provider.next(answer)
    after = run(connected)
    assert after.outcome_unknown_at is not None
    assert after.status == Status.REFRESH_FAILING
    # One try: the valid token is served to its end before the refresh token is sent again.
    assert after.refresh_due_at == after.expires_at
    assert after.refresh_token is not None


def test_an_unreachable_provider_leaves_nothing_unknown(connected, provider):
    provider.stop()
    after = run(connected)
    assert after.failure_code == "unreachable"
    assert after.outcome_unknown_at is None
    assert after.refresh_due_at - after.failed_at <= timedelta(seconds=16)


def test_one_try_serves_to_the_end_and_then_replays_once(connected, provider):
    crash(connected)
    waiting = run(connected)
    assert provider.refreshes == 0
    assert waiting.refresh_due_at == waiting.expires_at
    assert waiting.outcome_unknown_at is not None
    assert waiting.status == Status.CONNECTED
    age(connected, expires_in=-1)
    after = run(connected)
    assert after.generation == 2
    assert after.outcome_unknown_at is None


def test_safe_replays_at_once(connected_as):
    connection = connected_as(replay_policy="safe")
    crash(connection)
    assert run(connection).generation == 2


def test_a_provider_that_does_not_rotate_is_replayed_at_once(connected_as):
    connection = connected_as(replay_policy="never")
    Connection.objects.update(rotates=False)
    crash(connection)
    assert run(connection).generation == 2


def test_never_serves_to_the_end_and_then_asks_a_person(connected_as, provider):
    connection = connected_as(replay_policy="never")
    crash(connection)
    assert run(connection).refresh_due_at is not None
    age(connection, expires_in=-1)
    after = run(connection)
    assert after.status == Status.REAUTHORIZATION_REQUIRED
    assert after.failure_code == "refresh_outcome_unknown"
    assert provider.refreshes == 0


def test_a_repeatable_grant_is_repeated_instead_of_replayed(by_password, provider):
    crash(by_password)
    after = run(by_password)
    assert after.status == Status.CONNECTED
    assert provider.count("password") == 2
    assert provider.refreshes == 0


def test_a_repeatable_grant_whose_refresh_token_died_is_repeated_once(by_password, provider):
    provider.next(Answer.error("invalid_grant"), grant_type="refresh_token")
    after = run(by_password)
    assert after.status == Status.CONNECTED
    assert provider.count("password") == 2


def test_an_expired_token_that_nothing_can_renew_asks_a_person(connected, provider):
    Connection.objects.update(refresh_token=None)
    age(connected, expires_in=-1)
    after = run(connected)
    assert after.status == Status.REAUTHORIZATION_REQUIRED
    assert after.failure_code == "no_refresh_token"


def test_a_token_that_nothing_can_renew_is_left_alone_until_its_end(connected, provider):
    Connection.objects.update(refresh_token=None)
    age(connected, expires_in=600)
    after = run(connected)
    assert after.status == Status.CONNECTED
    assert after.refresh_due_at == after.expires_at


def test_events_are_written_on_a_change_of_state_only(connected, provider):
    ConnectionEvent.objects.all().delete()
    for answer in (Answer.busy(503, retry_after=1), Answer.busy(503, retry_after=1), None, None):
        if answer:
            provider.next(answer)
        Connection.objects.update(refresh_due_at=Now() - timedelta(seconds=1))
        run(connected)
    changes = list(ConnectionEvent.objects.order_by("id").values_list("previous_status", "status"))
    assert changes == [("connected", "refresh_failing"), ("refresh_failing", "connected")]


def test_a_store_that_was_overtaken_changes_nothing(connected, provider, client):
    (claimed,) = claim_due(1)
    Connection.objects.update(generation=5, stored_by=None)
    refresh(claimed, registrations_of([claimed.secret_id])[claimed.secret_id])
    after = Connection.objects.get()
    assert after.generation == 5
    assert revealed(after.access_token) == revealed(connected.access_token)


def test_a_failure_that_was_overtaken_changes_nothing(connected, provider):
    (claimed,) = claim_due(1)
    Connection.objects.update(generation=5, lease_owner=None, lease_expires_at=None)
    provider.revoke_grants()
    refresh(claimed, registrations_of([claimed.secret_id])[claimed.secret_id])
    after = Connection.objects.get()
    assert after.status == Status.CONNECTED
    assert after.refresh_token is not None


def test_a_connection_deleted_during_the_call_stays_deleted(connected, provider):
    (claimed,) = claim_due(1)
    registration = registrations_of([claimed.secret_id])[claimed.secret_id]
    connected.secret.delete()
    refresh(claimed, registration)
    assert not Connection.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_for_a_moment_loses_no_rotated_token(connected, provider, monkeypatch):
    failures = iter([OperationalError("away"), OperationalError("away")])

    def flaky(outcomes):
        for failure in failures:
            raise failure
        return apply(outcomes)

    monkeypatch.setattr(storing, "apply", flaky)
    after = run(connected)
    assert after.generation == 2
    assert provider.is_live(revealed(after.access_token))
    assert provider.refreshes == 1


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_for_longer_loses_no_rotated_token_either(connected, provider, monkeypatch):
    database = between(monkeypatch)
    monkeypatch.setattr(storing, "PATIENCE", 0.2)
    database.go()
    with pytest.raises(OperationalError):
        run(connected)
    database.come_back()
    assert storing.storer().flush(5)
    after = Connection.objects.get()
    assert after.generation == 2
    assert provider.is_live(revealed(after.access_token))
    Connection.objects.update(refresh_due_at=Now())
    assert run(connected).generation == 3
    assert provider.reuses == 0


@pytest.mark.django_db(transaction=True)
def test_a_store_whose_acknowledgement_was_lost_counts_as_stored(connected, provider, monkeypatch, caplog):
    lost = iter([OperationalError("connection lost after the commit")])

    def stored_but_not_told(outcomes):
        stored = apply(outcomes)
        for failure in lost:
            raise failure
        return stored

    monkeypatch.setattr(storing, "apply", stored_but_not_told)
    after = run(connected)
    assert after.generation == 2
    assert "not needed" not in caplog.text


def test_nothing_is_sent_while_the_database_cannot_reserve_what_the_answer_needs(connected, provider, monkeypatch):
    """Whoever cannot seal an answer must not ask for one: it would have nowhere to go."""

    def away(*args):
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(data_keys, "reserve", away)
        after = run(connected)
    assert provider.count("refresh_token") == 0
    assert (after.generation, after.lease_owner, after.attempt_started_at, after.outcome_unknown_at) == (1,) + (
        None,
    ) * 3
    assert run(connected).generation == 2


def test_a_claim_that_grew_old_before_it_was_sent_is_given_back(connected, provider):
    (claimed,) = claim_due(1)
    claimed.asked_at -= 20
    refresh(claimed, registrations_of([claimed.secret_id])[claimed.secret_id])
    after = Connection.objects.get()
    assert provider.count("refresh_token") == 0
    assert (after.lease_owner, after.attempt_started_at, after.outcome_unknown_at) == (None, None, None)


def test_an_answer_that_we_cannot_make_a_token_of_leaves_the_outcome_unknown(connected, provider, monkeypatch, caplog):
    """A fault of ours: the provider has answered, and the refresh token may be used up."""

    def faulty(*args, **kwargs):
        raise KeyError("a fault of ours")

    monkeypatch.setattr(refresh_module, "token_outcome", faulty)
    after = run(connected)
    assert (after.status, after.failure_code) == (Status.REFRESH_FAILING, "not_stored")
    assert after.outcome_unknown_at is not None
    assert after.lease_owner is None
    assert after.refresh_due_at == after.expires_at


def test_a_connection_that_does_not_open_waits_its_back_off(connected, provider):
    Connection.objects.update(refresh_token=Ciphertext(b"garbage"))
    after = run(connected)
    assert (after.status, after.failure_code) == (Status.REFRESH_FAILING, "seal_broken")
    assert after.lease_owner is None
    assert after.refresh_due_at > after.failed_at
    assert provider.count("refresh_token") == 0


@pytest.mark.django_db(transaction=True)
def test_one_refresh_is_one_write(provider, http, django_assert_num_queries):
    connection = age(consent(an_oauth2_secret(Caller(), a_client(provider)), http), expires_in=600)
    (claimed,) = claim_due(1)
    registration = registrations_of([claimed.secret_id])[claimed.secret_id]
    connection.refresh_token.open()  # the key is in the process
    with django_assert_num_queries(1):
        refresh(claimed, registration)


def test_tokens_are_neither_in_the_log_nor_in_what_is_stored_of_a_failure(connected, provider, caplog):
    caplog.set_level("DEBUG")
    provider.next(Answer.json({"error": "fake-refresh-leak", "error_description": "fake-refresh-leak"}, status=400))
    after = run(connected)
    Connection.objects.update(refresh_due_at=Now())
    run(connected)
    assert "fake-refresh" not in after.failure_code + after.failure_message
    assert "fake-refresh" not in caplog.text
    assert "fake-access" not in caplog.text
