"""Claiming: one winner, journal of intent, never more than asked."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from knoxcall.clock import database_now
from oauth_app import claim
from oauth_app.claim import (
    LEASE,
    Avoid,
    bring_forward,
    claim_due,
    claim_one,
    claim_these,
    hand_back_all,
    put_off,
)
from oauth_app.models import ClientRegistration, Connection
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
    hand_back_all([claimed])
    (again,) = claim_due(1)
    assert again.outcome_unknown_at is None


def test_only_the_owner_hands_a_claim_back(connection):
    make_due(connection)
    (claimed,) = claim_due(1)
    claimed.lease_owner = uuid.uuid4()
    hand_back_all([claimed])
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


# Whom a claim passes over.


@pytest.fixture
def three(db, provider) -> dict[str, Connection]:
    """Due connections of three accounts, each at a host of its own, the oldest deadline first."""
    made = {}
    for number, name in enumerate(("one", "two", "three")):
        made[name] = an_oauth2_secret(Caller(), a_client(provider), name=name)
        make_due(made[name], ago=30 - number)
        ClientRegistration.objects.filter(secret=made[name].secret_id).update(
            token_host=f"{name}.example:443", client_digest=f"{name:0>32}"
        )
    return made


def names_of(rows: list[Connection]) -> list[str]:
    return [Connection.objects.get(pk=row.pk).secret.name for row in rows]


def avoiding(three: dict[str, Connection], kind: str, *names: str) -> Avoid:
    match kind:
        case "host":
            return Avoid(hosts=[f"{name}.example:443" for name in names])
        case "client":
            return Avoid(clients=[f"{name:0>32}" for name in names])
    return Avoid(accounts=[three[name].account_id for name in names])


KINDS = pytest.mark.parametrize("kind", ["host", "client", "account"])


@KINDS
def test_a_claim_passes_over_what_it_is_to_avoid(three, kind):
    assert names_of(claim_due(10, avoiding(three, kind, "one", "three"))) == ["two"]
    assert names_of(claim_due(10)) == ["one", "three"]


@KINDS
def test_what_is_avoided_does_not_count_against_the_limit(three, kind):
    assert names_of(claim_due(2, avoiding(three, kind, "one"))) == ["two", "three"]


def test_hosts_clients_and_accounts_are_avoided_together(three):
    everything = Avoid(
        hosts={"one.example:443"}, clients=frozenset([f"{'two':0>32}"]), accounts=(three["three"].account_id,)
    )
    assert claim_due(10, everything) == []
    assert put_off(everything, seconds=10) == 3


@KINDS
def test_what_is_avoided_is_put_off_and_nothing_else(three, kind):
    assert put_off(avoiding(three, kind, "one", "two"), seconds=20, spread=10) == 2
    now = database_now()
    due = {
        name: (Connection.objects.get(pk=row.pk).refresh_due_at - now).total_seconds() for name, row in three.items()
    }
    assert 18 < due["one"] < 31
    assert 18 < due["two"] < 31
    assert due["three"] < 0
    assert put_off(avoiding(three, kind, "one", "two"), seconds=20) == 0


def test_nothing_is_put_off_where_nothing_is_avoided(three, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert put_off(Avoid(), seconds=20) == 0


def test_what_somebody_holds_and_what_is_not_due_is_not_put_off(three):
    held = claim_one(Connection.objects.get(pk=three["one"].pk))
    assert held is not None
    later = database_now() + timedelta(seconds=5)
    Connection.objects.filter(pk=three["two"].pk).update(refresh_due_at=later)
    assert put_off(avoiding(three, "host", "one", "two"), seconds=60) == 0
    assert Connection.objects.get(pk=three["one"].pk).refresh_due_at == held.refresh_due_at
    assert Connection.objects.get(pk=three["two"].pk).refresh_due_at == later


def test_no_more_is_put_off_at_once_than_the_front_of_the_queue(db, provider, monkeypatch):
    monkeypatch.setattr(claim, "FRONT", 4)
    caller = Caller()
    rows = [an_oauth2_secret(caller, a_client(provider), name=f"c{n}") for n in range(10)]
    for number, row in enumerate(rows):
        make_due(row, ago=60 - number)
    avoid = Avoid(accounts=[caller.account.pk])
    assert [put_off(avoid, seconds=30) for _ in range(4)] == [4, 4, 2, 0]


def test_the_front_is_looked_through_whoever_it_belongs_to(three, monkeypatch):
    monkeypatch.setattr(claim, "FRONT", 2)
    # The third in the queue is beyond the front: what comes before it has to be claimed first.
    assert put_off(avoiding(three, "host", "three"), seconds=30) == 0
    assert put_off(avoiding(three, "host", "two"), seconds=30) == 1
    assert put_off(avoiding(three, "host", "three"), seconds=30) == 1


def test_what_is_put_off_comes_back_at_moments_of_its_own(db, provider):
    caller = Caller()
    rows = [an_oauth2_secret(caller, a_client(provider), name=f"c{n}") for n in range(30)]
    make_due(*rows)
    assert put_off(Avoid(accounts=[caller.account.pk]), seconds=100, spread=60) == 30
    now = database_now()
    waits = sorted((row.refresh_due_at - now).total_seconds() for row in Connection.objects.all())
    assert 98 < waits[0] < 130
    assert 130 < waits[-1] < 161
    assert len(set(waits)) > 20


# Claiming by name.


def test_those_that_are_named_are_claimed_due_or_not(three):
    Connection.objects.filter(pk=three["one"].pk).update(refresh_due_at=Now() + timedelta(hours=1))
    Connection.objects.filter(pk=three["two"].pk).update(refresh_due_at=None)
    claimed = claim_these([three["one"].pk, three["two"].pk, uuid.uuid4()])
    assert sorted(names_of(claimed)) == ["one", "two"]
    assert len({row.lease_owner for row in claimed}) == 1
    assert all(row.attempt_started_at is not None for row in claimed)
    assert claim_these([three["one"].pk]) == []


def test_naming_nobody_claims_nobody(three, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert claim_these([]) == []


@pytest.mark.parametrize("status", [Connection.Status.REAUTHORIZATION_REQUIRED, Connection.Status.DISCONNECTED])
def test_what_has_ended_is_not_claimed_by_name(three, status):
    Connection.objects.update(status=status, refresh_due_at=None)
    assert claim_these([row.pk for row in three.values()]) == []


def test_a_claim_by_name_leaves_an_interrupted_attempt_unknown_too(three):
    (first,) = claim_these([three["one"].pk])
    Connection.objects.filter(pk=first.pk).update(lease_expires_at=Now() - timedelta(seconds=1))
    (second,) = claim_these([three["one"].pk])
    assert second.outcome_unknown_at == first.attempt_started_at


# Handing back.


def test_several_are_handed_back_unmarked_and_come_back_at_moments_of_their_own(db, provider):
    caller = Caller()
    rows = [an_oauth2_secret(caller, a_client(provider), name=f"c{n}") for n in range(30)]
    make_due(*rows)
    claimed = claim_due(30)
    hand_back_all(claimed[:20], seconds=40, spread=20)
    hand_back_all(claimed[20:])
    now = database_now()
    back = Connection.objects.filter(pk__in=[row.pk for row in claimed[:20]])
    waits = sorted((row.refresh_due_at - now).total_seconds() for row in back)
    assert waits[0] > 38
    assert waits[-1] < 61
    assert waits[-1] - waits[0] > 3
    assert not Connection.objects.filter(lease_owner__isnull=False).exists()
    assert not Connection.objects.filter(attempt_started_at__isnull=False).exists()
    # Those that were given back as they were are still due.
    assert {row.pk for row in claim_due(30)} == {row.pk for row in claimed[20:]}


def test_what_somebody_else_claimed_meanwhile_is_not_handed_back(three):
    stale = claim_due(3)
    Connection.objects.update(lease_expires_at=Now() - timedelta(seconds=1))
    (taken,) = claim_these([three["one"].pk])
    hand_back_all(stale, seconds=60)
    assert Connection.objects.get(pk=three["one"].pk).lease_owner == taken.lease_owner
    assert Connection.objects.filter(lease_owner=None).count() == 2


def test_rows_of_two_claims_are_not_handed_back_as_one(three):
    first, second = claim_due(1), claim_due(2)
    with pytest.raises(ValueError, match="one claim"):
        hand_back_all([*first, *second])


def test_handing_back_nothing_asks_nothing(three, django_assert_num_queries):
    with django_assert_num_queries(0):
        hand_back_all([], seconds=5)


# Bringing forward.


def failing(row: Connection, *, due_in: float = 600, reason: str = "provider_unavailable") -> None:
    Connection.objects.filter(pk=row.pk).update(
        status=Connection.Status.REFRESH_FAILING,
        failure_reason=reason,
        refresh_due_at=Now() + timedelta(seconds=due_in),
    )


@pytest.mark.parametrize("kind", ["host", "client"])
def test_what_fails_for_its_provider_is_brought_forward(three, kind):
    for row in three.values():
        failing(row)
    assert bring_forward(avoiding(three, kind, "one", "three"), spread=60) == 2
    now = database_now()
    due = {
        name: (Connection.objects.get(pk=row.pk).refresh_due_at - now).total_seconds() for name, row in three.items()
    }
    assert -2 < due["one"] < 61
    assert -2 < due["three"] < 61
    assert due["two"] > 590


def test_only_what_fails_for_its_provider_and_would_come_later_is_brought_forward(three):
    failing(three["one"], reason="provider_rejected")
    failing(three["two"], due_in=30)
    Connection.objects.filter(pk=three["three"].pk).update(refresh_due_at=Now() + timedelta(seconds=600))
    assert bring_forward(avoiding(three, "host", "one", "two", "three"), spread=60) == 0
