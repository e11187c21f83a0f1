"""Storing: nothing that a provider answered is lost, whatever the database and the disk do, and one never holds up another."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from django.core.exceptions import ObjectDoesNotExist
from django.db import InternalError, OperationalError, ProgrammingError, connections
from django.utils import timezone

from oauth_app import applying, keeping, outage, spool, storing
from oauth_app.models import ClientRegistration, Connection, ConnectionEvent
from oauth_app.outcome import NOT_STORED, Outcome, unsent_outcome
from oauth_app.protocol.errors import ClientRefused
from oauth_app.storing import Storer
from secrets_app import data_keys
from secrets_app.models import Environment, Secret
from tests.factories import Caller
from tests.oauth_app.outcomes import Database, a_failure, a_token, between, claimed
from tests.support.crowd import all_at_once

pytestmark = pytest.mark.django_db(transaction=True)

Status = Connection.Status


@pytest.fixture(autouse=True)
def _no_outage(monkeypatch) -> None:
    monkeypatch.setattr(outage, "_since", None)


@pytest.fixture(autouse=True)
def _empty_spool(settings, tmp_path) -> None:
    settings.SPOOL_DIR = tmp_path / "spool"


@pytest.fixture
def caller() -> Caller:
    return Caller()


@pytest.fixture
def database(monkeypatch) -> Database:
    return between(monkeypatch)


@pytest.fixture
def new_storer(database) -> Iterator[Callable[[], Storer]]:
    """Make storers, each as a process of its own would have it; they are closed with a database that is there."""
    made: list[Storer] = []

    def make() -> Storer:
        made.append(Storer())
        return made[-1]

    yield make
    database.come_back()
    database.answer()
    for storer in made:
        assert storer.flush(10)
        storer.close()


@pytest.fixture
def storer(new_storer) -> Storer:
    return new_storer()


class Disk:
    """A disk that can be full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self.tries = 0
        monkeypatch.setattr(spool.os, "fsync", self._fsync)
        self._real = os.fsync

    def _fsync(self, descriptor: int) -> None:
        self.tries += 1
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def disk(monkeypatch) -> Disk:
    return Disk(monkeypatch)


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def row(claim: Connection) -> Connection:
    return Connection.objects.get(pk=claim.pk)


def is_stored(claim: Connection, token: str = "2") -> bool:
    found = row(claim)
    return (
        found.generation == 2
        and found.lease_owner is None
        and found.access_token.open().reveal() == f"access_token-{token}"
        and found.refresh_token.open().reveal() == f"refresh_token-{token}"
    )


def on_disk() -> int:
    return len(spool.files())


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[logging.LogRecord]:
    """What our own code said of storing, from ``level``."""
    ours = {module.__name__ for module in (storing, keeping, outage, applying)}
    return [record for record in caplog.records if record.name in ours and record.levelno >= level]


# While the database is there


def test_an_outcome_is_stored_and_leaves_nothing_behind(storer, caller):
    claim = claimed(caller)
    assert storer.submit(a_token(claim)).result(5) is True
    assert is_stored(claim)
    assert row(claim).stored_by == claim.lease_owner
    assert storer.flush(5)
    assert storer.waiting == 0
    assert not storer.is_holding()
    assert not spool.directory().exists()


def test_what_waits_is_stored_together(storer, caller, database):
    claims = [claimed(caller) for _ in range(12)]
    database.fall_silent()
    first = storer.submit(a_token(claims[0]))
    wait_until(lambda: len(database.batches) == 1)
    others = [storer.submit(a_token(claim)) for claim in claims[1:]]
    database.answer()
    assert all(future.result(5) for future in [first, *others])
    assert [len(batch) for batch in database.batches] == [1, 11]
    assert all(is_stored(claim) for claim in claims)


def test_a_batch_has_an_end(storer, caller, database, monkeypatch):
    monkeypatch.setattr(storing, "BATCH", 3)
    claims = [claimed(caller) for _ in range(7)]
    database.fall_silent()
    futures = [storer.submit(a_token(claim)) for claim in claims]
    database.answer()
    assert all(future.result(5) for future in futures)
    assert max(len(batch) for batch in database.batches) <= 3


