"""PostgreSQL stopped and started under refresh load: no grant is lost, nothing is sent twice, and nobody has to do anything."""

from __future__ import annotations

import itertools
import random
import time

import pytest
import requests

from knoxcall.clock import database_now
from oauth_app.providers import ReplayPolicy
from tests.faults.ledger import Ledger, not_refreshed_since, stuck
from tests.faults.population import Population
from tests.faults.providers import StrictProvider
from tests.faults.stage import Stage, forget_connections, rounds, say, wait_until, wait_until_none
from tests.support.stoppable import StoppablePostgres

OUTAGES = 4 if rounds() <= 20 else 10
# Seconds: a lease, the time that the spools have after an outage, and some.
RECOVERY = 45 + 60 + 60
# Lines above INFO that one outage may cost a worker's log.
MOST_LINES = 12
WORKERS = ("worker-1", "worker-2")


@pytest.mark.timeout(180 + 60 * OUTAGES + 2 * RECOVERY)
def test_an_outage_of_the_database_costs_no_grant(
    stage: Stage, postgres: StoppablePostgres, http: requests.Session
) -> None:
    with (
        StrictProvider(delay=0.3) as one_try,
        StrictProvider(delay=0.3) as never,
        StrictProvider(delay=0.3, reuse_grace=3600) as safe,
    ):
        providers = (one_try, never, safe)
        population = Population(http, lifetimes=(10, 20))
        population.add(one_try, ReplayPolicy.ONE_TRY, by_code=18, repeatable=2)
        population.add(never, ReplayPolicy.NEVER, by_code=18, repeatable=2)
        population.add(safe, ReplayPolicy.SAFE, by_code=14, repeatable=2)
        workers = {name: stage.start(name, "worker") for name in WORKERS}
        stage.start("beat")
        stops = itertools.cycle([postgres.stop_immediately, postgres.kill])
        for number in range(1, OUTAGES + 1):
            # Answers arrive while it is away: the calls are made, and their delay is not over.
            calling = wait_until(lambda: sum(len(provider.callers()) for provider in providers), "calls in flight")
            stop = next(stops)
            stop()
            away = random.uniform(1, 8)
            time.sleep(away)
            postgres.start()
            forget_connections()
            say(f"outage {number}: {stop.__name__}, away for {away:.1f} s, {calling} calls were in flight")
            time.sleep(random.uniform(1, 3))
        came_back = database_now()
        begun = time.monotonic()
        wait_until_none(
            lambda: not_refreshed_since(came_back), "every connection to be refreshed again", seconds=RECOVERY
        )
        say(f"everything was refreshed again {time.monotonic() - begun:.0f} s after the last outage")
        assert not stuck()
        assert all(worker.is_running for worker in workers.values())
        for worker in workers.values():
            worker.terminate()
        ledger = Ledger()
        ledger.close(population)

        for line in ledger.report():
            say(line)
        assert ledger.faults == []
        assert not ledger.ended
        assert [provider.reuses for provider in providers] == [0, 0, 0]
        assert not list(stage.spool.glob("*"))
        for name in WORKERS:
            stage.check_log(name, most=MOST_LINES * OUTAGES)
