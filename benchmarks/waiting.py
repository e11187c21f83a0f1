"""Whether reads of fresh tokens stay fast while many callers wait for a token that a hanging provider does not renew."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.figures import MeasurementFailed, figure
from benchmarks.reading import read
from benchmarks.scale import Scale
from benchmarks.vaults import a_vault, add_secret, load
from oauth_app.fake_provider import Answer
from tests.support.fake_provider_process import FakeProviderProcess
from tests.support.vaults import Vault

CALLERS = 40
# For all callers to arrive, and for those who found no place to have been told so.
SETTLE = 1.0
# The vault waits 20 s for a provider, and its callers with it; everything here must be over by then.
LONGEST = 12.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """Reads of a fresh token as in ``Reading``, beside callers of an expired one."""

    callers: int = figure("callers of the expired token", "")
    waited: int = figure("of these waited throughout", "")
    refusals: int = figure("answers that said to come back in a second", "")
    requests_per_second: float = figure("rate of the fresh reads", "requests/s")
    p50_ms: float = figure("p50 of the fresh reads", "ms")
    p99_ms: float = figure("p99 of the fresh reads", "ms")


def measure(scale: Scale) -> Waiting:
    """Start a vault with a fresh and an expiring token, let the provider hang, and read the fresh one beside the callers."""
    with a_vault() as vault, FakeProviderProcess() as provider:
        return read_beside_callers(vault, provider, add_secret(vault, provider, "fresh"), scale.seconds)


def read_beside_callers(vault: Vault, provider: FakeProviderProcess, fresh: str, seconds: float) -> Waiting:
    """Let clients read the token at ``fresh`` while others wait for one that has expired."""
    provider.set(expires_in=1)
    expired = add_secret(vault, provider, "expired")
    received = provider.log()["received"]
    # The next answer is of a token that lives long, and is held.
    provider.set(expires_in=3600, answer=Answer.hang())
    provider.wait_for_requests(received + 1)
    with load(vault, expired, SETTLE + seconds, clients=CALLERS, warm_up=0) as callers:
        time.sleep(SETTLE)
        reading = read(vault, fresh, min(seconds, LONGEST))
        provider.set(answer=None)
        provider.release()
        outcome = callers.outcome()
    outcome.check(refusals=True)
    lasted = reading.requests / reading.requests_per_second
    waited = sum(seconds >= lasted for seconds in outcome.times())
    if waited < CALLERS / 2:
        raise MeasurementFailed(f"only {waited} of {CALLERS} callers waited, with {outcome.refusals()} refusals")
    return Waiting(
        callers=CALLERS,
        waited=waited,
        refusals=outcome.refusals(),
        requests_per_second=reading.requests_per_second,
        p50_ms=reading.p50_ms,
        p99_ms=reading.p99_ms,
    )
