"""Shares of the call slots: nobody's burst, and no host's outage, delays anybody else's refreshes."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection as database
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext

from knoxcall.clock import database_now
from oauth_app import breaker, queueing
from oauth_app import hosts as hosts_module
from oauth_app import sweep as sweep_module
from oauth_app.breaker import Verdict
from oauth_app.clients import callee_of
from oauth_app.fake_provider import Answer, FakeProvider
from oauth_app.hosts import Callee, Hosts, hosts
from oauth_app.models import ClientRegistration, Connection
from oauth_app.queueing import FIRST_DELAY, LONGEST_DELAY, SPREAD_AFTER_TROUBLE, Queueing
from oauth_app.sweep import Sweeper
from secrets_app.models import Environment
from tests.factories import Caller, a_client, an_oauth2_secret
from tests.support.services import valkey

pytestmark = pytest.mark.django_db(transaction=True)

MANY, FEW = 2_000, 50
ACCOUNTS = 5
SLOTS = 64
SHARE = SLOTS // 4


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    with valkey() as url:
        yield url


@pytest.fixture
def other() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.fixture
def sweeper(monkeypatch) -> Iterator[Sweeper]:
    # A tick goes on while somebody is passed over.
    monkeypatch.setattr(sweep_module, "LONGEST_TICK", 2.0)
    made = Sweeper(slots=SLOTS)
    yield made
    made.stop()


def host_of(provider: FakeProvider) -> str:
    return urlsplit(provider.token_url).netloc


def due(
    provider: FakeProvider, number: int, *, caller: Caller | None = None, ago: float, **client: Any
) -> QuerySet[Connection]:
    """So many due connections of one secret, which needs nobody's consent, in as many environments."""
    caller = caller or Caller()
    client = {"grant_type": "client_credentials", **client}
    first = an_oauth2_secret(caller, a_client(provider, **client), name=f"secret-{uuid.uuid4().hex[:8]}")
    names = [uuid.uuid4().hex for _ in range(number)]
    environments = Environment.objects.bulk_create(
        Environment(account=caller.account, mode="live", name=name, display_name=name) for name in names
    )
    since = database_now() - timedelta(seconds=ago)
    Connection.objects.bulk_create(
        Connection(account=caller.account, secret_id=first.secret_id, environment=environment, refresh_due_at=since)
        for environment in environments
    )
    return Connection.objects.filter(secret_id=first.secret_id).exclude(pk=first.pk)


