"""Callers in a process of their own, so that they do not share an interpreter with anything that is measured.

`python -m benchmarks.load` reads an order from standard input, says `ready` when its callers have warmed up and begin, and
prints what happened as JSON. They still share the machine's cores with the vault.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from typing import NamedTuple

from benchmarks.figures import MeasurementFailed
from tests.support.house import BASE_DIR

# Longer than a request may last.
TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Order:
    """Who asks for what, and for how long. Each client keeps one connection and asks again as soon as it was answered."""

    port: int
    path: str
    api_key: str
    clients: int
    seconds: float
    warm_up: int = 0
    """Requests of each client that are not counted."""


class Asked(NamedTuple):
    """One request and its answer."""

    status: int
    seconds: float
    retry_after: float
    """Seconds that the answer asks to wait before the next one; 0 where it does not."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an order."""

    asked: list[Asked]
    seconds: float
    """From the first counted request to the end of the last."""
    cpu_seconds: float
    """Of the load itself, meanwhile."""

    def times(self) -> list[float]:
        """Seconds of the requests that were served."""
        return [asked.seconds for asked in self.asked if asked.status == 200]

    def refusals(self) -> int:
        """How many were told to come back later."""
        return sum(asked.status != 200 and asked.retry_after > 0 for asked in self.asked)

    def check(self, *, refusals: bool = False) -> None:
        """Raise ``MeasurementFailed`` unless every request was served, or told to come back later where that is fine."""
        served = len(self.times()) + (self.refusals() if refusals else 0)
        if not self.times() or served < len(self.asked):
            raise MeasurementFailed(f"answers by status: {dict(Counter(asked.status for asked in self.asked))}")


class Load:
    """A running load; a context manager, which ends it."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def __enter__(self) -> Load:
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "benchmarks.load"]
        self._process = subprocess.Popen(command, cwd=BASE_DIR, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        # Not in the command line: that is for everybody to see, and the order holds a key.
        stdin.write(json.dumps(asdict(self._order)) + "\n")
        stdin.flush()
        if stdout.readline() != "ready\n":
            raise self._failure()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def outcome(self) -> Outcome:
        """Wait until the load has ended by itself. Raises ``MeasurementFailed``."""
        try:
            printed, _ = self._process.communicate(timeout=self._order.seconds + 2 * TIMEOUT)
        except subprocess.TimeoutExpired:
            raise MeasurementFailed("the load did not end") from None
        if self._process.returncode:
            raise self._failure()
        outcome = json.loads(printed)
        return Outcome([Asked(*asked) for asked in outcome.pop("asked")], **outcome)

    def _failure(self) -> MeasurementFailed:
        _, complaint = self._process.communicate()
        # The last line of a traceback says what it was.
        *_, error = ["no word of why", *complaint.splitlines()]
        return MeasurementFailed(f"a client failed: {error}")


def carry_out(order: Order) -> Outcome:
    """Let all clients of ``order`` ask until its time is over, and wait for the answers still due."""
    requests: list[Asked] = []
    before: list[tuple[float, float]] = []

    def begin() -> None:
        before.append((time.perf_counter(), _cpu_seconds()))
        print("ready", flush=True)

    warm = threading.Barrier(order.clients, action=begin, timeout=TIMEOUT)

    def client() -> None:
        with _connection(order.port) as connection:
            for _ in range(order.warm_up):
                _ask(connection, order)
            warm.wait()
            ends_at = time.perf_counter() + order.seconds
            while (asked_at := time.perf_counter()) < ends_at:
                status, retry_after = _ask(connection, order)
                requests.append(Asked(status, time.perf_counter() - asked_at, retry_after))
                time.sleep(max(0.0, min(retry_after, ends_at - time.perf_counter())))

    with ThreadPoolExecutor(order.clients) as pool:
        for running in [pool.submit(client) for _ in range(order.clients)]:
            running.result()
    began, cpu = before[0]
    return Outcome(requests, time.perf_counter() - began, _cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@contextlib.contextmanager
def _connection(port: int) -> Iterator[HTTPConnection]:
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        yield connection
    finally:
        connection.close()


def _ask(connection: HTTPConnection, order: Order) -> tuple[int, float]:
    """One request; returns its status, and the seconds that the answer asks to wait before the next one."""
    connection.request("GET", order.path, headers={"Authorization": f"Bearer {order.api_key}"})
    response = connection.getresponse()
    response.read()
    return response.status, float(response.headers.get("Retry-After", 0))


if __name__ == "__main__":
    print(json.dumps(asdict(carry_out(Order(**json.loads(sys.stdin.readline()))))))