def test_outcomes_of_one_connection_are_stored_one_after_the_other(storer, caller, database):
    claim, other = claimed(caller), claimed(caller)
    database.fall_silent()
    first = storer.submit(a_token(other))
    wait_until(lambda: len(database.batches) == 1)
    earlier = storer.submit(a_token(claim, "2"))
    later = storer.submit(replace(a_token(claim, "3"), attempt=other.pk))
    database.answer()
    assert (first.result(5), earlier.result(5), later.result(5)) == (True, True, False)
    assert is_stored(claim, "2")


def test_outcomes_of_all_kinds_share_a_transaction(storer, caller, database):
    token, failure, unsent = (claimed(caller) for _ in range(3))
    ConnectionEvent.objects.all().delete()
    database.fall_silent()
    futures = [storer.submit(a_token(claimed(caller)))]
    wait_until(lambda: len(database.batches) == 1)
    futures += [storer.submit(outcome) for outcome in (a_token(token), a_failure(failure), unsent_outcome(unsent))]
    database.answer()
    assert all(future.result(5) for future in futures)
    assert len(database.batches[1]) == 3
    assert is_stored(token)
    assert (row(failure).status, row(failure).failure_count) == (Status.REFRESH_FAILING, 1)
    assert (row(unsent).lease_owner, row(unsent).attempt_started_at, row(unsent).status) == (None, None, "connected")
    assert ConnectionEvent.objects.count() == 1


def test_an_outcome_that_is_put_twice_is_stored_once(storer, caller, database, caplog):
    caplog.set_level(logging.INFO)
    claim = claimed(caller)
    outcome = a_token(claim)
    database.fall_silent()
    futures = [storer.submit(outcome), storer.submit(outcome)]
    database.answer()
    assert [future.result(5) for future in futures] == [True, True]
    assert storer.flush(5)
    time.sleep(0.1)
    assert len([record for record in lines(caplog, logging.INFO) if "refreshed" in record.getMessage()]) == 1


def test_a_failure_that_was_overtaken_changes_nothing(storer, caller):
    claim = claimed(caller)
    Connection.objects.filter(pk=claim.pk).update(lease_owner=claim.pk)
    assert storer.submit(a_failure(claim)).result(5) is False
    assert row(claim).failure_count == 0


def test_the_storing_thread_gives_its_database_connection_back(storer, caller, monkeypatch):
    monkeypatch.setattr(storing, "IDLE", 0.05)
    closed = threading.Event()
    close = type(storing.connection.copy()).close

    def note(self: Any) -> None:
        if threading.current_thread().name == "store":
            closed.set()
        close(self)

    monkeypatch.setattr(type(storing.connection.copy()), "close", note)
    assert storer.store(a_token(claimed(caller)))
    assert storer.submit(a_token(claimed(caller))).result(5)
    assert closed.wait(5)


# While it is away


def test_while_the_database_is_away_an_answer_lies_on_disk_and_is_stored_afterwards(storer, caller, database, caplog):
    claim = claimed(caller)
    database.go()
    future = storer.submit(a_token(claim))
    wait_until(on_disk)
    assert storer.is_holding()
    assert not future.done()
    database.come_back()
    assert future.result(5) is True
    assert is_stored(claim)
    assert storer.flush(5)
    assert on_disk() == 0
    assert not storer.is_holding()
    told = [(record.name, record.levelname) for record in lines(caplog)]
    assert told == [(outage.__name__, "ERROR"), (outage.__name__, "WARNING")]


def test_the_log_tells_a_long_outage_in_few_lines(storer, caller, database, caplog, monkeypatch):
    monkeypatch.setattr(storing, "LONGEST_PAUSE", 0.05)
    database.go()
    futures = [storer.submit(a_token(claimed(caller))) for _ in range(20)]
    wait_until(lambda: on_disk() == 20)
    time.sleep(1.0)
    database.come_back()
    assert all(future.result(5) for future in futures)
    assert len(lines(caplog)) == 2


def test_everything_that_waits_goes_to_the_disk_at_once(storer, caller, database):
    database.go()
    futures = [storer.submit(a_token(claimed(caller))) for _ in range(10)]
    wait_until(lambda: on_disk() == 10, seconds=1.4)
    database.come_back()
    assert all(future.result(5) for future in futures)


def test_an_outcome_without_seals_of_its_own_is_kept_as_well(storer, caller, database):
    claim = claimed(caller)
    database.go()
    future = storer.submit(unsent_outcome(claim))
    wait_until(lambda: on_disk() == 1)
    database.come_back()
    assert future.result(5) is True
    assert row(claim).attempt_started_at is None


