"""Claiming: one winner, journal of intent, never more than asked."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from oauth_app.claim import LEASE, claim_due, claim_one, hand_back
from oauth_app.models import Connection
from tests.factories import Caller, a_client, an_oauth2_secret
from tests.support.crowd import all_at_once


@pytest.fixture
def connection(db, provider) -> Connection:
    return an_oauth2_secret(Caller(), a_client(provider))


def make_due(*rows: Connection, ago: float = 1.0) -> None:
    Connection.objects.filter(pk__in=[row.pk for row in rows]).update(refresh_due_at=Now() - timedelta(seconds=ago))


def test_a_due_connection_is_claimed_once(connection):
    make_due(connection)
    (claimed,) = claim_due(10)
    assert claimed.pk == connection.pk
    assert claimed.lease_owner is not None
    assert claimed.attempt_started_at is not None
    assert claimed.outcome_unknown_at is None
    assert claimed.lease_expires_at - claimed.attempt_started_at == pytest.approx(LEASE, abs=timedelta(seconds=0.1))
    assert claim_due(10) == []
    assert claim_one(connection) is None


def test_nothing_is_claimed_before_it_is_due(connection):
    Connection.objects.update(refresh_due_at=Now() + timedelta(seconds=5))
    assert claim_due(10) == []


def test_a_claim_is_never_larger_than_asked_and_takes_the_oldest_deadlines(db, provider):
    caller = Caller()
    rows = [an_oauth2_secret(caller, a_client(provider), name=f"c{n}") for n in range(7)]
    for n, row in enumerate(rows):
        make_due(row, ago=10 + n)
    assert [row.pk for row in claim_due(3)] == [rows[6].pk, rows[5].pk, rows[4].pk]
    assert len(claim_due(10)) == 4


def test_a_reader_claims_only_what_it_saw(connection):
    for change in ({"generation": 1}, {"failure_count": 1}, {"status": "disconnected"}):
        Connection.objects.update(**change)
        assert claim_one(connection) is None
        Connection.objects.update(generation=0, failure_count=0, status="not_connected")
    assert claim_one(connection) is not None


def test_a_lease_that_ran_out_with_its_mark_set_leaves_the_outcome_unknown(connection):
    make_due(connection)
    (first,) = claim_due(1)
    Connection.objects.update(lease_expires_at=Now() - timedelta(seconds=1))
    (second,) = claim_due(1)
    assert second.outcome_unknown_at == first.attempt_started_at
    assert second.lease_owner != first.lease_owner
    # A third one keeps the first moment: since then nobody knows.
    Connection.objects.update(lease_expires_at=Now() - timedelta(seconds=1))
    (third,) = claim_due(1)
    assert third.outcome_unknown_at == first.attempt_started_at


def test_a_claim_that_was_handed_back_leaves_nothing_unknown(connection):
    make_due(connection)
    (claimed,) = claim_due(1)
    hand_back(claimed)
    (again,) = claim_due(1)
    assert again.outcome_unknown_at is None


def test_only_the_owner_hands_a_claim_back(connection):
    make_due(connection)
    (claimed,) = claim_due(1)
    claimed.lease_owner = uuid.uuid4()
    hand_back(claimed)
    connection.refresh_from_db()
    assert connection.lease_owner is not None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("how", ["reader", "sweep"])
def test_sixteen_at_once_have_one_winner(provider, how):
    connection = an_oauth2_secret(Caller(), a_client(provider))
    make_due(connection)

    def race() -> list[Connection | None]:
        return list(claim_due(5)) if how == "sweep" else [claim_one(connection)]

    won = [row for rows in all_at_once(*[race] * 16) for row in rows if row is not None]
    assert len(won) == 1


@pytest.mark.django_db(transaction=True)
def test_workers_that_claim_at_once_share_the_due_rows_without_overlap(provider):
    caller = Caller()
    rows = [an_oauth2_secret(caller, a_client(provider), name=f"c{n}") for n in range(24)]
    make_due(*rows)

    def work() -> list[uuid.UUID]:
        claims: list[uuid.UUID] = []
        while claimed := claim_due(2):
            claims += [row.pk for row in claimed]
        return claims

    claims = [pk for part in all_at_once(*[work] * 8) for pk in part]
    assert sorted(claims) == sorted(row.pk for row in rows)
