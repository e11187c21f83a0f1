"""The background refresh: everything due is refreshed, within its slots, and what is stopped is handed back."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connections
from django.db.models.functions import Now

from oauth_app import hosts as hosts_module
from oauth_app import outage, queueing, spool, storing
from oauth_app import sweep as sweep_module
from oauth_app.claim import claim_one
from oauth_app.fake_provider import Answer
from oauth_app.models import Connection, DatabaseReturn
from oauth_app.storing import Storer
from oauth_app.sweep import Sweeper
from secrets_app import data_keys
from secrets_app.crypto.cipher import Ciphertext
from tests.factories import Caller, a_client, an_oauth2_secret, consent
from tests.oauth_app.outcomes import a_token, between, claimed

pytestmark = pytest.mark.django_db(transaction=True)

# So many that no account's quarter of them is less than what a test has due.
MANY = 40


@pytest.fixture(autouse=True)
def _own_outage_and_spool(monkeypatch, settings, tmp_path) -> None:
    monkeypatch.setattr(outage, "_since", None)
    settings.SPOOL_DIR = tmp_path / "spool"


@pytest.fixture
def new_sweeper() -> Iterator[Callable[..., Sweeper]]:
    made: list[Sweeper] = []

    def make(slots: int = MANY) -> Sweeper:
        made.append(Sweeper(slots=slots))
        return made[-1]

    yield make
    for sweeper in made:
        sweeper.stop()


@pytest.fixture
def sweeper(new_sweeper) -> Sweeper:
    return new_sweeper()


def make_due(ago: float = 1) -> None:
    Connection.objects.update(refresh_due_at=Now() - timedelta(seconds=ago))


def robots(caller: Caller, provider: Any, count: int, name: str = "c") -> list[Connection]:
    """Connections that need no person, with a first token."""
    client = a_client(provider, grant_type="client_credentials")
    return [an_oauth2_secret(caller, client, name=f"{name}{n}") for n in range(count)]


@pytest.fixture
def due(provider) -> list[Connection]:
    """Ten connections of one account that are due now."""
    rows = robots(Caller(), provider, 10)
    make_due()
    return rows


@pytest.fixture
def due_of_ten(provider) -> list[Connection]:
    """Ten connections that are due now, of as many accounts."""
    rows = [row for n in range(10) for row in robots(Caller(), provider, 1, f"c{n}")]
    make_due()
    return rows


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def generations() -> list[int]:
    return list(Connection.objects.order_by("secret__name").values_list("generation", flat=True))


def is_free() -> bool:
    """Whether nobody holds anything, and nothing is marked as sent."""
    held = Connection.objects.exclude(
        lease_owner=None, lease_expires_at=None, attempt_started_at=None, outcome_unknown_at=None
    )
    return not held.exists()


@contextmanager
def running(sweeper: Sweeper) -> Iterator[threading.Thread]:
    """Let ``sweeper`` run beside the block, as a worker does."""
    thread = threading.Thread(target=sweeper.run)
    thread.start()
    try:
        yield thread
    finally:
        sweeper.stop()
        thread.join(10)
    assert not thread.is_alive()


def beside(work: Callable[[], Any]) -> threading.Thread:
    """Run ``work`` in a thread that gives its database connection back."""

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


# What is swept


def test_a_tick_refreshes_everything_that_is_due(sweeper, due):
    assert sweeper.tick() == 10
    wait_until(lambda: generations() == [2] * 10)
    assert sweeper.tick() == 0


def test_what_is_not_due_is_left_alone(sweeper, due):
    Connection.objects.filter(pk=due[3].pk).update(refresh_due_at=Now() + timedelta(minutes=1))
    assert sweeper.tick() == 9


def test_no_more_calls_are_in_flight_than_there_are_slots(new_sweeper, due_of_ten, provider):
    provider.delay = 0.1
    sweep_until_done(new_sweeper(slots=4), 10)
    assert provider.peak_in_flight <= 4


def test_no_more_is_claimed_than_there_are_slots(new_sweeper, due_of_ten, provider):
    """Whatever is claimed goes on the wire at once: a claim that waited for a slot would grow old."""
    provider.answer = Answer.hang()
    sweeper = new_sweeper(slots=4)
    ticking = beside(sweeper.tick)
    provider.wait_for_requests(14)
    assert Connection.objects.filter(lease_owner__isnull=False).count() == 4
    provider.answer = None
    provider.release()
    ticking.join()
    sweep_until_done(sweeper, 10)


def test_no_account_holds_more_than_a_quarter_of_the_slots(new_sweeper, due, provider):
    others = [row for _ in range(3) for row in robots(Caller(), provider, 1)]
    make_due()
    first_calls = len(due) + len(others)
    provider.answer = Answer.hang()
    sweeper = new_sweeper(slots=12)
    ticking = beside(sweeper.tick)
    provider.wait_for_requests(first_calls + 6)
    time.sleep(0.3)
    held = Connection.objects.filter(lease_owner__isnull=False)
    by_account = Counter(held.values_list("account_id", flat=True))
    assert by_account == {due[0].account_id: 3, **{row.account_id: 1 for row in others}}
    provider.answer = None
    provider.release()
    ticking.join()
    sweep_until_done(sweeper, 13)


def sweep_until_done(sweeper: Sweeper, count: int) -> None:
    """Sweep on, as beat would have it; what found no place is due again within a second or two."""

    def is_done() -> bool:
        sweeper.tick()
        return generations() == [2] * count

    wait_until(is_done, seconds=20)


def test_an_account_with_more_than_its_share_is_served_in_turns(new_sweeper, due, provider):
    sweep_until_done(new_sweeper(slots=8), 10)
    assert provider.count("client_credentials") == 20


def test_a_host_gets_no_more_calls_than_it_may(new_sweeper, due_of_ten, provider, monkeypatch):
    monkeypatch.setattr(hosts_module, "_hosts", hosts_module.Hosts("redis://127.0.0.1:1/0", cap=3))
    provider.delay = 0.1
    sweep_until_done(new_sweeper(), 10)
    assert provider.peak_in_flight <= 3
    assert provider.count("client_credentials") == 20


def test_what_finds_no_place_is_given_back_unmarked(new_sweeper, due, provider, monkeypatch):
    monkeypatch.setattr(queueing, "FIRST_DELAY", 30.0)
    provider.delay = 0.2
    new_sweeper(slots=8).tick()
    wait_until(is_free)
    assert sorted(set(generations())) == [1, 2]
    assert Connection.objects.filter(refresh_due_at=None).count() == 0


def test_two_workers_refresh_each_connection_once(new_sweeper, due, provider):
    threads = [beside(new_sweeper().tick) for _ in range(2)]
    for thread in threads:
        thread.join()
    wait_until(lambda: generations() == [2] * 10)
    assert provider.count("client_credentials") == 20


def test_a_second_tick_beside_a_running_one_does_nothing(sweeper, due):
    with sweeper._ticking:
        assert sweeper.tick() == 0


def test_one_connection_that_breaks_us_does_not_stop_the_others(sweeper, due):
    garbage = Ciphertext(b"garbage")
    Connection.objects.filter(pk=due[0].pk).update(access_token=garbage, refresh_token=garbage)
    sweeper.tick()
    wait_until(lambda: generations() == [1] + [2] * 9)


def test_what_has_no_means_to_be_renewed_is_told_so_although_the_host_takes_no_call(
    sweeper, provider, http, monkeypatch
):
    provider.refresh_tokens = "never"
    row = consent(an_oauth2_secret(Caller(), a_client(provider)), http)
    Connection.objects.update(expires_at=Now() - timedelta(seconds=1), refresh_due_at=Now() - timedelta(seconds=1))
    monkeypatch.setattr(hosts_module, "_hosts", hosts_module.Hosts("redis://127.0.0.1:1/0", cap=0))
    assert sweeper.tick() == 1
    wait_until(lambda: Connection.objects.get(pk=row.pk).status == "reauthorization_required")
    assert provider.refreshes == 0


# When it runs


def test_a_worker_that_is_asked_sweeps_at_once(sweeper, due):
    with running(sweeper):
        sweeper.wake()
        wait_until(lambda: generations() == [2] * 10, seconds=4)


def test_a_request_that_came_before_the_start_is_not_lost(sweeper, due):
    sweeper.wake()
    with running(sweeper):
        wait_until(lambda: generations() == [2] * 10, seconds=4)


def test_a_request_that_comes_during_a_sweep_is_not_lost(sweeper, due, provider, monkeypatch):
    claim, once = sweep_module.claim_due, iter([True])

    def claim_and_wake(limit: int, *avoid: Any) -> list[Connection]:
        claimed = claim(limit, *avoid)
        if next(once, False):
            sweeper.wake()
        return claimed

    monkeypatch.setattr(sweep_module, "claim_due", claim_and_wake)
    with running(sweeper):
        sweeper.wake()
        wait_until(lambda: generations() == [2] * 10, seconds=4)
        make_due()
        sweeper.wake()
        wait_until(lambda: generations() == [3] * 10, seconds=4)


def test_a_worker_that_hears_nothing_sweeps_by_itself(sweeper, due, monkeypatch):
    monkeypatch.setattr(sweep_module, "SILENCE", 0.1)
    with running(sweeper):
        wait_until(lambda: generations() == [2] * 10)


def test_a_worker_that_hears_nothing_says_so_once(sweeper, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(sweep_module, "SILENCE", 0.05)
    with running(sweeper):
        time.sleep(0.5)
    assert len([record for record in caplog.records if record.name == sweep_module.__name__]) == 1


def test_a_database_that_is_away_does_not_end_the_worker(sweeper, due, monkeypatch, caplog):
    monkeypatch.setattr(sweep_module, "SILENCE", 0.1)
    claim = sweep_module.claim_due
    failures = iter([OperationalError("away"), InterfaceError("away")])

    def flaky(limit: int, *avoid: Any) -> list[Connection]:
        for failure in failures:
            raise failure
        return claim(limit, *avoid)

    monkeypatch.setattr(sweep_module, "claim_due", flaky)
    with running(sweeper):
        wait_until(lambda: generations() == [2] * 10)
    assert "Traceback" not in caplog.text


def test_a_fault_of_ours_does_not_end_the_worker(sweeper, due, monkeypatch):
    monkeypatch.setattr(sweep_module, "SILENCE", 0.1)
    claim, faults = sweep_module.claim_due, iter([KeyError("a fault of ours")])

    def faulty(limit: int, *avoid: Any) -> list[Connection]:
        for fault in faults:
            raise fault
        return claim(limit, *avoid)

    monkeypatch.setattr(sweep_module, "claim_due", faulty)
    with running(sweeper):
        wait_until(lambda: generations() == [2] * 10)


def test_the_return_of_the_database_is_told_to_everybody_before_anything_is_claimed(sweeper, due, monkeypatch):
    outage.notice(OperationalError("away"))
    claim, told = sweep_module.claim_due, []

    def note(limit: int, *avoid: Any) -> list[Connection]:
        told.append(DatabaseReturn.objects.exists())
        return claim(limit, *avoid)

    monkeypatch.setattr(sweep_module, "claim_due", note)
    assert sweeper.tick() == 10
    assert all(told)


# The end


def test_a_stopped_sweeper_claims_nothing(new_sweeper, due):
    stopped = new_sweeper()
    stopped.stop()
    assert stopped.tick() == 0
    assert is_free()


def test_asked_to_stop_it_claims_nothing_more_and_the_worker_ends(sweeper, due):
    sweeper.ask_to_stop()
    with running(sweeper) as thread:
        thread.join(5)
    assert is_free()
    assert generations() == [1] * 10


def test_what_was_claimed_when_the_stop_came_is_handed_back_unmarked(sweeper, due, monkeypatch):
    monkeypatch.setattr(sweep_module, "claim_due", stopping(sweeper))
    sweeper.tick()
    sweeper.stop()
    assert is_free()
    assert generations() == [1] * 10
    assert Connection.objects.filter(refresh_due_at__lte=Now()).count() == 10


def stopping(sweeper: Sweeper) -> Callable[..., list[Connection]]:
    """A claim after which ``sweeper`` is asked to stop."""
    claim = sweep_module.claim_due

    def claim_and_stop(limit: int, *avoid: Any) -> list[Connection]:
        claimed = claim(limit, *avoid)
        sweeper.ask_to_stop()
        return claimed

    return claim_and_stop


def away(*args: Any, **kwargs: Any) -> Any:
    raise OperationalError("away")


def test_what_cannot_be_handed_back_because_the_database_is_away_is_handed_back_later(sweeper, due, monkeypatch):
    database = between(monkeypatch)
    monkeypatch.setattr(sweep_module, "claim_due", stopping(sweeper))
    monkeypatch.setattr(sweep_module, "hand_back_all", away)
    database.go()
    sweeper.tick()
    sweeper.stop()
    assert len(spool.files()) == 10
    assert Connection.objects.filter(attempt_started_at__isnull=False).count() == 10
    database.come_back()
    assert storing.storer().flush(10)
    assert is_free()
    assert spool.files() == []


def test_what_was_not_sent_is_handed_back_by_the_next_process(sweeper, due, monkeypatch):
    database = between(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(sweep_module, "claim_due", stopping(sweeper))
        patch.setattr(sweep_module, "hand_back_all", away)
        database.go()
        sweeper.tick()
        sweeper.stop()
        storing.close()
    assert len(spool.files()) == 10
    data_keys.forget()
    database.come_back()
    following = Storer()
    assert following.adopt_spool() == 10
    following.close()
    assert is_free()


def test_stopping_waits_for_the_calls_in_flight_and_their_answers(new_sweeper, due, provider):
    provider.delay = 0.3
    sweeper = new_sweeper()
    sweeper.tick()
    sweeper.stop()
    assert generations() == [2] * 10


def test_stopping_while_the_database_is_away_leaves_the_answers_on_disk(new_sweeper, due, provider, monkeypatch):
    database = between(monkeypatch)
    provider.delay = 0.3
    sweeper = new_sweeper()
    sweeper.tick()
    database.go()
    sweeper.stop()
    assert len(spool.files()) == 10
    assert generations() == [1] * 10
    database.come_back()
    assert storing.storer().flush(10)
    assert generations() == [2] * 10


def test_a_stop_during_a_sweep_leaves_nothing_held(new_sweeper, due_of_ten, provider):
    provider.delay = 0.2
    sweeper = new_sweeper(slots=4)
    with running(sweeper):
        sweeper.wake()
        provider.wait_for_requests(12)
    assert is_free()
    assert set(generations()) <= {1, 2}


def test_what_was_claimed_when_the_database_went_away_counts_as_not_sent(sweeper, due, provider, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sweep_module, "registrations_of", away)
        with suppress(outage.AWAY):
            sweeper.tick()
    assert storing.storer().flush(10)
    assert is_free()
    assert generations() == [1] * 10


def test_whoever_stops_waits_for_what_is_being_claimed(new_sweeper, due, monkeypatch):
    """Otherwise the process ends between a claim and its hand-back, and what was never sent counts as unknown."""
    sweeper = new_sweeper()
    claim, has_claimed, may_go_on = sweep_module.claim_due, threading.Event(), threading.Event()

    def slowly(limit: int, *avoid: Any) -> list[Connection]:
        claimed = claim(limit, *avoid)
        has_claimed.set()
        assert may_go_on.wait(5)
        return claimed

    monkeypatch.setattr(sweep_module, "claim_due", slowly)
    ticking = beside(sweeper.tick)
    assert has_claimed.wait(5)
    threading.Timer(0.3, may_go_on.set).start()
    sweeper.stop()
    was_free = is_free()
    ticking.join()
    assert was_free
    assert generations() == [1] * 10


# What is held


def test_a_sweeper_that_holds_an_answer_claims_nothing(sweeper, due, provider, monkeypatch):
    database = between(monkeypatch)
    held = claimed(Caller())
    Connection.objects.filter(pk=held.pk).update(refresh_due_at=None)
    database.go()
    future = storing.storer().submit(a_token(held))
    wait_until(storing.storer().is_holding)
    assert sweep(sweeper) == 0
    assert generations() == [1] * 11
    assert is_held(held)
    assert Connection.objects.filter(lease_owner__isnull=False).count() == 1
    database.come_back()
    assert future.result(5) is True
    assert sweep(sweeper) == 10
    wait_until(lambda: generations() == [2] * 11)


def sweep(sweeper: Sweeper) -> int:
    """A tick as the worker has it: the database may be away."""
    try:
        return sweeper.tick()
    except outage.AWAY:
        return 0


def is_held(row: Connection) -> bool:
    return Connection.objects.filter(pk=row.pk, lease_owner__isnull=False).exists()


def test_a_sweeper_that_finds_an_answer_in_the_spool_stores_it_first(sweeper, due, provider, monkeypatch):
    database = between(monkeypatch)
    left = claimed(Caller())
    outcome = a_token(left)
    spool.write(outcome, spool.sealed(outcome, data_keys.seal))
    database.fall_silent()
    assert sweeper.tick() == 0
    assert generations() == [1] * 11
    database.answer()
    assert storing.storer().flush(5)
    assert sweeper.tick() == 10
    wait_until(lambda: generations() == [2] * 11)
    assert spool.files() == []


def test_answers_that_wait_to_be_stored_take_slots(new_sweeper, provider, monkeypatch):
    """A slow database must not let them pile up."""
    database = between(monkeypatch)
    for n in range(5):
        robots(Caller(), provider, 2, f"c{n}-")
    make_due()
    monkeypatch.setattr(storing, "SILENT", 60.0)
    database.fall_silent()
    sweeper = new_sweeper(slots=4)
    first_calls = provider.count("client_credentials")
    ticking = beside(sweeper.tick)
    time.sleep(1.0)
    assert provider.count("client_credentials") - first_calls <= 5
    database.answer()
    ticking.join()
    sweep_until_done(sweeper, 10)


def test_nothing_is_sent_twice_when_the_database_goes_away_during_the_calls(sweeper, provider, http, monkeypatch):
    database = between(monkeypatch)
    client, caller = a_client(provider), Caller()
    for n in range(4):
        consent(an_oauth2_secret(caller, client, name=f"person{n}"), http)
    make_due()
    provider.delay = 0.2
    assert sweeper.tick() == 4
    database.go()
    wait_until(lambda: len(spool.files()) == 4)
    Connection.objects.update(lease_expires_at=Now() - timedelta(seconds=1))
    for _ in range(3):
        assert sweep(sweeper) == 0
    database.come_back()
    assert storing.storer().flush(5)
    assert generations() == [2] * 4
    assert provider.refreshes == 4
    assert provider.reuses == 0


# Refreshing some of them


class Heard:
    """What was said of connections, from whatever thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.results: list[tuple[uuid.UUID, str]] = []

    def __call__(self, pk: uuid.UUID, result: str) -> None:
        with self._lock:
            self.results.append((pk, result))

    def of(self, row: Connection) -> str:
        """The only thing that was said of ``row``."""
        (result,) = [result for pk, result in self.results if pk == row.pk]
        return result


