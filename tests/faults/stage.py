"""A vault of separate processes on servers that a test may stop, and the same vault's rows in this process.

The processes are the Procfile's lines. This process works on their database with their keys, so that `tests.factories` make
connections there and sealed columns open here.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import psycopg
from django.conf import settings
from django.db import connections

from knoxcall.children import end_with_parent
from tests.support.house import BASE_DIR, environment, is_healthy
from tests.support.procfile import lines
from tests.support.services import free_port

# More than anything takes on a busy machine; whoever waits this long has failed.
PATIENCE = 60.0
Result = TypeVar("Result")
_WARNING = re.compile(r"\S+Z (WARNING|ERROR|CRITICAL) ")


def wait_until(ask: Callable[[], Result], what: str, *, seconds: float = PATIENCE, pause: float = 0.05) -> Result:
    """The first true answer of ``ask``. Fails, saying ``what`` was waited for, when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(pause)
    return answer


def wait_until_none(
    ask: Callable[[], Iterable[object]], what: str, *, seconds: float = PATIENCE, pause: float = 0.2
) -> None:
    """Wait until ``ask`` finds nothing more. Fails, showing some of what it found, when it still does after so long."""
    deadline = time.monotonic() + seconds
    while left := list(ask()):
        shown = "\n".join(str(each) for each in left[:10])
        assert time.monotonic() < deadline, (
            f"waited {seconds:.0f} s in vain: {what}; {len(left)} left, such as\n{shown}"
        )
        time.sleep(pause)


def rounds() -> int:
    """How many rounds the tests make that go in rounds."""
    return int(os.environ.get("KNOXCALL_FAULT_ROUNDS") or 20)


def say(line: str) -> None:
    """One line of the report, for those who watch."""
    print(f"  {time.strftime('%H:%M:%S')} {line}", flush=True)


class Process:
    """One of the Procfile's lines, running. Its log goes on where that of a process of the same name ended."""

    def __init__(self, name: str, line: str, env: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with open(log, "ab") as output:
            # Through a pipe: a limit on the size of files must not silence the one that it is set for.
            self._writer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=output, start_new_session=True)
        assert self._writer.stdin is not None
        with self._writer.stdin as pipe:
            self._running = subprocess.Popen(
                ["sh", "-c", line],
                cwd=BASE_DIR,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def is_running(self) -> bool:
        return self._running.poll() is None

    def kill(self) -> None:
        """SIGKILL to all of it; nothing where it has ended."""
        if self.is_running:
            os.killpg(self.pid, signal.SIGKILL)
        self._ended(PATIENCE)

    def terminate(self) -> float:
        """SIGTERM, as a deploy sends it; returns the seconds that it took to end."""
        begun = time.monotonic()
        self._running.terminate()
        self._ended(PATIENCE)
        return time.monotonic() - begun

    def fill_disk(self) -> None:
        """Let it write to no file from now on, as on a disk that is full. Its log is a pipe. Linux only."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    def output(self) -> list[str]:
        """The lines of its log, and of those before it of the same name."""
        return self.log.read_text(errors="replace").splitlines()

    def _ended(self, seconds: float) -> None:
        self._running.wait(seconds)
        self._writer.wait(seconds)


class Stage:
    """The database, the broker, the data directory, and whatever runs on them."""

    def __init__(self, directory: Path, database_url: str, redis_url: str) -> None:
        self.directory = directory
        self.database_url = database_url
        self.redis_url = redis_url
        self.spool = directory / "data" / "spool"
        self.port = free_port()
        self.base_url = f"http://localhost:{self.port}"
        self.env = environment(
            directory / "data",
            self.port,
            {
                "DATABASE_URL": database_url,
                "REDIS_URL": redis_url,
                "KNOXCALL_MASTER_KEYS": settings.KNOXCALL_MASTER_KEYS,
                "SECRET_KEY": settings.SECRET_KEY,
                "KNOXCALL_BASE_URL": self.base_url,
                "KNOXCALL_OUTBOUND_ALLOW": "127.0.0.0/8",
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            },
        )
        self._processes: dict[str, Process] = {}

    def start(self, name: str, line: str | None = None) -> Process:
        """Start the Procfile's ``line``, by default the one called ``name``, under that name; anew where it ran before."""
        command = lines()[line or name]
        process = Process(name, command, self.env, self.directory / f"{name}.log")
        self._processes[name] = process
        return process

    def start_web(self) -> None:
        self.start("web")
        wait_until(lambda: is_healthy(self.port), "/healthz")

    def stop(self) -> None:
        """End whatever runs."""
        for process in self._processes.values():
            process.kill()

    def warnings(self, name: str) -> list[str]:
        """What the processes of that name logged above INFO."""
        return [line for line in self._processes[name].output() if _WARNING.match(line)]

    def check_log(self, name: str, *, most: int) -> None:
        """Show what was logged above INFO, and fail if that are too many lines, or where there is a traceback."""
        lines = self.warnings(name)
        say(f"{name} logged {len(lines)} lines above INFO, such as")
        for line in dict.fromkeys(line.partition("Z ")[2] for line in lines[:100]):
            say(f"    {line[:150]}")
        assert len(lines) <= most
        assert not [line for line in self._processes[name].output() if "Traceback" in line]

    def logs(self) -> str:
        return "\n".join(
            f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-80:])
            for log in sorted(self.directory.glob("*.log"))
        )


@contextlib.contextmanager
def new_database(cluster_url: str, template: str) -> Iterator[str]:
    """A copy of the database ``template`` beside it; yields its URL, and drops it."""
    name = f"faults_{secrets.token_hex(6)}"
    with psycopg.connect(cluster_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield urlsplit(cluster_url)._replace(path=f"/{name}").geturl()
    finally:
        with psycopg.connect(cluster_url, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def working_on(database_url: str) -> Iterator[None]:
    """Let the models of this process be those of another database."""
    url = urlsplit(database_url)
    there = {
        "NAME": url.path.lstrip("/"),
        "HOST": url.hostname,
        "PORT": url.port,
        "USER": url.username,
        "PASSWORD": url.password,
    }
    # The wrappers of all threads share this dictionary.
    shared = connections.settings["default"]
    before = {name: shared[name] for name in there}
    forget_connections()
    shared.update(there)
    try:
        yield
    finally:
        forget_connections()
        shared.update(before)


def forget_connections() -> None:
    """Open new connections from now on: those that are there may lead to a server that is gone."""
    connections["default"].close()
    connections["default"].close_pool()
