"""How fast a fresh token is handed out: through granian, all middleware, the check of the key and the opening of the token."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.figures import figure, percentile
from benchmarks.scale import Scale
from benchmarks.vaults import CLIENTS, a_vault, add_secret, load
from tests.support.fake_provider_process import FakeProviderProcess
from tests.support.vaults import Vault


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads by clients that keep their connections and ask again as soon as they are answered."""

    clients: int = figure("clients", "")
    requests: int = figure("requests", "")
    requests_per_second: float = figure("rate", "requests/s")
    p50_ms: float = figure("p50", "ms")
    p99_ms: float = figure("p99", "ms")
    load_cpu_ms: float = figure("CPU of the load, on the same cores, per request", "ms")


def measure(scale: Scale) -> Reading:
    """Start a vault, put one secret into it, and let clients read its token."""
    with a_vault() as vault, FakeProviderProcess() as provider:
        return read(vault, add_secret(vault, provider, "fresh"), scale.seconds)


def read(vault: Vault, path: str, seconds: float) -> Reading:
    """Let clients read the fresh token at ``path`` for so long."""
    with load(vault, path, seconds) as readers:
        outcome = readers.outcome()
    outcome.check()
    times = outcome.times()
    return Reading(
        clients=CLIENTS,
        requests=len(times),
        requests_per_second=len(times) / outcome.seconds,
        p50_ms=percentile(times, 50) * 1000,
        p99_ms=percentile(times, 99) * 1000,
        load_cpu_ms=outcome.cpu_seconds / len(times) * 1000,
    )