@pytest.fixture
def heard() -> Heard:
    return Heard()


def ids(rows: Iterable[Connection]) -> list[uuid.UUID]:
    return [row.pk for row in rows]


def test_these_are_refreshed_due_or_not_and_each_is_told_once(sweeper, due, heard):
    Connection.objects.update(refresh_due_at=Now() + timedelta(hours=1))
    sweeper.refresh_these(ids(due[:6]), on_done=heard)
    assert sorted(heard.results, key=str) == sorted([(row.pk, "refreshed") for row in due[:6]], key=str)
    assert generations() == [2] * 6 + [1] * 4


def test_more_than_there_are_slots_are_refreshed_one_after_the_other(new_sweeper, due_of_ten, provider, heard):
    provider.delay = 0.05
    new_sweeper(slots=4).refresh_these(ids(due_of_ten), on_done=heard)
    assert len(heard.results) == 10
    assert {result for _, result in heard.results} <= {"refreshed", "busy"}
    assert provider.peak_in_flight <= 4
    assert is_free()


def test_what_somebody_holds_or_has_ended_or_is_not_there_is_held(sweeper, due, heard):
    assert claim_one(due[0])
    Connection.objects.filter(pk=due[1].pk).update(status="disconnected", refresh_due_at=None)
    Connection.objects.filter(pk=due[2].pk).update(status="reauthorization_required", refresh_due_at=None)
    nobody = Connection(pk=uuid.uuid4())
    sweeper.refresh_these([*ids(due[:4]), nobody.pk], on_done=heard)
    assert [heard.of(row) for row in (*due[:4], nobody)] == ["held", "held", "held", "refreshed", "held"]


