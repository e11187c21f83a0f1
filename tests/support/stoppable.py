"""A PostgreSQL and a Valkey that a test stops, kills and starts again: on the same port, and PostgreSQL with the same data."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import redis

from knoxcall.children import end_with_parent
from tests.support.services import Postgres, Valkey

START_SECONDS = 60
STOP_SECONDS = 30


class Stoppable:
    """A server that is not there all the time. To be started and stopped by the thread that made it."""

    def __init__(self, server: Any, errors: type[Exception], **options: Any) -> None:
        self.url: str = server.url
        self._server, self._errors, self._options = server, errors, options
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._running is not None and self._running.poll() is None

    def start(self) -> None:
        """Return when it answers; at once where it is running."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            if not self.is_running:
                # Also a start that failed: what a killed server left behind is in the way of the next one for a moment.
                self._running = subprocess.Popen(
                    self._server.command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    preexec_fn=end_with_parent(),
                    **self._options,
                )
            try:
                self._server.ask()
                return
            except self._errors as err:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{type(self._server).__name__} does not start") from err
                time.sleep(0.05)

    def stop(self, signum: signal.Signals) -> None:
        """Send it ``signum``, and return when it is gone; at once where it is not running."""
        if self._running is not None:
            self._running.send_signal(signum)
            self._running.wait(STOP_SECONDS)
            self._running = None


class StoppablePostgres(Stoppable):
    """A durable cluster: what was committed survives every one of these stops."""

    def stop_fast(self) -> None:
        """Roll back what is open, and end in good order."""
        self.stop(signal.SIGINT)

    def stop_immediately(self) -> None:
        """End every session at once; the next start recovers from the log."""
        self.stop(signal.SIGQUIT)

    def kill(self) -> None:
        """SIGKILL to the postmaster; its children notice by themselves."""
        self.stop(signal.SIGKILL)


@contextlib.contextmanager
def stoppable_postgresql() -> Iterator[StoppablePostgres]:
    """A new durable cluster, started; ended with the block."""
    with tempfile.TemporaryDirectory(prefix="kc-postgres-") as name:
        server = Postgres(Path(name), durable=True)
        postgres = StoppablePostgres(server, psycopg.OperationalError, **server.options)
        try:
            postgres.start()
            yield postgres
        finally:
            postgres.stop_fast()


@contextlib.contextmanager
def stoppable_valkey() -> Iterator[Stoppable]:
    """A new Valkey, started; ended with the block."""
    with tempfile.TemporaryDirectory(prefix="kc-valkey-") as directory:
        valkey = Stoppable(Valkey(directory), redis.ConnectionError)
        try:
            valkey.start()
            yield valkey
        finally:
            valkey.stop(signal.SIGTERM)
