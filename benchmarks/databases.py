"""The databases that are measured on: made for the run, on loopback, and gone with it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg

from tests.support.services import (
    NoPostgres,
    _server_user,
    free_port,
    postgres_binaries,
    process,
    valkey,
    wait_for,
)

# The environment that makes a process work on a database, by the database's name.
Environments = dict[str, Mapping[str, str]]


@contextlib.contextmanager
def environments(chosen: str) -> Iterator[Environments]:
    """The environments of ``chosen``: `sqlite`, `postgres`, `both`, or `auto` for both where PostgreSQL is installed.

    Raises ``NoPostgres`` where it is asked for by name and missing.
    """
    with contextlib.ExitStack() as stack:
        found: Environments = {}
        if chosen != "postgres":
            found["sqlite"] = {}
        if chosen in ("postgres", "both") or (chosen == "auto" and has_postgres()):
            database, broker = stack.enter_context(durable_postgresql()), stack.enter_context(valkey())
            found["postgresql"] = {"DATABASE_URL": database, "REDIS_URL": broker}
        yield found


def has_postgres() -> bool:
    try:
        postgres_binaries()
    except NoPostgres:
        return False
    return True


@contextlib.contextmanager
def durable_postgresql() -> Iterator[str]:
    """A new PostgreSQL cluster that survives a power cut, as one in production does; yields the URL of its database.

    The tests' own does not wait for the disk, which would make every write look cheaper than it is.
    """
    binaries, user = postgres_binaries(), _server_user()
    port, password = free_port(), secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="kc-postgres-") as name:
        directory = Path(name)
        password_file = directory / "password"
        password_file.write_text(password)
        if user:
            for path in (directory, password_file):
                os.chown(path, user["user"], user["group"])
        initdb = [binaries / "initdb", "--pgdata", directory / "data", "--username", "vault", "--pwfile", password_file]
        initdb += ["--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd=directory, **user)
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": ""}
        command: list[str | Path] = [binaries / "postgres", "-D", directory / "data"]
        command += [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        url = f"postgres://vault:{password}@127.0.0.1:{port}/postgres"
        with (
            open(directory / "log", "wb") as log,
            process(command, stop=signal.SIGINT, stdout=log, stderr=log, cwd=directory, **user),
        ):
            wait_for("PostgreSQL", psycopg.OperationalError, lambda: psycopg.connect(url).close())
            yield url