def test_of_these_only_what_is_due_is_refreshed_if_asked_so(sweeper, due, heard):
    Connection.objects.filter(pk=due[0].pk).update(refresh_due_at=Now() + timedelta(hours=1))
    sweeper.refresh_these(ids(due[:2]), on_done=heard, only_due=True)
    assert [heard.of(row) for row in due[:2]] == ["held", "refreshed"]


def test_these_are_read_as_places_become_free(new_sweeper, due_of_ten, heard):
    read: list[uuid.UUID] = []

    def reading() -> Iterator[uuid.UUID]:
        for row in due_of_ten:
            read.append(row.pk)
            yield row.pk

    new_sweeper(slots=4).refresh_these(reading(), on_done=heard, should_stop=lambda: bool(read))
    assert len(read) <= 4
    assert is_free()


def test_what_was_changed_during_the_call_is_held(sweeper, due, provider, heard):
    provider.answer = Answer.hang()
    refreshing = beside(lambda: sweeper.refresh_these([due[0].pk], on_done=heard))
    provider.wait_for_requests(11)
    Connection.objects.filter(pk=due[0].pk).update(generation=7, lease_owner=None, lease_expires_at=None)
    provider.answer = None
    provider.release()
    refreshing.join()
    assert heard.of(due[0]) == "held"


