"""A PostgreSQL and a Valkey that live as long as the tests on them: on loopback, on ports of their own, with passwords.

`python -m tests.support.services -- COMMAND` runs a command with `DATABASE_URL` and `REDIS_URL` set to them.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Any

import psycopg
import redis

from knoxcall.children import end_with_parent
from knoxcall.house import find_broker
from tests.support.workers import own_ports


class NoPostgres(Exception):
    """There are no PostgreSQL server binaries here."""


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listened a moment ago."""
    ports = own_ports()
    for port in secrets.SystemRandom().sample(ports, len(ports)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no port is free from {ports.start} to {ports.stop - 1}")


@contextlib.contextmanager
def process(command: list[str | Path], *, stop: signal.Signals = signal.SIGTERM, **options: Any) -> Iterator[None]:
    """Run ``command`` beside the block, and end it by ``stop`` however the block ends, by SIGKILL after 10 s."""
    running = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=end_with_parent(), **options
    )
    try:
        yield
    finally:
        running.send_signal(stop)
        try:
            running.wait(timeout=10)
        finally:
            running.kill()
            running.wait()


def wait_for(service: str, errors: type[Exception], ask: Any) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            ask()
            return
        except errors as err:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{service} does not start") from err
            time.sleep(0.05)


def postgres_binaries() -> Path:
    """The directory of `initdb` and `postgres`, the newest where there are several. Raises ``NoPostgres``."""
    # Debian keeps the server's programs out of PATH, one directory per version.
    found = sorted(glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(Path(path).parts[4]))
    if initdb := (found[-1] if found else shutil.which("initdb")):
        return Path(initdb).parent
    raise NoPostgres("PostgreSQL's server is not installed. On Debian and Ubuntu: apt-get install postgresql")


def _server_user() -> dict[str, Any]:
    """Options that start a process as somebody else than root, for whom PostgreSQL refuses to run."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class Postgres:
    """A new PostgreSQL cluster in ``directory``, not started: its command, and the URL of its empty database.

    Unless it is ``durable``, it waits for no disk, takes more connections than usual, and nothing in it survives a crash.
    """

    def __init__(self, directory: Path, *, durable: bool = False) -> None:
        binaries, user = postgres_binaries(), _server_user()
        port, password = free_port(), secrets.token_hex(16)
        password_file = directory / "password"
        password_file.write_text(password)
        if user:
            for path in (directory, password_file):
                os.chown(path, user["user"], user["group"])
        initdb = [binaries / "initdb", "--pgdata", directory / "data", "--username", "vault", "--pwfile", password_file]
        initdb += ["--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]
        initdb += [] if durable else ["--no-sync"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd=directory, **user)
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": ""}
        if not durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": 200}
        self.command: list[str | Path] = [binaries / "postgres", "-D", directory / "data"]
        self.command += [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        self.options: dict[str, Any] = {"cwd": directory, **user}
        self.log = directory / "log"
        self.url = f"postgres://vault:{password}@127.0.0.1:{port}/postgres"

    def ask(self) -> None:
        """Raises ``psycopg.OperationalError`` where it does not answer."""
        psycopg.connect(self.url).close()


@contextlib.contextmanager
def postgresql(*, durable: bool = False) -> Iterator[str]:
    """A new PostgreSQL cluster that runs beside the block; yields the URL of its empty database."""
    with tempfile.TemporaryDirectory(prefix="kc-postgres-") as name:
        postgres = Postgres(Path(name), durable=durable)
        with (
            open(postgres.log, "wb") as log,
            # SIGINT: do not wait for connections that a failed test left open.
            process(postgres.command, stop=signal.SIGINT, stdout=log, stderr=log, **postgres.options),
        ):
            wait_for("PostgreSQL", psycopg.OperationalError, postgres.ask)
            yield postgres.url


class Valkey:
    """A new Valkey on TCP, not started: its command and its URL. It remembers nothing when it is stopped."""

    def __init__(self, directory: str) -> None:
        port, password = free_port(), secrets.token_hex(16)
        self.command: list[str | Path] = [find_broker(), "--bind", "127.0.0.1", "--port", str(port)]
        self.command += ["--save", "", "--appendonly", "no", "--requirepass", password]
        self.command += ["--dir", directory, "--logfile", f"{directory}/log"]
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"

    def ask(self) -> None:
        """Raises ``redis.ConnectionError`` where it does not answer."""
        with redis.Redis.from_url(self.url) as client:
            client.ping()


@contextlib.contextmanager
def valkey() -> Iterator[str]:
    """A new Valkey that runs beside the block; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="kc-valkey-") as directory:
        server = Valkey(directory)
        with process(server.command):
            wait_for("Valkey", redis.ConnectionError, server.ask)
            yield server.url


def main(arguments: list[str]) -> int:
    if arguments[:1] != ["--"] or len(arguments) < 2:
        print("usage: python -m tests.support.services -- COMMAND [ARGUMENT…]", file=sys.stderr)
        return 2
    # The end of this process must reach the `finally`s above.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with postgresql() as database, valkey() as broker:
        print("PostgreSQL and Valkey are up.", flush=True)
        environment = {**os.environ, "DATABASE_URL": database, "REDIS_URL": broker}
        return subprocess.run(arguments[1:], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
