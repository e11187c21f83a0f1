"""`kill -9` of a worker while its calls are in flight, round after round: nothing is sent twice, and nothing stays stuck."""

from __future__ import annotations

import random
import time
from collections import Counter
from datetime import timedelta

import pytest
import requests
from django.db import connection as database

from knoxcall.clock import database_now
from oauth_app.models import Connection
from oauth_app.providers import ReplayPolicy
from oauth_app.tokens import get_access_token
from tests.faults.ledger import Ledger, described, marked, stuck
from tests.faults.population import Population
from tests.faults.providers import StrictProvider, calls_of
from tests.faults.stage import PATIENCE, Process, Stage, rounds, say, wait_until, wait_until_none

# Seconds. A lease, and the minute after it in which everything must have come right.
LEASE, GRACE = 45, 60
WORKERS = ("worker-1", "worker-2")
ROUNDS_PER_VISIT = 2
# Seconds between the work of a provider and its answer.
SHORTEST_DELAY, LONGEST_DELAY = 0.3, 0.5
# Seconds that one token in four lives, longer than a lease: what becomes unknown of those waits for their end.
LONG_LIFE = 120


class Rounds:
    """Two workers, and a hand that kills them in turn."""

    def __init__(self, stage: Stage, providers: dict[ReplayPolicy, StrictProvider], population: Population) -> None:
        self.stage, self.providers, self.population = stage, providers, population
        self.ledger = Ledger()
        self.killed: Counter[str] = Counter()
        self.in_flight = 0
        self._workers = {name: stage.start(name, "worker") for name in WORKERS}

    def kill_one(self) -> None:
        """Kill a worker that waits for an answer, at any moment of that, and start it again."""
        victim, calls = wait_until(
            self._busiest_after_a_while, "a worker with calls in flight", seconds=2 * PATIENCE, pause=0.01
        )
        victim.kill()
        self.killed[victim.name] += 1
        self.in_flight += calls
        self._workers[victim.name] = self.stage.start(victim.name, "worker")

    def _busiest_after_a_while(self) -> tuple[Process, int] | None:
        if not self._busiest():
            return None
        time.sleep(random.uniform(0, SHORTEST_DELAY))
        return self._busiest()

    def _busiest(self) -> tuple[Process, int] | None:
        ports = [port for provider in self.providers.values() for port in provider.callers()]
        if not ports:
            return None
        calls, name = max((calls_of(worker, ports), name) for name, worker in self._workers.items())
        return (self._workers[name], calls) if calls else None

    def visit(self) -> None:
        """Look for what is stuck, let people consent again where they must, and change the weather."""
        assert not stuck(), stuck()
        ended = self.population.ended()
        self.ledger.close_ended(ended, self.population.rows())
        for member in ended:
            self.population.reconnect(member)
        for provider in self.providers.values():
            expires_in = random.choice([self.population.a_lifetime()] * 3 + [LONG_LIFE])
            provider.set(expires_in=expires_in, delay=random.uniform(SHORTEST_DELAY, LONGEST_DELAY))
        self.hurry()

    def hurry(self) -> None:
        """Bring every due time nearer by a random part: calls come one by one then, and also for tokens that live long."""
        with database.cursor() as cursor:
            cursor.execute(
                "UPDATE oauth_app_connection "
                "SET refresh_due_at = now() + (0.3 + 0.7 * random()) * (refresh_due_at - now()) "
                "WHERE refresh_due_at > now() + interval '3 seconds' AND lease_owner IS NULL AND outcome_unknown_at IS NULL"
            )

    def come_to_rest(self) -> None:
        """Wait until every lease of the killed has ended, and what it left behind has come right; then end the workers."""
        begun, last_kill = time.monotonic(), database_now()
        old_attempts = Connection.objects.filter(attempt_started_at__lte=last_kill)
        wait_until_none(
            lambda: [described(row) for row in old_attempts.all()] + stuck(timedelta(seconds=5)),
            "everything that the killed left behind to come right",
            seconds=LEASE + GRACE,
        )
        say(f"at rest after {time.monotonic() - begun:.0f} s")
        for worker in self._workers.values():
            worker.terminate()


@pytest.mark.timeout(600 + 15 * rounds())
def test_no_grant_is_lost_and_no_refresh_token_sent_twice(stage: Stage, http: requests.Session) -> None:
    with (
        StrictProvider(delay=0.3) as one_try,
        StrictProvider(delay=0.3) as never,
        # What `safe` is for: a provider that answers a replay with the same tokens.
        StrictProvider(delay=0.3, reuse_grace=3600) as safe,
    ):
        providers = {ReplayPolicy.ONE_TRY: one_try, ReplayPolicy.NEVER: never, ReplayPolicy.SAFE: safe}
        population = Population(http, long_life=LONG_LIFE)
        population.add(one_try, ReplayPolicy.ONE_TRY, by_code=36, repeatable=4)
        population.add(never, ReplayPolicy.NEVER, by_code=28, repeatable=4)
        population.add(safe, ReplayPolicy.SAFE, by_code=20, repeatable=4)
        stage.start("beat")
        running = Rounds(stage, providers, population)
        running.hurry()
        say(f"{len(population.members)} connections; {rounds()} rounds")
        for number in range(1, rounds() + 1):
            running.kill_one()
            if number % ROUNDS_PER_VISIT == 0:
                running.visit()
            if number % max(5, rounds() // 25) == 0:
                say(f"round {number}: {running.in_flight} calls were in flight at the kills; {population.state()}")
        running.come_to_rest()
        running.ledger.close(population)
        check_served(population)

        for line in running.ledger.report():
            say(line)
        say(f"reuses: one_try {one_try.reuses}, never {never.reuses}, safe {safe.reuses}")
        assert running.killed.total() == rounds()
        assert running.ledger.faults == []
        assert never.reuses == 0
        assert safe.reuses == 0
        assert one_try.reuses == running.ledger.replays
        assert marked() == []


def check_served(population: Population) -> None:
    """Whoever waits for the end of its token is served that token meanwhile."""
    rows = population.rows()
    for member in population:
        row = rows[member.connection.pk]
        if row.outcome_unknown_at is not None:
            token = get_access_token(member.caller.scope, row.secret_id)
            assert token.generation == row.generation