def test_failures_are_told_with_their_codes(sweeper, due, provider, heard):
    provider.next(Answer.busy(503))
    sweeper.refresh_these([due[0].pk], on_done=heard)
    provider.next(Answer.error("invalid_client", status=401))
    sweeper.refresh_these([due[1].pk], on_done=heard)
    assert heard.of(due[0]) == "failed:http_503"
    assert heard.of(due[1]) == "failed:invalid_client"


def test_an_end_is_told_with_its_code(sweeper, provider, http, heard):
    row = consent(an_oauth2_secret(Caller(), a_client(provider)), http)
    provider.revoke_grants()
    sweeper.refresh_these([row.pk], on_done=heard)
    assert heard.of(row) == "ended:invalid_grant"


def test_what_waits_for_the_end_of_its_token_is_postponed(sweeper, provider, http, heard):
    row = consent(an_oauth2_secret(Caller(), a_client(provider)), http)
    Connection.objects.update(outcome_unknown_at=Now())
    sweeper.refresh_these([row.pk], on_done=heard)
    assert heard.of(row) == "postponed"
    assert provider.refreshes == 0


def test_what_finds_no_place_is_busy_and_given_back_as_it_was(sweeper, due, monkeypatch, heard):
    full = hosts_module.Hosts("redis://127.0.0.1:1/0", cap=0)
    monkeypatch.setattr(hosts_module, "_hosts", full)
    before = list(Connection.objects.order_by("pk").values())
    sweeper.refresh_these(ids(due), on_done=heard)
    assert [heard.of(row) for row in due] == ["busy"] * 10
    assert list(Connection.objects.order_by("pk").values()) == before


