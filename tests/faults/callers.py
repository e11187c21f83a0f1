"""Callers: processes that ask for one token at the same moment, and others that go on reading a fresh one over HTTP."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from tests.faults.stage import Stage, wait_until
from tests.support.house import BASE_DIR, is_healthy

SCRIPT = Path(__file__).with_name("ask.py")


class Asking:
    """So many processes that have started, and ask when they are told."""

    def __init__(self, stage: Stage, account_id: Any, count: int) -> None:
        env = {**stage.env, "PYTHONPATH": str(BASE_DIR)}
        command = [sys.executable, str(SCRIPT), str(account_id)]
        pipe = subprocess.PIPE
        self._processes = [
            subprocess.Popen(command, env=env, text=True, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
            for _ in range(count)
        ]
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def ask(self, secret_id: Any) -> list[dict[str, Any]]:
        """What each was answered, once all were."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{secret_id}\n")
            process.stdin.flush()
        return [json.loads(process.stdout.readline()) for process in self._processes if process.stdout]


class Readers:
    """Threads that read over HTTP, and one that asks `/healthz`, until the block ends."""

    PAUSE = 0.02

    def __init__(self, stage: Stage, key: str, secret_id: Any, count: int) -> None:
        self._url = f"{stage.base_url}/v1/secrets/{secret_id}/oauth2/token"
        self._port, self._key = stage.port, key
        self._over = threading.Event()
        self.seconds: list[float] = []
        self.statuses: set[int] = set()
        self.health: list[bool] = []
        self._threads = [threading.Thread(target=self._read) for _ in range(count)]
        self._threads.append(threading.Thread(target=self._look))

    def percentile(self, share: float) -> float:
        """In milliseconds."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def _read(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            session.headers["Authorization"] = f"Bearer {self._key}"
            while not self._over.wait(self.PAUSE):
                begun = time.monotonic()
                status = session.get(self._url, timeout=30).status_code
                self.seconds.append(time.monotonic() - begun)
                self.statuses.add(status)

    def _look(self) -> None:
        while not self._over.wait(0.2):
            self.health.append(is_healthy(self._port))

    @classmethod
    @contextlib.contextmanager
    def of(cls, stage: Stage, key: str, secret_id: Any, *, count: int = 4) -> Iterator[Readers]:
        """Readers that have warmed up; they go on for two seconds at least."""
        readers = cls(stage, key, secret_id, count)
        for thread in readers._threads:
            thread.start()
        try:
            wait_until(lambda: len(readers.seconds) > 10 * count, "readers that are answered")
            readers.seconds.clear()
            least = time.monotonic() + 2
            yield readers
            time.sleep(max(0.0, least - time.monotonic()))
        finally:
            readers._over.set()
            for thread in readers._threads:
                thread.join()
