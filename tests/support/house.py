"""A house as `make run` starts it, in a process of its own, for tests that look at it from outside."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.services import free_port

BASE_DIR = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "-m", "knoxcall.house"]
# More than a house needs on a busy machine; a test that waits this long has failed.
PATIENCE = 40.0


@dataclass(frozen=True)
class House:
    """A running house. What it prints goes to ``log``; ``mark`` is in the environment of all its processes."""

    data_dir: Path
    port: int
    mark: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def base_url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def api_key(self) -> str:
        """The key that the first start printed."""
        return self._printed(r"\b(tk_live_\w+)")[0]

    @property
    def operator(self) -> tuple[str, str]:
        """Name and password of the operator that the first start made."""
        name, password = self._printed(r"Operator +(\S+)\s+Password +(\S+)")
        return name, password

    def _printed(self, pattern: str) -> tuple[str, ...]:
        found = re.search(pattern, self.output)
        assert found, f"nothing like {pattern} in:\n{self.output}"
        return found.groups()

    def processes(self) -> dict[int, str]:
        """Every live process of the house, by id, with its command line.

        Valkey writes its title over its environment; but like all children it holds the lock on the data directory.
        Linux only: elsewhere this finds none.
        """
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in (entry / "environ").read_bytes() or self._holds_lock(entry):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def _holds_lock(self, entry: Path) -> bool:
        lock = str(self.data_dir / "house.lock")
        return any(os.readlink(descriptor) == lock for descriptor in (entry / "fd").iterdir())

    def find(self, part: str) -> list[int]:
        """The ids of those processes whose command line contains ``part``, oldest first."""
        return sorted(pid for pid, command in self.processes().items() if part in command)

    def wait_for(self, line: str) -> None:
        """Wait until the house printed ``line``; fail with what it printed instead when it ends before."""
        deadline = time.monotonic() + PATIENCE
        while line not in self.output:
            assert self.process.poll() is None, f"the house ended before it said {line!r}:\n{self.output}"
            assert time.monotonic() < deadline, f"the house never said {line!r}:\n{self.output}"
            time.sleep(0.02)

    def stop(self, signum: signal.Signals = signal.SIGINT) -> int:
        """Send the house ``signum``, wait until no process of it is left, and return its exit status."""
        self.process.send_signal(signum)
        status = self.process.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while left := self.processes():
            assert time.monotonic() < deadline, f"left behind: {left}\n{self.output}"
            time.sleep(0.02)
        return status


def is_healthy(port: int) -> bool:
    """Whether `/healthz` answers 200 there."""
    connection = http.client.HTTPConnection("localhost", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def environment(data_dir: Path, port: int, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a newcomer: nothing of the tests' own settings, nor of a developer's `.env`."""
    ours = ("DJANGO_SETTINGS_MODULE", "WEB_CONCURRENCY", "PORT")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("KNOXCALL_") and key not in ours}
    # What is set, if only to nothing, `.env` leaves alone.
    empty = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "KNOXCALL_MASTER_KEYS", "KNOXCALL_MASTER_KEYS_FILE")
    given = {"KNOXCALL_DATA_DIR": str(data_dir), "PORT": str(port), **(env or {})}
    return {**inherited, **dict.fromkeys(empty, ""), **given}


@contextlib.contextmanager
def running_house(data_dir: Path, *, port: int | None = None, env: Mapping[str, str] | None = None) -> Iterator[House]:
    """Start a house, wait until it says that it is ready, and afterwards stop it as Ctrl-C would.

    Fails if a process outlives it. A test may stop or kill the house itself.
    """
    port = port or free_port()
    mark = f"HOUSE_UNDER_TEST={secrets.token_hex(8)}"
    log = data_dir.with_name(f"{data_dir.name}-{port}.log")
    variables = environment(data_dir, port, env)
    variables.update([mark.split("=")])
    with open(log, "wb") as output:
        process = subprocess.Popen(
            COMMAND,
            cwd=BASE_DIR,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    house = House(data_dir, port, mark, log, process)
    try:
        house.wait_for("house: ready")
        yield house
        if process.poll() is None:
            assert house.stop() == 0, house.output
        assert not house.processes()
    finally:
        process.kill()
        process.wait()
        for pid in house.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
