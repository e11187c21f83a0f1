"""SIGTERM of a worker, as a deploy sends it, while calls are in flight: they are finished, and nothing stays marked."""

from __future__ import annotations

import random
import time

import pytest
import requests
from django.db.models.functions import Now

from oauth_app.models import Connection
from oauth_app.providers import ReplayPolicy
from tests.faults.ledger import Ledger, marked
from tests.faults.population import Population
from tests.faults.providers import StrictProvider
from tests.faults.stage import PATIENCE, Stage, rounds, say, wait_until

DEPLOYS = 3 if rounds() <= 20 else 10


@pytest.mark.timeout(120 + 60 * DEPLOYS)
def test_a_worker_that_is_told_to_end_finishes_its_calls_and_hands_the_rest_back(
    stage: Stage, http: requests.Session
) -> None:
    with StrictProvider(delay=2, expires_in=600) as provider:
        population = Population(http, lifetimes=(600, 600))
        # More than a worker calls at once, of a policy that forgives no call of which nobody knows what became.
        population.add(provider, ReplayPolicy.NEVER, by_code=100)
        stage.start("beat")
        for number in range(1, DEPLOYS + 1):
            Connection.objects.update(refresh_due_at=Now())
            worker = stage.start("worker")
            begun = time.monotonic()
            calling = len(wait_until(provider.callers, "calls in flight", pause=0.002))
            waited = time.monotonic() - begun
            time.sleep(random.uniform(0, 1))
            took = worker.terminate()
            due = Connection.objects.filter(refresh_due_at__lte=Now()).count()
            say(
                f"deploy {number}: called after {waited:.1f} s, {calling} or more in flight; ended in {took:.1f} s, "
                f"{due} handed back or untouched"
            )
            assert took < PATIENCE
            assert marked() == []
            assert not Connection.objects.filter(outcome_unknown_at__isnull=False)
        ledger = Ledger()
        ledger.close(population)
        assert ledger.faults == []
        assert ledger.kept.total() == len(population.members)
        assert provider.reuses == 0
        assert provider.told("refreshes")["refreshes"] >= DEPLOYS
        assert not list(stage.spool.glob("*"))