def test_a_caller_waits_a_while_for_a_database_that_comes_back(storer, caller, database):
    claim = claimed(caller)
    database.go()
    threading.Timer(0.3, database.come_back).start()
    assert storer.store(a_token(claim)) is True
    assert is_stored(claim)


def test_a_caller_is_told_after_a_while_and_the_answer_is_stored_later(storer, caller, database, monkeypatch):
    monkeypatch.setattr(storing, "PATIENCE", 0.2)
    claim = claimed(caller)
    database.go()
    with pytest.raises(OperationalError):
        storer.store(a_token(claim))
    assert on_disk() == 1
    database.come_back()
    wait_until(lambda: is_stored(claim))
    assert storer.flush(5)
    assert on_disk() == 0


def test_a_commit_whose_acknowledgement_was_lost_counts_as_stored(storer, caller, database, monkeypatch, caplog):
    claim = claimed(caller, status="refresh_failing", failure_count=3)
    ConnectionEvent.objects.all().delete()
    lost = iter([OperationalError("lost after the commit")])

    def stored_but_not_told(outcomes: Any) -> Any:
        stored = applying.apply(outcomes)
        for error in lost:
            raise error
        return stored

    monkeypatch.setattr(storing, "apply", stored_but_not_told)
    assert storer.submit(a_token(claim)).result(5) is True
    assert is_stored(claim)
    assert ConnectionEvent.objects.count() == 1
    assert not [record for record in lines(caplog) if "not needed" in record.getMessage()]


@pytest.mark.parametrize("error", [InternalError, ProgrammingError, OperationalError])
def test_a_database_that_takes_nothing_now_costs_no_answer(storer, caller, database, error):
    """A replica that was promoted too late is read-only, and one that lags behind a migration lacks a column."""
    claim = claimed(caller)
    database.go(error)
    future = storer.submit(a_token(claim))
    wait_until(lambda: on_disk() == 1)
    wait_until(lambda: database.refusals > 3)
    database.come_back()
    assert future.result(5) is True
    assert is_stored(claim)


def test_a_row_that_somebody_keeps_locked_holds_up_no_other(storer, caller, database, caplog):
    claims = [claimed(caller) for _ in range(5)]
    locked = claims[2].pk

    def refuse(outcomes: Any) -> Exception | None:
        if not any(outcome.connection_id == locked for outcome in outcomes):
            return None
        error = OperationalError("canceling statement due to lock timeout")
        error.__cause__ = LockNotAvailable()
        return error

    database.error = refuse
    futures = {claim.pk: storer.submit(a_token(claim)) for claim in claims}
    assert all(future.result(5) for pk, future in futures.items() if pk != locked)
    wait_until(lambda: on_disk() == 1)
    assert storer.is_holding()
    # The others' claims go on being told apart from those of an outage.
    assert not outage.is_known()
    database.come_back()
    assert futures[locked].result(5) is True
    assert all(is_stored(claim) for claim in claims)
    assert len(lines(caplog)) == 1


class LockNotAvailable(Exception):
    sqlstate = "55P03"


# While it says nothing


def test_what_a_silent_database_keeps_waiting_is_on_disk_within_one_and_a_half_seconds(storer, caller, database):
    claims = [claimed(caller) for _ in range(3)]
    database.fall_silent()
    begun = time.monotonic()
    first = storer.submit(a_token(claims[0]))
    wait_until(lambda: len(database.batches) == 1)
    others = [storer.submit(a_token(claim)) for claim in claims[1:]]
    time.sleep(0.5)
    assert on_disk() == 0
    wait_until(lambda: on_disk() == 3, seconds=3)
    assert time.monotonic() - begun < 1.8
    assert storer.is_holding()
    database.answer()
    assert all(future.result(5) for future in [first, *others])
    assert all(is_stored(claim) for claim in claims)
    assert storer.flush(5)
    assert on_disk() == 0


def test_what_a_caller_stores_himself_is_on_disk_as_soon(storer, caller, database):
    claim = claimed(caller)
    outcome = a_token(claim)
    database.fall_silent()

    def store() -> None:
        storer.store(outcome)
        connections.close_all()

    waiting = threading.Thread(target=store)
    waiting.start()
    wait_until(lambda: on_disk() == 1, seconds=1.8)
    database.answer()
    waiting.join()
    assert is_stored(claim)
    assert on_disk() == 0


