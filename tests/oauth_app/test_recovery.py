"""When a provider answers again: what failed there is due at once, spread over a minute, and nothing else is."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.db.models.functions import Now

from knoxcall.clock import database_now
from oauth_app import breaker, recovery
from oauth_app.breaker import Verdict
from oauth_app.clients import callee_of
from oauth_app.fake_provider import Answer
from oauth_app.hosts import Callee, hosts
from oauth_app.models import ClientRegistration, Connection
from oauth_app.recovery import SPREAD, avoided, make_recovered_due
from oauth_app.sweep import Sweeper
from secrets_app.models import Environment
from tests.factories import Caller, a_client, age, an_oauth2_secret, consent

Status = Connection.Status
PERIOD = 0.3


@pytest.fixture(autouse=True)
def _short(monkeypatch) -> None:
    monkeypatch.setattr(breaker, "FIRST_PERIOD", PERIOD)


def callee(connection: Connection) -> Callee:
    return callee_of(ClientRegistration.objects.get(pk=connection.secret_id))


def fail(host: str) -> None:
    """Let calls of several clients at ``host`` fail, so that it is not called."""
    for number in range(breaker.FAILURES):
        hosts().report(Callee(host, uuid.UUID(int=number << 80).hex), uuid.uuid4(), Verdict.FAILED)
    assert hosts().ask(Callee(host, "somebody")) is not None


def recover(host: str) -> None:
    """The same, and it answers again."""
    fail(host)
    hosts().report(Callee(host, "somebody"), uuid.uuid4(), Verdict.ANSWERED)


def failing(connection: Connection, *, due_in: float = 800, reason: str = "provider_unavailable") -> Connection:
    Connection.objects.filter(pk=connection.pk).update(
        status=Status.REFRESH_FAILING,
        failure_reason=reason,
        failure_code="unreachable",
        failure_count=5,
        failed_at=Now(),
        refresh_due_at=Now() + timedelta(seconds=due_in),
    )
    return connection


def wait(connection: Connection) -> float:
    """Seconds until it is due."""
    row = Connection.objects.get(pk=connection.pk)
    assert row.refresh_due_at is not None
    return (row.refresh_due_at - database_now()).total_seconds()


def at_host(connection: Connection, host: str, client: str = "") -> Connection:
    ClientRegistration.objects.filter(pk=connection.secret_id).update(
        token_host=host, client_digest=client or uuid.uuid4().hex
    )
    return connection


@pytest.fixture
def make(db, provider) -> Any:
    caller = Caller()
    return lambda name: an_oauth2_secret(caller, a_client(provider), name=name)


def test_where_nothing_recovered_nothing_is_asked(db, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert make_recovered_due() == 0


def test_what_fails_at_a_host_that_answers_again_is_due_within_a_minute(make):
    here = failing(at_host(make("here"), "here.example:443"))
    elsewhere = failing(at_host(make("elsewhere"), "elsewhere.example:443"))
    recover("here.example:443")
    assert make_recovered_due() == 1
    assert -1 < wait(here) <= SPREAD
    assert wait(elsewhere) > 790
    # Once: those that fail again wait their back-off.
    failing(here)
    assert make_recovered_due() == 0


def test_they_do_not_come_back_together(make):
    first = at_host(make("many"), "here.example:443")
    failing(first)
    names = [uuid.uuid4().hex for _ in range(60)]
    environments = Environment.objects.bulk_create(
        Environment(account_id=first.account_id, mode="live", name=name, display_name=name) for name in names
    )
    Connection.objects.bulk_create(
        Connection(account_id=first.account_id, secret_id=first.secret_id, environment=environment)
        for environment in environments
    )
    rows = Connection.objects.filter(secret_id=first.secret_id)
    for row in rows:
        failing(row)
    recover("here.example:443")
    assert make_recovered_due() == 61
    waits = sorted(map(wait, rows))
    assert waits[0] < 15
    assert waits[-1] > 45
    assert waits[-1] <= SPREAD


def test_only_what_failed_for_the_provider_is_made_due(make):
    rejected = failing(at_host(make("rejected"), "here.example:443"), reason="provider_rejected")
    soon = failing(at_host(make("soon"), "here.example:443"), due_in=20)
    well = at_host(make("well"), "here.example:443")
    ended = at_host(make("ended"), "here.example:443")
    Connection.objects.filter(pk=well.pk).update(refresh_due_at=Now() + timedelta(seconds=800))
    Connection.objects.filter(pk=ended.pk).update(
        status=Status.REAUTHORIZATION_REQUIRED, failure_reason="provider_unavailable", refresh_due_at=None
    )
    recover("here.example:443")
    assert make_recovered_due() == 0
    assert wait(rejected) > 790
    assert 15 < wait(soon) <= 20
    assert wait(well) > 790
    assert Connection.objects.get(pk=ended.pk).refresh_due_at is None


def test_what_a_limit_held_up_is_due_when_its_client_may_call_again(make):
    limited = failing(at_host(make("limited"), "here.example:443", "a" * 32))
    another = failing(at_host(make("another"), "here.example:443", "b" * 32))
    hosts().report(Callee("here.example:443", "a" * 32), uuid.uuid4(), Verdict.LIMITED, retry_after=0.1)
    time.sleep(0.1)
    hosts().report(Callee("here.example:443", "a" * 32), uuid.uuid4(), Verdict.ANSWERED)
    assert make_recovered_due() == 1
    assert wait(limited) <= SPREAD
    assert wait(another) > 790


def test_a_database_that_is_away_loses_nothing_and_stops_nobody(make, monkeypatch, caplog):
    row = failing(at_host(make("here"), "here.example:443"))

    def away(*_: Any, **__: Any) -> int:
        raise OperationalError("away")

    monkeypatch.setattr(recovery, "bring_forward", away)
    recover("here.example:443")
    assert make_recovered_due() == 0
    assert wait(row) > 790
    assert "OperationalError" in caplog.text


def test_hosts_and_clients_are_told_apart():
    avoid = avoided(["h here.example:443", "c " + "a" * 32, "h there.example:443"])
    assert set(avoid.hosts) == {"here.example:443", "there.example:443"}
    assert set(avoid.clients) == {"a" * 32}
    assert not avoid.accounts
    assert not avoided([])


@pytest.mark.django_db(transaction=True)
class TestFromTheOutageToTheLastToken:
    """A provider fails for everybody, and then answers again."""

    @pytest.fixture
    def rows(self, provider, http) -> list[Connection]:
        """Expired connections of two clients, all of which have failed and wait for minutes."""
        caller = Caller()
        rows = [consent(an_oauth2_secret(caller, a_client(provider), name=f"c{n}"), http) for n in range(8)]
        ClientRegistration.objects.filter(secret__name__in=["c0", "c1", "c2", "c3"]).update(client_digest="b" * 32)
        provider.answer = Answer.busy(503)
        for row in rows:
            age(row, expires_in=-1)
            caller.get(f"/v1/secrets/{row.secret_id}/oauth2/token")
            if provider.count("refresh_token") >= breaker.FAILURES:
                break
        for row in rows:
            age(row, expires_in=-1)
            failing(row)
        assert hosts().ask(callee(rows[0])) is not None
        provider.answer = None
        time.sleep(PERIOD)
        return rows

    def test_the_sweep_that_finds_it_well_makes_the_others_due(self, rows, provider):
        Connection.objects.filter(pk=rows[0].pk).update(refresh_due_at=Now() - timedelta(seconds=1))
        sweeper = Sweeper(slots=32)
        sweeper.tick()
        sweeper.stop()
        assert Connection.objects.get(pk=rows[0].pk).status == Status.CONNECTED

        sweeper = Sweeper(slots=32)
        sweeper.tick()
        assert all(wait(row) <= SPREAD for row in rows[1:])
        Connection.objects.filter(status=Status.REFRESH_FAILING).update(refresh_due_at=Now() - timedelta(seconds=1))
        sweeper.tick()
        sweeper.stop()
        assert set(Connection.objects.values_list("status", flat=True)) == {Status.CONNECTED}

    def test_so_does_a_reader(self, rows, provider):
        caller = Caller(rows[0].account)
        Connection.objects.filter(pk=rows[0].pk).update(refresh_due_at=Now() - timedelta(seconds=1))
        assert caller.get(f"/v1/secrets/{rows[0].secret_id}/oauth2/token").status_code == 200
        assert all(wait(row) <= SPREAD for row in rows[1:])

    def test_while_it_still_fails_one_call_is_made(self, rows, provider):
        provider.answer = Answer.busy(503)
        calls = provider.count("refresh_token")
        Connection.objects.update(refresh_due_at=Now() - timedelta(seconds=1))
        sweeper = Sweeper(slots=32)
        sweeper.tick()
        sweeper.stop()
        assert provider.count("refresh_token") == calls + 1
        assert all(wait(row) > 0 for row in rows)
