"""Sixteen processes ask for one expired token: one call, and nobody else notices."""

from __future__ import annotations

import pytest
import requests

from oauth_app.fake_provider import Answer
from oauth_app.providers import ReplayPolicy
from tests.factories import Caller, a_client, age, an_oauth2_secret, consent
from tests.faults.callers import Asking, Readers
from tests.faults.providers import StrictProvider
from tests.faults.stage import Stage, say

ASKING = 16
# Longer than any answer takes: clients give up on a server that is silent for 30 s.
ANSWERED_WITHIN = 25.0
# Speed is judged in benchmarks: what must not happen is that readers stand behind those who wait.
READ_WITHIN = 5.0


@pytest.mark.timeout(300)
def test_sixteen_processes_make_one_call_and_all_are_answered(stage: Stage, http: requests.Session) -> None:
    caller = Caller()
    with StrictProvider() as provider:
        fresh = consent(an_oauth2_secret(caller, a_client(provider), "fresh"), http)
        stage.start_web()
        with Asking(stage, caller.account.pk, ASKING) as asking:
            asking.ask(fresh.secret_id)
            # Where the answer never comes, a second use could only be a replay.
            for number, delay in enumerate((0.05, 3.0, 11.0, None)):
                client = a_client(provider, replay_policy=ReplayPolicy.NEVER)
                expired = age(consent(an_oauth2_secret(caller, client, f"expired-{number}"), http), expires_in=-1)
                provider.next(Answer.hang() if delay is None else Answer(delay=delay), grant_type="refresh_token")
                received = provider.received
                with Readers.of(stage, caller.key, fresh.secret_id) as readers:
                    answers = asking.ask(expired.secret_id)
                calls = provider.received - received
                provider.release()

                what = "no answer at all" if delay is None else f"an answer after {delay} s"
                p50, p99 = readers.percentile(0.5), readers.percentile(0.99)
                slowest = max(answer["seconds"] for answer in answers)
                say(f"{what}: {calls} call, {ASKING} processes answered within {slowest:.2f} s; beside them")
                say(
                    f"    {len(readers.seconds)} reads of a fresh token, p50 {p50:.1f} ms, p99 {p99:.1f} ms"
                    f" ({'under' if p99 < 100 else 'NOT under'} 100 ms)"
                )
                assert calls == 1
                assert slowest < ANSWERED_WITHIN
                expected = {"error": "TokenUnavailable"} if delay is None else {"generation": 2}
                assert [{**answer, "seconds": 0} for answer in answers] == [{**expected, "seconds": 0}] * ASKING
                assert readers.statuses == {200}
                assert readers.health
                assert all(readers.health)
                assert max(readers.seconds) < READ_WITHIN
        assert provider.reuses == 0