def test_an_answer_that_is_stored_while_it_is_being_written_leaves_no_file(storer, caller, database, monkeypatch):
    claim = claimed(caller)
    write = spool.write
    writing = threading.Event()
    future: list[Future[bool]] = []

    def slowly(outcome: Outcome, content: bytes) -> Any:
        writing.set()
        assert future[0].result(5) is True
        return write(outcome, content)

    monkeypatch.setattr(spool, "write", slowly)
    database.fall_silent()
    future.append(storer.submit(a_token(claim)))
    assert writing.wait(3)
    database.answer()
    assert future[0].result(5) is True
    wait_until(lambda: spool.directory().exists())
    wait_until(lambda: on_disk() == 0)
    assert is_stored(claim)


# When the disk is full


def test_an_answer_that_no_disk_takes_is_held_in_memory(storer, caller, database, disk, caplog):
    claim = claimed(caller)
    disk.is_full = True
    database.go()
    future = storer.submit(a_token(claim))
    wait_until(lambda: disk.tries >= 3)
    assert storer.is_holding()
    assert list(spool.directory().iterdir()) == []
    assert len([record for record in lines(caplog) if record.name == keeping.__name__]) == 1
    database.come_back()
    assert future.result(5) is True
    assert is_stored(claim)


def test_the_disk_is_tried_again(storer, caller, database, disk):
    disk.is_full = True
    database.go()
    future = storer.submit(a_token(claimed(caller)))
    wait_until(lambda: disk.tries >= 3)
    disk.is_full = False
    wait_until(lambda: on_disk() == 1)
    database.come_back()
    assert future.result(5) is True


def test_a_full_disk_uses_up_no_seals(storer, caller, database, disk, monkeypatch):
    outcome = a_token(claimed(caller))
    disk.is_full = True
    database.go()

    def no_seals(*args: Any) -> Any:
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(data_keys, "seal", no_seals)
        future = storer.submit(outcome)
        wait_until(lambda: disk.tries >= 5)
        disk.is_full = False
        wait_until(lambda: on_disk() == 1)
    database.come_back()
    assert future.result(5) is True


def test_what_cannot_be_sealed_now_does_not_keep_the_others_from_the_disk(storer, caller, database, monkeypatch):
    unsent, token = claimed(caller), claimed(caller)
    database.go()

    def no_seals(*args: Any) -> Any:
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(data_keys, "seal", no_seals)
        futures = [storer.submit(unsent_outcome(unsent)), storer.submit(a_token(token))]
        wait_until(lambda: on_disk() == 1)
    wait_until(lambda: on_disk() == 2)
    database.come_back()
    assert all(future.result(5) for future in futures)


# What no database takes


def poisoned(claim: Connection, how: str) -> Outcome:
    outcome = a_token(claim)
    values = {
        "check": {"lease_expires_at": timezone.now()},
        "value": {"expires_at": "no date"},
        "fault": {"no_such_column": 1},
    }
    return replace(outcome, columns={**outcome.columns, **values[how]})


@pytest.mark.parametrize("how", ["check", "value", "fault"])
def test_an_outcome_that_no_database_takes_holds_up_no_other_and_frees_its_claim(storer, caller, database, how):
    claims = [claimed(caller) for _ in range(4)]
    database.fall_silent()
    futures = [storer.submit(a_token(claims[0]))]
    wait_until(lambda: len(database.batches) == 1)
    futures += [storer.submit(poisoned(claims[1], how)), *(storer.submit(a_token(claim)) for claim in claims[2:])]
    database.answer()
    assert all(future.result(5) for future in futures)
    assert all(is_stored(claim) for claim in (claims[0], *claims[2:]))
    after = row(claims[1])
    assert (after.status, after.failure_code, after.lease_owner) == (Status.REFRESH_FAILING, NOT_STORED.code, None)
    assert after.outcome_unknown_at == claims[1].attempt_started_at
    assert after.access_token.open().reveal() == "access_token-1"


def test_a_token_that_no_database_takes_stays_on_disk(storer, caller, caplog):
    claim = claimed(caller)
    outcome = poisoned(claim, "check")
    assert storer.submit(outcome).result(5) is True
    assert storer.flush(5)
    (kept,) = spool.directory().iterdir()
    assert on_disk() == 0
    assert kept.name in caplog.text
    assert spool.read(kept) == outcome
    assert storer.adopt_spool() == 0


