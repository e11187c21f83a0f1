"""Two beats, two workers and every message several times: each token is renewed once in its time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
import requests
from celery import Celery

from knoxcall.clock import database_now
from oauth_app.providers import ReplayPolicy
from oauth_app.schedule import JITTER_SHARE, MARGIN_SHARE
from tests.faults.ledger import Ledger
from tests.faults.population import Population
from tests.faults.providers import StrictProvider
from tests.faults.stage import Stage, say, wait_until

LIFETIME = 8
# What a connection must have been refreshed before the test ends.
REFRESHES = 4


@pytest.mark.timeout(300)
def test_each_due_connection_is_refreshed_once_in_its_time(stage: Stage, http: requests.Session) -> None:
    with StrictProvider(delay=0.2) as provider:
        population = Population(http, lifetimes=(LIFETIME, LIFETIME))
        population.add(provider, ReplayPolicy.NEVER, by_code=30)
        began = {member.connection.pk: member.row().issued_at for member in population}
        workers = [stage.start(f"worker-{number}", "worker") for number in (1, 2)]
        for number in (1, 2):
            stage.start(f"beat-{number}", "beat")
        with repeated_messages(stage):
            wait_until(
                lambda: min(grant.refreshes for grant in provider.grants().values()) >= REFRESHES,
                f"{REFRESHES} refreshes of every connection",
                pause=0.5,
            )
        for worker in workers:
            worker.terminate()

        shortest = LIFETIME * (1 - MARGIN_SHARE - JITTER_SHARE)
        grants, rows, now = provider.grants(), population.rows(), database_now()
        for member in population:
            grant, row = grants[member.first_refresh_token_sha256], rows[member.connection.pk]
            started_at = began[row.pk]
            assert started_at is not None
            # Every stored token was one call, and no call came before it was due.
            assert grant.refreshes == row.generation - member.first_generation
            assert grant.refreshes <= (now - started_at).total_seconds() / shortest
        say(
            f"{provider.told('refreshes')['refreshes']} refreshes of {len(rows)} connections, each once when it was due"
        )
        ledger = Ledger()
        ledger.close(population)
        assert ledger.faults == []
        assert provider.reuses == 0


@contextlib.contextmanager
def repeated_messages(stage: Stage) -> Iterator[None]:
    """Twenty more sweeps a second than beat asks for, while the block runs."""
    over = threading.Event()

    def send() -> None:
        with Celery(broker=stage.redis_url) as app:
            while not over.wait(0.05):
                app.send_task("oauth_app.tasks.sweep", expires=1.0)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