def test_a_fault_of_ours_is_told(sweeper, due, monkeypatch, heard):
    attempt = sweep_module.attempt

    def faulty(connection: Connection, registration: Any) -> Any:
        if connection.pk == due[0].pk:
            raise KeyError("a fault of ours")
        return attempt(connection, registration)

    monkeypatch.setattr(sweep_module, "attempt", faulty)
    sweeper.refresh_these(ids(due[:3]), on_done=heard)
    assert [heard.of(row) for row in due[:3]] == ["fault", "refreshed", "refreshed"]


def test_nothing_more_is_begun_once_somebody_says_stop_and_what_is_under_way_ends(
    new_sweeper, due_of_ten, heard, provider
):
    provider.delay = 0.1
    new_sweeper(slots=4).refresh_these(ids(due_of_ten), on_done=heard, should_stop=lambda: bool(heard.results))
    results = Counter(result for _, result in heard.results)
    assert 1 <= results["refreshed"] < 10
    assert is_free()
    assert generations().count(2) == results["refreshed"]


def test_nothing_is_told_before_it_is_stored(sweeper, due, monkeypatch):
    seen: list[int] = []

    def look(pk: uuid.UUID, result: str) -> None:
        try:
            seen.append(Connection.objects.get(pk=pk).generation)
        finally:
            connections.close_all()

    sweeper.refresh_these(ids(due), on_done=look)
    assert seen == [2] * 10


def test_while_an_answer_is_held_nothing_more_is_begun(sweeper, due, provider, monkeypatch, heard):
    database = between(monkeypatch)
    database.go()
    refreshing = beside(lambda: sweeper.refresh_these([due[0].pk], on_done=heard))
    wait_until(storing.storer().is_holding)
    also = beside(lambda: sweeper.refresh_these([due[1].pk], on_done=heard))
    time.sleep(0.4)
    assert heard.results == []
    assert provider.count("client_credentials") == 11
    database.come_back()
    refreshing.join()
    also.join()
    assert [heard.of(row) for row in due[:2]] == ["refreshed", "refreshed"]


def test_a_stopped_sweeper_refreshes_nothing(new_sweeper, due, heard):
    stopped = new_sweeper()
    stopped.stop()
    stopped.refresh_these(ids(due), on_done=heard)
    assert heard.results == []
    assert is_free()


def test_what_comes_to_a_pool_that_was_shut_down_is_given_back(new_sweeper, due, heard):
    sweeper = new_sweeper()
    sweeper._pool.shutdown()
    sweeper.refresh_these(ids(due), on_done=heard)
    assert [heard.of(row) for row in due] == ["busy"] * 10
    assert is_free()