def test_a_spooled_outcome_that_no_database_takes_stays_where_it_is(storer, new_storer, caller, caplog):
    claim, other = claimed(caller), claimed(caller)
    for outcome in (poisoned(claim, "check"), a_token(other)):
        spool.write(outcome, spool.sealed(outcome, data_keys.seal))
    assert storer.adopt_spool() == 2
    assert storer.flush(5)
    assert is_stored(other)
    assert [path.name for path in spool.files()] == [f"{claim.pk}.{claim.lease_owner}.outcome"]
    assert storer.adopt_spool() == 0
    assert len([record for record in lines(caplog, logging.ERROR) if str(claim.pk) in record.getMessage()]) == 1
    # The next process may be of a release that knows what to do with it.
    assert new_storer().adopt_spool() == 1


# What follows from storing


@pytest.mark.parametrize("error", [KeyError("a fault of ours"), ObjectDoesNotExist(), ProgrammingError("refused")])
def test_a_fault_in_what_follows_ends_neither_the_thread_nor_the_batch(storer, caller, database, monkeypatch, error):
    settle, claims = storing.settle, [claimed(caller) for _ in range(4)]

    def faulty(outcome: Outcome, *, is_stored: bool) -> None:
        settle(outcome, is_stored=is_stored)
        if outcome.connection_id == claims[1].pk:
            raise error

    monkeypatch.setattr(storing, "settle", faulty)
    database.fall_silent()
    futures = [storer.submit(a_token(claim)) for claim in claims[:3]]
    database.answer()
    assert all(future.result(5) for future in futures)
    assert storer.submit(a_token(claims[3])).result(5) is True
    assert all(is_stored(claim) for claim in claims)


def test_what_follows_is_made_up_for_when_the_database_was_away_just_then(storer, caller, monkeypatch):
    settle, claim, other, told = storing.settle, claimed(caller), claimed(caller), []
    failures = iter([OperationalError("away")])

    def flaky(outcome: Outcome, *, is_stored: bool) -> None:
        if outcome.connection_id == claim.pk:
            for failure in failures:
                raise failure
        told.append((outcome.connection_id, is_stored))
        settle(outcome, is_stored=is_stored)

    monkeypatch.setattr(storing, "settle", flaky)
    futures = [storer.submit(a_failure(claim)), storer.submit(a_failure(other))]
    assert all(future.result(5) for future in futures)
    assert sorted(told, key=str) == sorted([(claim.pk, True), (other.pk, True)], key=str)
    assert row(claim).failure_count == 1


def test_a_client_that_was_changed_while_it_was_refused_is_tried_again_at_once(storer, caller):
    claim = claimed(caller)
    before = ClientRegistration.objects.get(pk=claim.secret_id)
    ClientRegistration.objects.get(pk=claim.secret_id).save()
    refused = storing.failure_outcome(
        claim, None, ClientRefused("invalid_client", "refused"), now=claim.attempt_started_at
    )
    assert storer.submit(replace(refused, refused=before)).result(5) is True
    assert row(claim).refresh_due_at <= timezone.now()


def test_an_answer_for_a_connection_whose_environment_is_gone_as_well_ends_nothing(storer, caller, caplog):
    claim = claimed(caller)
    outcome = a_token(claim)
    Secret.objects.all().delete()
    assert Environment.objects.filter(pk=claim.environment_id).delete()[0] == 1
    assert storer.submit(outcome).result(5) is False
    assert not lines(caplog, logging.ERROR)
    assert storer.submit(a_token(claimed(Caller()))).result(5) is True


def test_whoever_waits_for_an_outcome_may_fail_without_harm(storer, caller):
    def faulty(future: Future[bool]) -> None:
        raise KeyError("a fault of theirs")

    claim, other = claimed(caller), claimed(caller)
    future = storer.submit(a_token(claim))
    future.add_done_callback(faulty)
    assert storer.submit(a_token(other)).result(5) is True
    assert storer.flush(5)


# The spool


def left_behind(new_storer: Callable[[], Storer], database: Database, outcomes: list[Outcome]) -> None:
    """Leave ``outcomes`` in the spool as a process does that was killed while the database was away."""
    for outcome in outcomes:
        spool.write(outcome, spool.sealed(outcome, outcome.seal or data_keys.seal))


