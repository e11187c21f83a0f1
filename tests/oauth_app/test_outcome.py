"""What is to be stored of an attempt: lifetimes from the moment of sending, and how long the refresh token itself lives."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from hypothesis import given
from hypothesis import strategies as st

from knoxcall.clock import database_now
from oauth_app import outcome as outcome_module
from oauth_app import schedule
from oauth_app.claim import claim_due
from oauth_app.clients import registrations_of
from oauth_app.fake_provider import Answer
from oauth_app.models import Connection
from oauth_app.outcome import (
    NO_REFRESH_TOKEN,
    Outcome,
    ended_outcome,
    failure_outcome,
    token_columns,
    token_outcome,
    unsent_outcome,
)
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import (
    ClientRefused,
    GrantDead,
    OutcomeUnknown,
    ProviderUnavailable,
    TokenRequestFailed,
)
from oauth_app.providers import CUSTOM, PROVIDERS, ReplayPolicy
from oauth_app.refresh import refresh
from secrets_app.crypto.cipher import Ciphertext, Place, Plaintext
from tests.factories import Caller, a_client, age, an_oauth2_secret, consent
from tests.oauth_app.outcomes import CLIENT, an_answer

Status = Connection.Status

DAY = 86_400
NOW = datetime(2026, 3, 10, 15, 30, tzinfo=UTC)


def a_row(**columns: Any) -> Connection:
    """A claimed connection of an hour-long token that is 50 minutes old."""
    return Connection(
        **{
            "id": uuid.uuid4(),
            "account_id": uuid.uuid4(),
            "secret_id": uuid.uuid4(),
            "status": Status.CONNECTED,
            "access_token": Ciphertext(b"sealed"),
            "refresh_token": Ciphertext(b"sealed"),
            "issued_at": NOW - timedelta(minutes=50),
            "expires_at": NOW + timedelta(minutes=10),
            "generation": 3,
            "rotates": True,
            "lease_owner": uuid.uuid4(),
            "attempt_started_at": NOW - timedelta(milliseconds=5),
            **columns,
        }
    )


def seal(value: Plaintext, place: Place) -> Ciphertext:
    return Ciphertext(b"sealed " + value.reveal_bytes())


def refreshed(
    row: Connection, *, client: OAuthClient = CLIENT, at: datetime = NOW, previous: str | None = "old", **answer: Any
) -> Outcome:
    return token_outcome(
        row,
        client,
        an_answer(**answer),
        sent_at=at,
        previous=None if previous is None else Plaintext(previous),
        seal=seal,
    )


def connected(*, client: OAuthClient = CLIENT, at: datetime = NOW, **answer: Any) -> dict[str, Any]:
    """The columns of a first token, by consent."""
    row = a_row(access_token=None, refresh_token=None, issued_at=None, status=Status.NOT_CONNECTED)
    return token_columns(row, client, an_answer(**answer), issued_at=at, keep_refresh_token=False, seal=seal)


def following(columns: dict[str, Any]) -> Connection:
    """The row that has ``columns``, claimed again."""
    return a_row(**columns | {"lease_owner": uuid.uuid4()})


@pytest.fixture
def client_of(monkeypatch) -> Callable[..., OAuthClient]:
    """A client of a preset that says so of its refresh tokens."""

    def make(**says: Any) -> OAuthClient:
        monkeypatch.setitem(PROVIDERS, CUSTOM, replace(PROVIDERS[CUSTOM], **says))
        return CLIENT

    return make


# A token


def test_a_lifetime_counts_from_the_moment_of_sending():
    columns = refreshed(a_row(), expires_in=3600).columns
    assert columns["issued_at"] == NOW
    assert columns["expires_at"] == NOW + timedelta(seconds=3600)
    assert NOW + timedelta(minutes=54) <= columns["refresh_due_at"] <= NOW + timedelta(minutes=55)


def test_a_token_replaces_its_generation_and_releases_the_claim():
    row = a_row(failure_count=4, failure_code="http_503", outcome_unknown_at=NOW, status=Status.REFRESH_FAILING)
    outcome = refreshed(row)
    assert outcome.is_token
    assert outcome.generation == 3
    assert outcome.columns["stored_by"] == outcome.attempt == row.lease_owner
    cleared = ("lease_owner", "lease_expires_at", "attempt_started_at", "outcome_unknown_at", "failed_at")
    assert [outcome.columns[name] for name in cleared] == [None] * 5
    assert (outcome.columns["failure_count"], outcome.columns["failure_code"]) == (0, "")
    assert outcome.columns["status"] == "connected"
    assert outcome.event is not None
    assert set(outcome.stamps) == {"refreshed_at", "status_changed_at"}


def test_a_token_of_a_healthy_connection_is_no_event():
    outcome = refreshed(a_row())
    assert outcome.event is None
    assert outcome.stamps == ("refreshed_at",)


def test_tokens_among_the_columns_are_sealed_and_an_outcome_prints_none():
    outcome = refreshed(a_row())
    assert isinstance(outcome.columns["access_token"], Ciphertext)
    assert isinstance(outcome.columns["refresh_token"], Ciphertext)
    assert "access_token-2" not in repr(outcome) + str(outcome) + repr(dict(outcome.columns))


@pytest.mark.parametrize(
    ("brought", "rotates"), [(Plaintext("new"), True), (Plaintext("old"), False), (None, False)], ids=str
)
def test_whether_a_provider_rotates_is_what_it_did_last(brought, rotates):
    assert refreshed(a_row(rotates=None), refresh_token=brought).columns["rotates"] is rotates


def test_a_grant_that_was_made_again_shows_nothing_of_rotation():
    assert "rotates" not in refreshed(a_row(refresh_token=None), previous=None, refresh_token=None).columns


def test_an_answer_without_refresh_token_keeps_the_one_that_there_is():
    assert "refresh_token" not in refreshed(a_row(), refresh_token=None).columns


def test_an_answer_without_lifetime_is_a_token_without_end():
    columns = refreshed(a_row(), expires_in=None).columns
    assert (columns["expires_at"], columns["refresh_due_at"]) == (None, None)


def test_without_means_to_renew_it_the_end_itself_is_due():
    columns = refreshed(a_row(refresh_token=None), previous=None, refresh_token=None, expires_in=3600).columns
    assert columns["refresh_due_at"] == columns["expires_at"]
    gone = ("refresh_token_expires_at", "refresh_token_rolls", "reauthorize_by")
    assert [columns[name] for name in gone] == [None] * 3


# How long the refresh token lives


def test_a_consent_tells_when_the_refresh_token_ends_and_not_whether_that_can_be_put_off():
    columns = connected(refresh_token_expires_in=90 * DAY)
    assert columns["refresh_token_expires_at"] == NOW + timedelta(days=90)
    assert columns["refresh_token_rolls"] is None
    assert columns["reauthorize_by"] is None


def test_an_end_that_a_refresh_puts_off_rolls_and_asks_for_nobody():
    row = following(connected(at=NOW, refresh_token_expires_in=90 * DAY))
    later = NOW + timedelta(minutes=55)
    columns = refreshed(row, at=later, refresh_token_expires_in=90 * DAY).columns
    assert columns["refresh_token_expires_at"] == later + timedelta(days=90)
    assert columns["refresh_token_rolls"] is True
    assert columns["reauthorize_by"] is None


def test_an_end_that_stays_where_it_is_asks_for_a_person_by_then():
    row = following(connected(at=NOW, refresh_token_expires_in=90 * DAY))
    later = NOW + timedelta(minutes=55)
    columns = refreshed(row, at=later, refresh_token_expires_in=90 * DAY - 55 * 60).columns
    assert columns["refresh_token_rolls"] is False
    assert columns["reauthorize_by"] == columns["refresh_token_expires_at"] == NOW + timedelta(days=90)


def test_a_provider_that_rounds_puts_nothing_off():
    row = following(connected(at=NOW, refresh_token_expires_in=90 * DAY))
    later = NOW + timedelta(minutes=55)
    columns = refreshed(row, at=later, refresh_token_expires_in=90 * DAY - 50 * 60).columns
    assert columns["refresh_token_rolls"] is False


def test_two_refreshes_close_to_each_other_tell_nothing_of_it():
    before = connected(at=NOW, refresh_token_expires_in=90 * DAY)
    for known in (None, True, False):
        row = following({**before, "refresh_token_rolls": known})
        columns = refreshed(row, at=NOW + timedelta(seconds=5), refresh_token_expires_in=90 * DAY).columns
        assert columns["refresh_token_rolls"] is known


def test_what_was_believed_is_corrected_by_what_is_seen():
    row = following({**connected(at=NOW, refresh_token_expires_in=30 * DAY), "refresh_token_rolls": False})
    row.reauthorize_by = row.refresh_token_expires_at
    columns = refreshed(row, at=NOW + timedelta(hours=1), refresh_token_expires_in=30 * DAY).columns
    assert columns["refresh_token_rolls"] is True
    assert columns["reauthorize_by"] is None
    assert "reauthorize_told_at" not in columns


def test_an_end_that_nobody_repeats_is_remembered():
    row = following(connected(at=NOW, refresh_token_expires_in=30 * DAY))
    columns = refreshed(row, at=NOW + timedelta(hours=1), refresh_token=None).columns
    assert columns["refresh_token_expires_at"] == NOW + timedelta(days=30)
    assert columns["reauthorize_by"] == NOW + timedelta(days=30)


def test_a_new_consent_begins_anew():
    row = following(
        {
            **connected(refresh_token_expires_in=DAY),
            "refresh_token_rolls": False,
            "reauthorize_by": NOW,
            "rotates": True,
        }
    )
    columns = token_columns(row, CLIENT, an_answer(), issued_at=NOW, keep_refresh_token=False, seal=seal)
    assert (columns["refresh_token_expires_at"], columns["refresh_token_rolls"]) == (None, None)
    assert (columns["reauthorize_by"], columns["reauthorize_told_at"]) == (None, None)


def test_a_lifetime_of_the_preset_counts_from_the_consent_whatever_is_refreshed(client_of):
    client = client_of(refresh_token_lifetime=365 * DAY)
    columns = connected(client=client, at=NOW)
    assert columns["reauthorize_by"] == NOW + timedelta(days=365)
    for month in range(1, 6):
        row = following(columns)
        columns = dict(refreshed(row, client=client, at=NOW + timedelta(days=30 * month)).columns)
        assert columns["refresh_token_rolls"] is False
        assert columns["reauthorize_by"] == NOW + timedelta(days=365)


def test_what_the_provider_states_counts_before_the_preset(client_of):
    client = client_of(refresh_token_lifetime=365 * DAY)
    columns = connected(client=client, refresh_token_expires_in=10 * DAY)
    assert columns["refresh_token_expires_at"] == NOW + timedelta(days=10)


def test_whether_an_end_was_told_is_for_the_history_to_know(client_of):
    row = following({**connected(refresh_token_expires_in=30 * DAY), "refresh_token_rolls": False})
    row.reauthorize_by = row.refresh_token_expires_at
    later = NOW + timedelta(hours=2)
    told = refreshed(row, at=later, refresh_token_expires_in=30 * DAY - 7200 + 60).columns
    assert "reauthorize_told_at" not in told
    moved = refreshed(row, at=later, refresh_token_expires_in=20 * DAY).columns
    assert moved["reauthorize_by"] == later + timedelta(days=20)


# Kept alive


def test_a_token_without_end_is_refreshed_before_its_refresh_token_dies_of_not_being_used(client_of):
    client = client_of(refresh_token_idle=60 * DAY)
    columns = connected(client=client, expires_in=None)
    assert columns["expires_at"] is None
    assert NOW + timedelta(days=42) <= columns["refresh_due_at"] <= NOW + timedelta(days=45)
    assert columns["reauthorize_by"] is None


def test_so_it_is_where_the_provider_states_an_end_that_may_roll():
    columns = connected(expires_in=None, refresh_token_expires_in=100 * DAY)
    assert NOW + timedelta(days=70) <= columns["refresh_due_at"] <= NOW + timedelta(days=75)


def test_an_end_that_no_refresh_puts_off_is_no_reason_to_refresh():
    row = following({**connected(expires_in=None, refresh_token_expires_in=100 * DAY), "expires_at": None})
    columns = refreshed(row, at=NOW + timedelta(days=70), expires_in=None, refresh_token_expires_in=30 * DAY).columns
    assert columns["refresh_token_rolls"] is False
    assert columns["refresh_due_at"] is None
    assert columns["reauthorize_by"] == NOW + timedelta(days=100)


def test_a_token_that_is_due_before_that_is_refreshed_when_it_is_due(client_of):
    client = client_of(refresh_token_idle=60 * DAY)
    assert connected(client=client, expires_in=3600)["refresh_due_at"] < NOW + timedelta(hours=1)


def test_a_long_token_is_refreshed_before_a_short_refresh_token_dies(client_of):
    client = client_of(refresh_token_idle=DAY)
    assert connected(client=client, expires_in=30 * DAY)["refresh_due_at"] <= NOW + timedelta(hours=18)


def test_an_end_that_is_over_does_not_ask_for_one_refresh_after_the_other():
    """The provider stated it once, did not mean it, and every refresh would be due at once."""
    row = following({**connected(refresh_token_expires_in=DAY, expires_in=None), "expires_at": None})
    row.issued_at = NOW + timedelta(days=2) - timedelta(seconds=5)
    columns = refreshed(row, at=NOW + timedelta(days=2), expires_in=None, refresh_token=None).columns
    assert columns["refresh_token_rolls"] is None
    assert columns["refresh_due_at"] is None


@given(
    stated=st.lists(st.none() | st.integers(1, 10 * 365 * DAY), min_size=1, max_size=6),
    lifetimes=st.lists(st.none() | st.integers(1, 365 * DAY), min_size=1, max_size=6),
    steps=st.lists(st.integers(0, 40 * DAY), min_size=6, max_size=6),
)
def test_whatever_a_provider_states_no_refresh_is_due_when_it_was_just_made(stated, lifetimes, steps):
    moment = NOW
    columns = connected(expires_in=lifetimes[0], refresh_token_expires_in=stated[0])
    for number in range(1, 6):
        moment += timedelta(seconds=steps[number])
        columns = dict(
            refreshed(
                following(columns),
                at=moment,
                expires_in=lifetimes[number % len(lifetimes)],
                refresh_token_expires_in=stated[number % len(stated)],
            ).columns
        )
        due, expires_at = columns["refresh_due_at"], columns["expires_at"]
        assert due is None or due > moment
        assert due is not None or expires_at is None
        assert columns["reauthorize_by"] is None or columns["refresh_token_rolls"] is False


# A failure


def failed(row: Connection, failure: TokenRequestFailed, *, client: OAuthClient | None = CLIENT) -> Outcome:
    return failure_outcome(row, client, failure, now=NOW)


UNAVAILABLE = ProviderUnavailable("http_503", "The provider answered with status 503.")
NO_ANSWER = OutcomeUnknown("no_answer", "No answer.")


def test_a_failure_leaves_both_tokens_and_releases_the_claim():
    outcome = failed(a_row(failure_count=2), UNAVAILABLE)
    assert not outcome.is_token
    assert not {"access_token", "refresh_token", "expires_at", "issued_at"} & set(outcome.columns)
    assert (outcome.columns["status"], outcome.columns["failure_count"]) == ("refresh_failing", 3)
    assert [outcome.columns[name] for name in ("lease_owner", "attempt_started_at", "outcome_unknown_at")] == [None] * 3
    assert NOW < outcome.columns["refresh_due_at"] <= NOW + timedelta(seconds=60)
    assert set(outcome.stamps) == {"failed_at", "status_changed_at"}


def test_another_failure_is_no_event():
    outcome = failed(a_row(status=Status.REFRESH_FAILING, failure_count=2), UNAVAILABLE)
    assert outcome.event is None
    assert outcome.stamps == ("failed_at",)


def test_a_failure_of_which_the_provider_knows_leaves_unknown_what_was_unknown_before():
    since = NOW - timedelta(hours=1)
    assert failed(a_row(outcome_unknown_at=since), UNAVAILABLE).columns["outcome_unknown_at"] == since


def test_while_refreshes_fail_the_refresh_token_is_not_used_and_its_end_comes_near(client_of):
    client = client_of(refresh_token_idle=60 * DAY)
    row = a_row()
    assert failed(row, UNAVAILABLE, client=client).columns["reauthorize_by"] == row.issued_at + timedelta(days=60)
    stated = a_row(refresh_token_expires_at=NOW + timedelta(days=3), refresh_token_rolls=True)
    assert failed(stated, UNAVAILABLE, client=client).columns["reauthorize_by"] == NOW + timedelta(days=3)


def test_a_refresh_that_goes_well_again_puts_that_off(client_of):
    client = client_of(refresh_token_idle=60 * DAY)
    row = a_row(reauthorize_by=NOW + timedelta(days=5), reauthorize_told_at=NOW, status=Status.REFRESH_FAILING)
    columns = refreshed(row, client=client).columns
    assert columns["reauthorize_by"] is None
    assert "reauthorize_told_at" not in columns


def test_nothing_is_foretold_without_limits_or_without_refresh_token(client_of):
    assert failed(a_row(), UNAVAILABLE).columns["reauthorize_by"] is None
    client = client_of(refresh_token_idle=60 * DAY)
    assert "reauthorize_by" not in failed(a_row(refresh_token=None), UNAVAILABLE, client=client).columns


def test_a_client_that_does_not_open_is_a_failure_like_others():
    outcome = failed(a_row(), outcome_module.SEAL_BROKEN, client=None)
    assert outcome.columns["status"] == "refresh_failing"
    assert outcome.columns["outcome_unknown_at"] is None


def test_a_dead_grant_ends_and_forgets_the_refresh_token_alone():
    outcome = failed(a_row(reauthorize_by=NOW), GrantDead("invalid_grant", "Dead."))
    ended = ("refresh_token", "refresh_due_at", "outcome_unknown_at", "reauthorize_by")
    assert [outcome.columns[name] for name in ended] == [None] * 4
    assert "access_token" not in outcome.columns
    assert outcome.columns["status"] == "reauthorization_required"
    assert outcome.event is not None


def test_a_refused_client_waits_a_day():
    due = failed(a_row(), ClientRefused("invalid_client", "Refused.")).columns["refresh_due_at"]
    assert NOW + timedelta(hours=24) <= due <= NOW + timedelta(hours=27)


@pytest.mark.parametrize("policy", list(ReplayPolicy))
@pytest.mark.parametrize("is_valid", [True, False])
@pytest.mark.parametrize("rotates", [True, False])
def test_an_answer_that_did_not_come_waits_as_its_policy_says(policy, is_valid, rotates):
    row = a_row(rotates=rotates, expires_at=NOW + timedelta(minutes=10 if is_valid else -1))
    columns = failed(row, NO_ANSWER, client=replace(CLIENT, replay_policy=policy)).columns
    assert columns["outcome_unknown_at"] == row.attempt_started_at
    may_replay = policy is ReplayPolicy.SAFE or not rotates
    if not may_replay and policy is ReplayPolicy.NEVER and not is_valid:
        assert (columns["status"], columns["failure_code"]) == ("reauthorization_required", "refresh_outcome_unknown")
        return
    assert columns["status"] == "refresh_failing"
    if may_replay or not is_valid:
        assert NOW < columns["refresh_due_at"] <= NOW + schedule.LONGEST_BACKOFF
    else:
        assert columns["refresh_due_at"] == row.expires_at


def test_the_first_moment_since_when_it_is_unknown_is_kept():
    since = NOW - timedelta(hours=1)
    assert failed(a_row(outcome_unknown_at=since), NO_ANSWER).columns["outcome_unknown_at"] == since


def test_an_answer_that_did_not_come_to_a_repeatable_grant_uses_nothing_up():
    columns = failed(
        a_row(refresh_token=None), NO_ANSWER, client=replace(CLIENT, grant_type="client_credentials")
    ).columns
    assert columns["outcome_unknown_at"] is None


def test_long_words_fit_their_columns():
    columns = failed(a_row(), ProviderUnavailable("x" * 300, "y" * 3000)).columns
    for name in ("failure_code", "failure_message", "failure_reason"):
        assert len(columns[name]) <= Connection._meta.get_field(name).max_length


def test_an_attempt_of_which_nothing_was_sent_changes_the_claim_alone():
    row = a_row(status=Status.REFRESH_FAILING, failure_count=2)
    outcome = unsent_outcome(row)
    assert set(outcome.columns) == {"status", "lease_owner", "lease_expires_at", "attempt_started_at"}
    assert (outcome.columns["status"], outcome.event, outcome.stamps, outcome.line) == ("refresh_failing", None, (), "")


def test_an_end_without_a_client_is_an_end():
    assert ended_outcome(a_row(), None, NO_REFRESH_TOKEN).columns["failure_code"] == "no_refresh_token"


# Of a refresh, from end to end


def run(connection: Connection) -> Connection:
    """Claim and refresh it, as a worker does; returns the row as it is then."""
    Connection.objects.filter(pk=connection.pk).update(refresh_due_at=Now())
    (claimed,) = claim_due(1)
    refresh(claimed, registrations_of([claimed.secret_id])[claimed.secret_id])
    return Connection.objects.get(pk=connection.pk)


def test_the_moment_of_sending_is_the_databases(db, provider, http):
    """However long the answer takes, and whatever this machine's clock says."""
    connection = age(consent(an_oauth2_secret(Caller(), a_client(provider)), http), expires_in=600)
    before = database_now()
    provider.delay = 0.4
    after = run(connection)
    assert before <= after.issued_at <= before + timedelta(seconds=0.35)
    assert after.expires_at - after.issued_at == timedelta(seconds=3600)
    assert after.refreshed_at - after.issued_at >= timedelta(seconds=0.35)


