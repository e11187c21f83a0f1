"""Which of the processes that share a run of the tests this is, and what belongs to it alone. pytest-xdist tells by variables."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

# "gw0", "gw1" and so on; nothing where one process runs all tests, or directs the others.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
NUMBER = int(WORKER.removeprefix("gw") or 0)
COUNT = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
# What a Redis has unless it is told otherwise.
REDIS_DATABASES = 16
# Below the ports that systems give to outgoing connections: what is free there stays free until it is used.
FIRST_PORT, PORTS_EACH = 20_000, 1_000


def own_redis_databases() -> list[int]:
    """The databases of the suite's Redis that are this process's: the first for its tests, the others for their vaults."""
    own = list(range(NUMBER, REDIS_DATABASES, COUNT))
    if len(own) < 2:
        raise RuntimeError(f"{COUNT} workers are too many: each needs two of the {REDIS_DATABASES} databases of Redis")
    return own


def with_redis_database(url: str, number: int) -> str:
    return urlsplit(url)._replace(path=f"/{number}").geturl()


def own_ports() -> range:
    """Ports on which no other process of the run listens."""
    first = FIRST_PORT + NUMBER % 10 * PORTS_EACH
    return range(first, first + PORTS_EACH)