def due_of_several(provider: FakeProvider) -> QuerySet[Connection]:
    """A few due connections, of several accounts."""
    secrets = [due(provider, FEW // ACCOUNTS, ago=10).first().secret_id for _ in range(ACCOUNTS)]
    return Connection.objects.filter(secret_id__in=secrets, environment__is_default=False)


def open_breaker(host: str) -> None:
    for number in range(breaker.FAILURES):
        hosts().report(Callee(host, uuid.UUID(int=number << 80).hex), uuid.uuid4(), Verdict.FAILED)


def wait_until(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def tick_until(sweeper: Sweeper, condition: Callable[[], Any], *, ticks: int) -> None:
    """Sweep once a second, as beat does, until ``condition`` holds: after so many ticks at most."""
    for _ in range(ticks):
        sweeper.tick()
        ends_at = time.monotonic() + 1
        while time.monotonic() < ends_at:
            if condition():
                return
            time.sleep(0.02)
    raise AssertionError("it did not come about")


def are_all_refreshed(rows: QuerySet[Connection]) -> bool:
    return not rows.filter(generation=0).exists()


def waits(rows: QuerySet[Connection]) -> list[float]:
    """How long each is not due yet, in seconds."""
    now = database_now()
    return sorted((moment - now).total_seconds() for moment in rows.values_list("refresh_due_at", flat=True))


# A host that does not answer.


def test_the_due_rows_of_a_host_that_is_not_called_delay_nobody(sweeper, provider, other):
    blocked, served = due(provider, MANY, ago=600), due_of_several(other)
    open_breaker(host_of(provider))
    calls = len(provider.requests)

    tick_until(sweeper, lambda: are_all_refreshed(served), ticks=3)

    assert len(provider.requests) == calls
    # They have left the front of the queue, as they were, and come back when the host may be called again.
    assert not blocked.exclude(lease_owner=None, attempt_started_at=None).exists()
    first, *_, last = waits(blocked)
    assert first > 0.8 * breaker.FIRST_PERIOD - 5
    assert last < breaker.FIRST_PERIOD + SPREAD_AFTER_TROUBLE
    assert last - first > SPREAD_AFTER_TROUBLE / 2


def test_the_due_rows_of_a_client_that_pauses_delay_nobody_at_its_host(sweeper, provider):
    paused = due(provider, 200, ago=600)
    served = due_of_several(provider)
    ClientRegistration.objects.exclude(secret_id=paused.first().secret_id).update(client_digest="b" * 32)
    registration = ClientRegistration.objects.get(secret_id=paused.first().secret_id)
    hosts().report(callee_of(registration), uuid.uuid4(), Verdict.LIMITED, retry_after=120)
    calls = len(provider.requests)

    tick_until(sweeper, lambda: are_all_refreshed(served), ticks=3)

    assert len(provider.requests) == calls + FEW
    assert waits(paused)[0] > 110


@pytest.mark.parametrize("kind", ["seconds", "a date"])
def test_a_client_that_was_told_to_come_back_later_is_left_alone_until_then(sweeper, provider, kind):
    rows = due(provider, 60, ago=600)
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    provider.answer = Answer.busy(429, retry_after=90 if kind == "seconds" else at)
    calls = len(provider.requests)

    tick_until(sweeper, lambda: waits(rows)[0] > 80, ticks=4)
    met = len(provider.requests) - calls
    assert 1 <= met <= SHARE

    rows.update(refresh_due_at=database_now())
    sweeper.tick()
    assert len(provider.requests) == calls + met


def test_a_provider_that_hangs_keeps_a_quarter_of_the_slots_from_others_and_no_more(sweeper, provider, other):
    due(provider, 200, ago=600)
    served = due_of_several(other)
    provider.answer = Answer.hang()

    tick_until(sweeper, lambda: are_all_refreshed(served), ticks=3)

    assert provider.peak_in_flight <= SHARE
    provider.answer = None
    provider.release()


def test_a_half_open_host_is_given_one_call_and_then_all(sweeper, provider, monkeypatch):
    monkeypatch.setattr(breaker, "FIRST_PERIOD", 0.5)
    rows = due(provider, 30, ago=600)
    open_breaker(host_of(provider))
    time.sleep(0.5)
    provider.answer = Answer.hang()
    calls = len(provider.requests)
    for _ in range(3):
        rows.filter(lease_owner=None).update(refresh_due_at=database_now() - timedelta(seconds=1))
        sweeper.tick()
    wait_until(lambda: len(provider.requests) > calls)
    assert len(provider.requests) == calls + 1
    provider.answer = None
    provider.release()
    wait_until(lambda: rows.filter(generation=1).exists())
    rows.filter(generation=0).update(refresh_due_at=database_now() - timedelta(seconds=1))
    tick_until(sweeper, lambda: are_all_refreshed(rows), ticks=4)


# An account, and a host, with more than its share.


def test_one_accounts_burst_delays_nobody_else(sweeper, provider, other):
    burst = due(provider, MANY, ago=600)
    served = due_of_several(other)
    provider.delay = 0.5
    provider.peak_in_flight = 0

    tick_until(sweeper, lambda: are_all_refreshed(served), ticks=3)

    assert provider.peak_in_flight == SHARE
    assert burst.filter(generation=1).count() >= SHARE


def test_at_one_host_too_an_account_holds_no_more_than_a_quarter_of_the_slots(sweeper, provider):
    burst, served = due(provider, 300, ago=600), due(provider, 100, ago=10)
    provider.answer = Answer.hang()
    sweeper.tick()
    wait_until(lambda: len(provider.under_way) == 2 * SHARE)
    by_account = [rows.filter(lease_owner__isnull=False).count() for rows in (burst, served)]
    provider.answer = None
    provider.release()
    assert by_account == [SHARE] * 2


def test_a_burst_is_worked_off_as_fast_as_its_share_allows(sweeper, provider):
    burst = due(provider, 300, ago=600)
    provider.delay = 0.02
    begun = time.monotonic()
    wait_until(lambda: sweeper.tick() is not None and are_all_refreshed(burst), seconds=40)
    # 300 calls of 20 ms, sixteen at a time, take less than a second. Waiting for a turn costs more, but no minute.
    assert time.monotonic() - begun < 20


def test_several_accounts_at_a_host_make_no_more_calls_at_once_than_it_takes(sweeper, provider, settings):
    settings.KNOXCALL_HOST_CALLS = 3
    hosts_module.forget()
    rows = [due(provider, 10, ago=600) for _ in range(4)]
    provider.delay = 0.05
    provider.peak_in_flight = 0
    wait_until(lambda: sweeper.tick() is not None and all(map(are_all_refreshed, rows)), seconds=40)
    assert provider.peak_in_flight <= 3
    assert hosts().calls(host_of(provider)) == 0


def hear(*processes: Hosts) -> None:
    """Let what each process has to tell be told, and then be heard by all."""
    for process in (*processes, *processes):
        time.sleep(hosts_module.SYNC)
        process.sync()


class TestHostFilledByOthers:
    """All places at a host are held by another process."""

    @pytest.fixture
    def another(self, broker, settings) -> Iterator[Hosts]:
        settings.REDIS_URL = broker
        hosts_module.forget()
        yield Hosts(broker, cap=settings.KNOXCALL_HOST_CALLS)
        hosts_module.forget(shared=True)

    def test_it_delays_nobody_else_and_lets_nobody_spin(self, sweeper, provider, other, another):
        full, served = due(provider, MANY, ago=600), due_of_several(other)
        hear(another, hosts())
        assert another.enter({host_of(provider): another.cap}) == {host_of(provider): another.cap}
        calls = len(provider.requests)
        begun = time.monotonic()
        with CaptureQueriesContext(
            database,
        ) as queries:
            sweeper.tick()
            sweeper.tick()
        seconds = time.monotonic() - begun
        wait_until(lambda: are_all_refreshed(served), seconds=2)
        assert len(provider.requests) == calls
        assert not full.filter(lease_owner__isnull=False).exists()
        assert len(queries) < 70 * seconds

    def test_the_sweep_goes_on_when_they_leave(self, sweeper, provider, another):
        rows = due(provider, 20, ago=600)
        hear(another, hosts())
        another.enter({host_of(provider): another.cap})
        sweeper.tick()
        assert rows.filter(generation=0).count() == 20
        another.leave(host_of(provider), another.cap)
        tick_until(sweeper, lambda: are_all_refreshed(rows), ticks=8)
        assert hosts().calls(host_of(provider)) == 0


# What is passed over, and for how long it is put off.


@pytest.fixture
def shares() -> Queueing:
    return Queueing(SLOTS)


ACCOUNT = uuid.UUID(int=1)


@pytest.fixture
def somebody() -> Callee:
    """At a host of the test's own: what a test holds there runs out only after it."""
    return Callee(f"{uuid.uuid4().hex}.example:443", uuid.uuid4().hex)


def test_what_is_in_trouble_or_has_all_it_may_have_is_passed_over(shares, somebody):
    open_breaker("away.example:443")
    hosts().report(somebody, uuid.uuid4(), Verdict.LIMITED, retry_after=60)
    full = f"full-{uuid.uuid4().hex}.example:443"
    hosts().enter({full: hosts().cap})
    avoid = shares.avoid({ACCOUNT: SHARE, uuid.UUID(int=2): SHARE - 1})
    assert set(avoid.hosts) == {"away.example:443", full}
    assert set(avoid.clients) == {somebody.client}
    assert set(avoid.accounts) == {ACCOUNT}
    assert shares.is_crowded


def test_who_was_full_gets_nothing_until_a_quarter_of_that_is_free(shares, somebody):
    hosts().enter({somebody.host: hosts().cap})
    for calls, is_full in (
        (SHARE - 1, False),
        (SHARE, True),
        (SHARE - 1, True),
        (SHARE * 3 // 4, False),
        (SHARE, True),
    ):
        assert (ACCOUNT in shares.avoid({ACCOUNT: calls}).accounts) == is_full
    assert somebody.host in shares.avoid({}).hosts
    hosts().leave(somebody.host, 1)
    assert somebody.host in shares.avoid({}).hosts
    hosts().leave(somebody.host, hosts().cap // 4)
    assert somebody.host not in shares.avoid({}).hosts
    assert not shares.is_crowded


def test_a_call_that_may_be_made_takes_a_place_and_what_is_left_is_given_back(shares, somebody):
    places = shares.places({somebody.host: 5})
    assert [shares.refusal(ACCOUNT, somebody, places, {}) for _ in range(3)] == [None] * 3
    assert hosts().calls(somebody.host) == 5
    shares.give_back(places)
    assert hosts().calls(somebody.host) == 3


def test_a_call_that_may_not_be_made_takes_no_place(shares, somebody):
    hosts().report(somebody, uuid.uuid4(), Verdict.LIMITED, retry_after=61)
    open_breaker("away.example:443")
    places = Counter({somebody.host: 1, "away.example:443": 1})
    over_its_share = shares.refusal(ACCOUNT, Callee(somebody.host, "b"), places, {ACCOUNT: SHARE})
    assert (over_its_share.seconds, over_its_share.spread) == (0, FIRST_DELAY)
    limited = shares.refusal(ACCOUNT, somebody, places, {})
    assert limited.spread == SPREAD_AFTER_TROUBLE
    assert 60 < limited.seconds <= 65
    away = shares.refusal(ACCOUNT, Callee("away.example:443", "b"), places, {})
    assert 0.8 * breaker.FIRST_PERIOD - 1 < away.seconds <= breaker.FIRST_PERIOD
    full = shares.refusal(ACCOUNT, Callee("full.example:443", "b"), places, {})
    assert (full.seconds, full.spread) == (0, FIRST_DELAY)
    assert places == {somebody.host: 1, "away.example:443": 1}


def clear_again(shares: Queueing) -> None:
    shares._cleared_at = float("-inf")
    shares.clear_front()


def test_the_more_there_are_of_the_one_who_is_full_the_longer_they_are_put_off(shares, somebody, provider, monkeypatch):
    monkeypatch.setattr(queueing, "CROWD", 5)
    caller = Caller()
    rows = due(provider, 10, caller=caller, ago=60)
    delays = []
    for _ in range(9):
        rows.update(refresh_due_at=database_now() - timedelta(seconds=1))
        shares.avoid({caller.account.pk: SHARE})
        clear_again(shares)
        delays.append(shares.refusal(caller.account.pk, somebody, Counter(), {caller.account.pk: SHARE}).spread)
    # It lasts from the second look on.
    assert delays == [1, 2, 4, 8, 16, 32, LONGEST_DELAY, LONGEST_DELAY, LONGEST_DELAY]
    assert waits(rows)[-1] > 10
    # With fewer of them it becomes shorter again, and in the end nothing is remembered.
    for _ in range(8):
        shares.avoid({})
        clear_again(shares)
    assert shares.refusal(caller.account.pk, somebody, Counter(), {caller.account.pk: SHARE}).spread == FIRST_DELAY
    assert shares._delays == {}


def test_nothing_is_cleared_where_nobody_is_passed_over(shares, django_assert_num_queries):
    shares.avoid({})
    with django_assert_num_queries(0):
        shares.clear_front()


def test_the_front_is_cleared_once_a_second_and_not_at_every_claim(shares, django_assert_num_queries):
    shares.avoid({ACCOUNT: SHARE})
    clear_again(shares)
    with django_assert_num_queries(1):
        clear_again(shares)
        for _ in range(20):
            shares.clear_front()


def test_many_that_are_in_trouble_cost_few_statements(shares):
    for number in range(150):
        callee = Callee(f"host-{number}.example:443", f"{number:032x}")
        hosts().report(callee, uuid.uuid4(), Verdict.LIMITED, retry_after=5 + number * 7)
    assert len(shares.avoid({}).clients) == 150
    with CaptureQueriesContext(database) as queries:
        clear_again(shares)
    assert len(queries) <= 12


def test_nobody_is_put_off_for_longer_than_has_to_be(shares, somebody, provider):
    rows = due(provider, 40, ago=60)
    registration = ClientRegistration.objects.get(secret_id=rows.first().secret_id)
    hosts().report(callee_of(registration), uuid.uuid4(), Verdict.LIMITED, retry_after=70)
    hosts().report(somebody, uuid.uuid4(), Verdict.LIMITED, retry_after=120)
    shares.avoid({})
    clear_again(shares)
    first, *_, last = waits(rows)
    assert first > 65
    assert last < 70 + SPREAD_AFTER_TROUBLE


def test_calls_that_end_meanwhile_do_not_disturb_the_next_claim(shares):
    class Changing(Counter[uuid.UUID]):
        """Loses an entry whenever somebody goes through it."""

        def items(self) -> Any:
            for entry in super().items():
                yield entry
                self.pop(uuid.UUID(int=1), None)

    calls = Changing({uuid.UUID(int=number): SHARE for number in range(1, 6)})
    assert len(shares.avoid(calls).accounts) == 5