def test_what_a_dead_process_left_is_stored_by_the_next(new_storer, caller, database):
    token, failure, unsent = (claimed(caller) for _ in range(3))
    left_behind(new_storer, database, [a_token(token), a_failure(failure), unsent_outcome(unsent)])
    data_keys.forget()
    storer = new_storer()
    assert storer.adopt_spool() == 3
    assert storer.flush(5)
    assert on_disk() == 0
    assert is_stored(token)
    assert row(failure).failure_count == 1
    assert row(unsent).attempt_started_at is None


def test_a_worker_that_adopts_holds_until_all_is_stored(new_storer, caller, database):
    left_behind(new_storer, database, [a_token(claimed(caller))])
    storer = new_storer()
    database.fall_silent()
    assert storer.adopt_spool() == 1
    assert storer.is_holding()
    assert storer.adopt_spool() == 0
    database.answer()
    assert storer.flush(5)
    assert not storer.is_holding()


def test_a_process_does_not_adopt_what_it_holds_itself(storer, caller, database):
    database.go()
    future = storer.submit(a_token(claimed(caller)))
    wait_until(lambda: on_disk() == 1)
    assert storer.adopt_spool() == 0
    database.come_back()
    assert future.result(5) is True
    assert storer.flush(5)
    assert storer.adopt_spool() == 0


def test_several_processes_that_adopt_the_same_files_store_each_once(new_storer, caller, database, caplog):
    claims = [claimed(caller, status="refresh_failing", failure_count=1) for _ in range(6)]
    ConnectionEvent.objects.all().delete()
    left_behind(new_storer, database, [a_token(claim) for claim in claims])
    storers = [new_storer() for _ in range(3)]
    all_at_once(*[storer.adopt_spool for storer in storers])
    assert all(storer.flush(10) for storer in storers)
    assert all(is_stored(claim) for claim in claims)
    assert ConnectionEvent.objects.count() == 6
    assert on_disk() == 0
    assert not lines(caplog, logging.ERROR)


def test_a_process_and_its_neighbour_store_the_same_answer_once(new_storer, caller, database):
    claim = claimed(caller)
    mine, neighbours = new_storer(), new_storer()
    database.go()
    future = mine.submit(a_token(claim))
    wait_until(lambda: on_disk() == 1)
    assert neighbours.adopt_spool() == 1
    database.come_back()
    assert future.result(5) is True
    assert neighbours.flush(5)
    assert is_stored(claim)
    assert on_disk() == 0


def test_a_spooled_answer_that_was_overtaken_is_not_needed_and_goes(new_storer, caller, database):
    claim = claimed(caller)
    left_behind(new_storer, database, [a_token(claim)])
    Connection.objects.filter(pk=claim.pk).update(generation=7)
    storer = new_storer()
    assert storer.adopt_spool() == 1
    assert storer.flush(5)
    assert on_disk() == 0
    assert row(claim).generation == 7


def test_files_that_cannot_be_read_stay_and_are_told_once(new_storer, caller, database, caplog):
    claim, other = claimed(caller), claimed(caller)
    left_behind(new_storer, database, [a_token(claim), a_token(other)])
    whole = spool.path_of(a_token(claim))
    whole.write_bytes(whole.read_bytes()[:100])
    storer = new_storer()
    assert storer.adopt_spool() == 1
    assert storer.flush(5)
    assert storer.adopt_spool() == 0
    assert spool.files() == [whole]
    assert len(lines(caplog, logging.ERROR)) == 1
    assert is_stored(other)


