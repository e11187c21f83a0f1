"""The database commits, and the connection to it is lost before it says so: a claim is not a call, and a store is stored."""

from __future__ import annotations

import pytest
import requests
from django.db.models.functions import Now

from knoxcall.clock import database_now
from oauth_app.models import Connection
from oauth_app.providers import ReplayPolicy
from tests.faults.ledger import Ledger, not_refreshed_since
from tests.faults.population import Population
from tests.faults.providers import StrictProvider
from tests.faults.stage import PATIENCE, Stage, say, wait_until_none
from tests.support.cut_wire import CutWire

# What is in the statement, and in no other.
STATEMENTS = {"a claim": ("WITH due AS MATERIALIZED", "lease_owner = "), "a store": ("stored_by", "WITH v (")}
# Seconds: a lease, the time that the spools have after an outage, and some.
RECOVERY = 45 + 60 + 60


@pytest.mark.timeout(2 * RECOVERY)
@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_commit_that_nobody_heard_of_costs_no_grant(stage: Stage, http: requests.Session, statement: str) -> None:
    with StrictProvider() as provider, CutWire(stage.database_url) as wire:
        population = Population(http, lifetimes=(900, 900))
        population.add(provider, ReplayPolicy.NEVER, by_code=6)
        population.add(provider, ReplayPolicy.ONE_TRY, by_code=6)
        before = database_now()
        stage.env["DATABASE_URL"] = wire.url
        Connection.objects.update(refresh_due_at=Now())
        wire.cut_after(*STATEMENTS[statement])
        stage.start("beat")
        worker = stage.start("worker")
        assert wire.was_cut.wait(PATIENCE)
        began = database_now()
        wait_until_none(lambda: not_refreshed_since(before), "every connection to be refreshed", seconds=RECOVERY)
        say(
            f"{statement} lost its acknowledgement; all was well {(database_now() - began).total_seconds():.1f} s later"
        )
        worker.terminate()
        ledger = Ledger()
        ledger.close(population)
        assert ledger.faults == []
        assert ledger.kept.total() == len(population.members)
        assert provider.reuses == 0
