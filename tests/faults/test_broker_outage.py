"""Valkey stopped under refresh load: workers sweep by themselves, and listen again when it is back."""

from __future__ import annotations

import signal
import time

import pytest
import redis
import requests

from knoxcall.clock import database_now
from oauth_app.models import Connection
from oauth_app.providers import ReplayPolicy
from tests.faults.ledger import Ledger, not_refreshed_since, stuck
from tests.faults.population import Population
from tests.faults.providers import StrictProvider
from tests.faults.stage import Stage, rounds, say, wait_until, wait_until_none
from tests.support.stoppable import Stoppable

OUTAGE_SECONDS = 10 if rounds() <= 20 else 30
WORKERS = ("worker-1", "worker-2")
MESSAGES = 10
# Lines above INFO that the outage may cost a worker's log.
MOST_LINES = 40


@pytest.mark.timeout(400)
def test_refreshes_go_on_without_the_broker(stage: Stage, valkey: Stoppable, http: requests.Session) -> None:
    with StrictProvider(delay=0.2) as provider:
        population = Population(http, lifetimes=(8, 16))
        population.add(provider, ReplayPolicy.NEVER, by_code=40, repeatable=4)
        workers = {name: stage.start(name, "worker") for name in WORKERS}
        beat = stage.start("beat")
        wait_until(lambda: provider.told("refreshes")["refreshes"], "a refresh")
        valkey.stop(signal.SIGKILL)
        gone = database_now()
        before = provider.told("refreshes")["refreshes"]
        time.sleep(OUTAGE_SECONDS)
        meanwhile = provider.told("refreshes")["refreshes"] - before
        late = Connection.objects.filter(expires_at__lt=database_now()).count()
        wait_until_none(lambda: not_refreshed_since(gone), "every connection to be refreshed without the broker")
        valkey.start()
        begun = time.monotonic()
        with redis.Redis.from_url(stage.redis_url) as broker:
            wait_until(lambda: sent(broker) >= MESSAGES and not broker.llen("celery"), "beat's messages to be heard")
        say(f"{meanwhile} refreshes in {OUTAGE_SECONDS} s without Valkey, {late} tokens had expired at their end")
        say(f"{MESSAGES} messages of beat were heard within {time.monotonic() - begun:.0f} s after it was back")
        assert meanwhile
        assert beat.is_running
        assert all(worker.is_running for worker in workers.values())
        assert not stuck()
        for worker in workers.values():
            worker.terminate()
            stage.check_log(worker.name, most=MOST_LINES)
        ledger = Ledger()
        ledger.close(population)
        assert ledger.faults == []
        assert not ledger.ended
        assert provider.reuses == 0


def sent(broker: redis.Redis) -> int:
    """Messages that beat has left there since it started."""
    return int(broker.info("commandstats").get("cmdstat_lpush", {}).get("calls", 0))