def test_a_file_that_cannot_be_opened_for_a_moment_is_taken_up_later(new_storer, caller, database, monkeypatch):
    claim = claimed(caller)
    left_behind(new_storer, database, [a_token(claim)])
    storer = new_storer()

    def too_many_files(path: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(spool, "read", too_many_files)
        assert storer.adopt_spool() == 0
    assert storer.adopt_spool() == 1
    assert storer.flush(5)
    assert is_stored(claim)


def test_a_directory_that_cannot_be_read_is_told_and_harms_nobody(storer, caller, settings, tmp_path, caplog):
    settings.SPOOL_DIR = tmp_path / "a-file"
    settings.SPOOL_DIR.write_text("")
    assert storer.adopt_spool() == 0
    assert len(lines(caplog, logging.ERROR)) == 1
    assert storer.submit(a_token(claimed(caller))).result(5) is True


def test_the_database_is_needed_to_read_and_its_absence_loses_nothing(new_storer, caller, database, monkeypatch):
    claim = claimed(caller)
    left_behind(new_storer, database, [a_token(claim)])
    storer = new_storer()

    def away(*args: Any) -> Any:
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(data_keys, "unseal", away)
        with pytest.raises(OperationalError):
            storer.adopt_spool()
    assert storer.adopt_spool() == 1
    assert storer.flush(5)
    assert is_stored(claim)


def test_a_file_that_cannot_be_removed_ends_nothing_and_is_not_stored_again(new_storer, caller, database, monkeypatch):
    claim, other = claimed(caller), claimed(caller)
    left_behind(new_storer, database, [a_token(claim)])
    storer = new_storer()

    def read_only(path: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(spool, "remove", read_only)
        assert storer.adopt_spool() == 1
        assert storer.flush(5)
    assert is_stored(claim)
    assert storer.adopt_spool() == 0
    assert storer.submit(a_token(other)).result(5) is True
    # The next process finds that it is stored.
    again = new_storer()
    assert again.adopt_spool() == 1
    assert again.flush(5)
    assert on_disk() == 0
    assert is_stored(claim)


def test_a_web_process_stores_what_was_left(new_storer, caller, database):
    claim = claimed(caller)
    left_behind(new_storer, database, [a_token(claim)])
    storing.adopt_in_background()
    wait_until(lambda: is_stored(claim))
    assert storing.storer().flush(5)
    assert on_disk() == 0


def test_a_web_process_waits_for_the_database_to_read_what_was_left(new_storer, caller, database, monkeypatch):
    claim = claimed(caller)
    left_behind(new_storer, database, [a_token(claim)])
    unseal, failures = data_keys.unseal, iter([OperationalError("away"), OperationalError("away")])

    def flaky(*args: Any) -> Any:
        for failure in failures:
            raise failure
        return unseal(*args)

    with monkeypatch.context() as patch:
        patch.setattr(data_keys, "unseal", flaky)
        storing.adopt_in_background()
        wait_until(lambda: row(claim).generation == 2)
    assert storing.storer().flush(5)


# The end of a process


def test_a_process_that_ends_while_the_database_is_away_leaves_everything_on_disk(new_storer, caller, database):
    claims = [claimed(caller) for _ in range(3)]
    storer = Storer()
    database.go()
    for claim in claims:
        storer.submit(a_token(claim))
    storer.close()
    assert on_disk() == 3
    database.come_back()
    following = new_storer()
    assert following.adopt_spool() == 3
    assert following.flush(5)
    assert all(is_stored(claim) for claim in claims)


def test_a_process_that_ends_while_the_database_is_silent_leaves_everything_on_disk(new_storer, caller, database):
    claims = [claimed(caller) for _ in range(2)]
    storer = Storer()
    database.fall_silent()
    for claim in claims:
        storer.submit(a_token(claim))
    begun = time.monotonic()
    storer.drain()
    assert time.monotonic() - begun < 2.5
    assert on_disk() == 2
    database.answer()
    storer.close()


def test_a_process_does_not_end_with_an_answer_that_is_nowhere(new_storer, caller, database, disk):
    claim, storer = claimed(caller), Storer()
    disk.is_full = True
    database.go()
    storer.submit(a_token(claim))
    ending = threading.Thread(target=storer.close)
    ending.start()
    ending.join(1.0)
    assert ending.is_alive()
    disk.is_full = False
    ending.join(5)
    assert not ending.is_alive()
    assert on_disk() == 1


def test_a_process_that_ends_stores_what_is_queued(caller, database):
    claims = [claimed(caller) for _ in range(5)]
    storer = Storer()
    for claim in claims:
        storer.submit(a_token(claim))
    storer.close()
    assert all(is_stored(claim) for claim in claims)
    assert on_disk() == 0


def test_after_the_end_of_one_storer_the_process_has_another(caller):
    first = storing.storer()
    assert storing.storer() is first
    storing.close()
    assert storing.storer() is not first
    claim = claimed(caller)
    assert storing.storer().submit(a_token(claim)).result(5) is True
