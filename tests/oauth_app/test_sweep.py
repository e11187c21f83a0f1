"""The background refresh: everything due is refreshed, within its slots, and what is stopped is handed back."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from django.db import InterfaceError, OperationalError, connections
from django.db.models.functions import Now

from oauth_app import sweep as sweep_module
from oauth_app.models import Connection
from oauth_app.sweep import Sweeper
from secrets_app.crypto.cipher import Ciphertext
from tests.factories import Caller, a_client, an_oauth2_secret

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sweeper():
    made = Sweeper(slots=4)
    yield made
    made.stop()


@pytest.fixture
def due(provider) -> list[Connection]:
    """Ten connections that are due now."""
    caller = Caller()
    rows = [
        an_oauth2_secret(caller, a_client(provider, grant_type="client_credentials"), name=f"c{n}") for n in range(10)
    ]
    Connection.objects.update(refresh_due_at=Now() - timedelta(seconds=1))
    return rows


def wait_until(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def generations() -> list[int]:
    return list(Connection.objects.order_by("secret__name").values_list("generation", flat=True))


def test_a_tick_refreshes_everything_that_is_due(sweeper, due):
    assert sweeper.tick() == 10
    wait_until(lambda: generations() == [2] * 10)
    assert sweeper.tick() == 0


def test_no_more_calls_are_in_flight_than_there_are_slots(sweeper, due, provider):
    provider.delay = 0.1
    sweeper.tick()
    wait_until(lambda: generations() == [2] * 10)
    assert provider.peak_in_flight <= 4


def test_two_workers_refresh_each_connection_once(due, provider):
    workers = [Sweeper(slots=4), Sweeper(slots=4)]

    def tick(worker: Sweeper) -> None:
        try:
            worker.tick()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=tick, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: generations() == [2] * 10)
    for worker in workers:
        worker.stop()
    assert provider.count("client_credentials") == 20


def test_a_second_tick_beside_a_running_one_does_nothing(sweeper, due):
    with sweeper._ticking:
        assert sweeper.tick() == 0


def test_a_stopped_sweeper_claims_nothing(due):
    stopped = Sweeper(slots=2)
    stopped.stop()
    assert stopped.tick() == 0
    assert not Connection.objects.filter(lease_owner__isnull=False).exists()


def test_what_was_claimed_when_the_stop_came_is_handed_back_unmarked(due, monkeypatch):
    sweeper = Sweeper(slots=10)
    claim = sweep_module.claim_due

    def claim_and_stop(limit):
        claimed = claim(limit)
        sweeper._stopping.set()
        return claimed

    monkeypatch.setattr(sweep_module, "claim_due", claim_and_stop)
    sweeper.tick()
    sweeper.stop()
    assert not Connection.objects.filter(lease_owner__isnull=False).exists()
    assert not Connection.objects.filter(attempt_started_at__isnull=False).exists()


def test_stopping_waits_for_the_calls_in_flight(due, provider):
    provider.delay = 0.3
    sweeper = Sweeper(slots=10)
    sweeper.tick()
    sweeper.stop()
    assert generations() == [2] * 10


def test_a_worker_that_hears_nothing_sweeps_by_itself(due, monkeypatch):
    monkeypatch.setattr(sweep_module, "SILENCE", 0.1)
    sweeper = Sweeper(slots=10)
    watch = threading.Thread(target=sweeper.watch)
    watch.start()
    wait_until(lambda: generations() == [2] * 10)
    sweeper.stop()
    watch.join()


def test_a_database_that_is_away_does_not_end_the_watch(due, monkeypatch):
    monkeypatch.setattr(sweep_module, "SILENCE", 0.1)
    claim = sweep_module.claim_due
    failures = iter([OperationalError("away"), InterfaceError("away")])

    def flaky(limit):
        for failure in failures:
            raise failure
        return claim(limit)

    monkeypatch.setattr(sweep_module, "claim_due", flaky)
    sweeper = Sweeper(slots=10)
    watch = threading.Thread(target=sweeper.watch)
    watch.start()
    wait_until(lambda: generations() == [2] * 10)
    sweeper.stop()
    watch.join()


def test_one_connection_that_breaks_us_does_not_stop_the_others(sweeper, due):
    garbage = Ciphertext(b"garbage")
    Connection.objects.filter(pk=due[0].pk).update(access_token=garbage, refresh_token=garbage)
    sweeper.tick()
    wait_until(lambda: generations() == [1] + [2] * 9)
