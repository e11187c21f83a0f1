"""Answers that arrive while PostgreSQL is away: on disk they survive the worker, and where the disk is full they are held."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
import pytest
import requests
from django.db.models.functions import Now

from knoxcall.clock import database_now
from oauth_app.fake_provider import Answer
from oauth_app.models import Connection
from oauth_app.providers import ReplayPolicy
from tests.faults.ledger import Ledger, not_refreshed_since
from tests.faults.population import Population
from tests.faults.providers import StrictProvider
from tests.faults.stage import Process, Stage, forget_connections, say, wait_until, wait_until_none
from tests.support.stoppable import StoppablePostgres

LIFETIME = 900
# Seconds in which a worker would claim what is due, several times over.
WHILE = 4.0
MOST_LINES = 12

pytestmark = pytest.mark.timeout(400)


def connected(http: requests.Session, provider: StrictProvider) -> Population:
    """Connections of the two policies under which a lost answer costs the grant."""
    population = Population(http, lifetimes=(LIFETIME, LIFETIME))
    population.add(provider, ReplayPolicy.NEVER, by_code=8)
    population.add(provider, ReplayPolicy.ONE_TRY, by_code=8)
    return population


def calling(stage: Stage, provider: StrictProvider, count: int) -> Process:
    """A worker whose calls have taken effect at the provider, and whose answers are held back."""
    provider.set(answer=Answer.hang())
    Connection.objects.update(refresh_due_at=Now())
    stage.start("beat")
    worker = stage.start("worker")
    wait_until(lambda: len(provider.callers()) == count, f"{count} calls in flight")
    provider.set(answer=None)
    return worker


def spooled(stage: Stage) -> list[Path]:
    """The answers on disk."""
    return sorted(stage.spool.glob("*.outcome"))


def check_nothing_was_lost(stage: Stage, population: Population, provider: StrictProvider) -> None:
    ledger = Ledger()
    ledger.close(population)
    for line in ledger.report():
        say(line)
    assert ledger.faults == []
    assert ledger.kept.total() == len(population.members)
    assert provider.reuses == 0
    assert spooled(stage) == []


def test_an_answer_on_disk_survives_a_worker_that_is_killed_while_the_database_is_away(
    stage: Stage, postgres: StoppablePostgres, http: requests.Session
) -> None:
    with StrictProvider() as provider:
        population = connected(http, provider)
        count = len(population.members)
        worker = calling(stage, provider, count)
        before = database_now()
        postgres.stop_immediately()
        provider.release()
        begun = time.monotonic()
        wait_until(lambda: len(spooled(stage)) == count, f"{count} answers in the spool")
        say(f"{count} answers were on disk {time.monotonic() - begun:.1f} s after they came")
        worker.kill()
        postgres.start()
        forget_connections()
        worker = stage.start("worker")
        begun = time.monotonic()
        wait_until_none(lambda: not_refreshed_since(before), "the spooled answers to be stored")
        say(f"all were stored {time.monotonic() - begun:.1f} s after the database and a worker were back")
        worker.terminate()
        check_nothing_was_lost(stage, population, provider)


def test_an_answer_that_no_disk_takes_is_held_until_the_database_is_back(
    stage: Stage, postgres: StoppablePostgres, http: requests.Session
) -> None:
    with StrictProvider() as provider:
        population = connected(http, provider)
        worker = calling(stage, provider, len(population.members))
        before = database_now()
        worker.fill_disk()
        postgres.stop_immediately()
        provider.release()
        wait_until(lambda: told_of_spool(worker), "a word about the spool")
        time.sleep(WHILE)
        assert spooled(stage) == []
        assert worker.is_running
        postgres.start()
        forget_connections()
        wait_until_none(lambda: not_refreshed_since(before), "the answers that were held to be stored")
        worker.terminate()
        check_nothing_was_lost(stage, population, provider)
        stage.check_log("worker", most=MOST_LINES)


def test_a_worker_that_holds_an_answer_claims_nothing_new(stage: Stage, http: requests.Session) -> None:
    with StrictProvider() as provider:
        population = connected(http, provider)
        held, *others = population.members
        before = database_now()
        provider.set(answer=Answer.hang())
        Connection.objects.filter(pk=held.connection.pk).update(refresh_due_at=Now())
        stage.start("beat")
        worker = stage.start("worker")
        wait_until(provider.callers, "a call in flight")
        provider.set(answer=None)
        worker.fill_disk()
        with psycopg.connect(stage.database_url) as somebody:
            somebody.execute("SELECT 1 FROM oauth_app_connection WHERE id = %s FOR UPDATE", [held.connection.pk])
            provider.release()
            wait_until(lambda: told_of_spool(worker), "a word about the spool")
            received = provider.received
            Connection.objects.filter(pk__in=[other.connection.pk for other in others]).update(refresh_due_at=Now())
            time.sleep(WHILE)
            assert provider.received == received
        wait_until_none(lambda: not_refreshed_since(before), "the rest to be refreshed")
        worker.terminate()
        check_nothing_was_lost(stage, population, provider)


def told_of_spool(worker: Process) -> list[str]:
    return [line for line in worker.output() if " ERROR " in line and "spool" in line]