def test_a_provider_whose_refresh_tokens_end_at_a_fixed_time_is_seen_through(db, provider, http):
    provider.refresh_token_expires_in = 30 * DAY
    connection = consent(an_oauth2_secret(Caller(), a_client(provider)), http)
    assert connection.refresh_token_expires_at == connection.issued_at + timedelta(days=30)
    assert connection.reauthorize_by is None
    Connection.objects.update(issued_at=Now() - timedelta(days=1), refresh_token_expires_at=Now() + timedelta(days=29))
    provider.refresh_token_expires_in = 29 * DAY
    after = run(connection)
    assert after.refresh_token_rolls is False
    assert after.reauthorize_by == after.refresh_token_expires_at == after.issued_at + timedelta(days=29)


def test_a_provider_that_prolongs_its_refresh_tokens_is_seen_through(db, provider, http):
    provider.refresh_token_expires_in = 30 * DAY
    connection = consent(an_oauth2_secret(Caller(), a_client(provider)), http)
    Connection.objects.update(issued_at=Now() - timedelta(days=1), refresh_token_expires_at=Now() + timedelta(days=29))
    after = run(connection)
    assert after.refresh_token_rolls is True
    assert after.reauthorize_by is None
    provider.next(Answer.busy(503))
    failing = run(connection)
    assert failing.reauthorize_by == after.refresh_token_expires_at
    assert run(connection).reauthorize_by is None
