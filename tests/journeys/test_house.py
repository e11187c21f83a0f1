"""`make run` seen from outside: what it starts, what it says, and that nothing of it stays behind.

Linux only: it looks for processes in /proc, and only Linux ends the children of a killed parent.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from knoxcall.house import WEB_GRACE
from tests.support.house import BASE_DIR, COMMAND, House, environment, is_healthy, running_house
from tests.support.services import free_port

# What the command lines of a house's processes contain.
PARTS = {"web": "-m granian", "worker": "--quiet worker", "beat": "--quiet beat", "broker": "unixsocket"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that has seen its first start, so that the tests below need only warm ones."""
    path = tmp_path_factory.mktemp("house") / "data"
    with running_house(path) as house:
        assert house.api_key
        assert all(house.operator)
        # Ctrl-C; of the other signals each has a test.
        assert house.stop(signal.SIGINT) == 0
    return path


@pytest.fixture(scope="module")
def lasting_house(data_dir: Path) -> Iterator[House]:
    """A house that outlives a test, in a copy of the data directory: for tests that leave it running."""
    path = data_dir.with_name("copy")
    path.mkdir(mode=0o700)
    subprocess.run(["cp", "-Rp", f"{data_dir}/.", path], check=True)
    with running_house(path) as house:
        yield house


@pytest.fixture
def house(data_dir: Path) -> Iterator[House]:
    """A house of the test's own, to stop as it likes."""
    with running_house(data_dir) as house:
        yield house


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def refusal(data_dir: Path, port: int, **env: str) -> str:
    """What a house that must not start says on stderr."""
    variables = environment(data_dir, port, env)
    ended = subprocess.run(COMMAND, cwd=BASE_DIR, env=variables, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1, ended.stdout
    return ended.stderr


def test_first_start_keeps_what_it_makes_to_its_owner(data_dir: Path) -> None:
    made = [data_dir, *data_dir.rglob("*")]
    assert {path.name for path in made} >= {"master_keys", "secret_key", "knoxcall.sqlite3"}
    for path in made:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_second_start_prints_no_credentials(lasting_house: House) -> None:
    assert "tk_live_" not in lasting_house.output
    assert "Operator" not in lasting_house.output


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP], ids=lambda signum: signum.name)
def test_asked_to_stop_it_leaves_no_process_behind(house: House, signum: signal.Signals) -> None:
    assert all(house.find(part) for part in PARTS.values())
    assert house.stop(signum) == 0
    assert "has not stopped" not in house.output


def test_killed_it_leaves_no_process_behind(house: House) -> None:
    assert house.stop(signal.SIGKILL) == -signal.SIGKILL


def test_it_ends_when_the_one_who_started_it_is_killed(data_dir: Path, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    # The second command keeps the shell from becoming the house itself.
    command = ["sh", "-c", f"{' '.join(COMMAND)}; :"]
    with open(log, "wb") as output:
        shell = subprocess.Popen(command, cwd=BASE_DIR, env=environment(data_dir, port), stdout=output, stderr=output)
    house = House(data_dir, port, "no mark", log, shell)
    house.wait_for("house: ready")
    house.stop(signal.SIGKILL)
    assert "house: stopped." in house.output


def test_a_second_ctrl_c_does_not_wait(house: House) -> None:
    with socket.create_connection(("127.0.0.1", house.port)) as half_a_request:
        half_a_request.sendall(b"GET / HTTP/1.1\r\n")
        time.sleep(0.2)
        house.process.send_signal(signal.SIGINT)
        time.sleep(0.7)
        began = time.monotonic()
        assert house.stop(signal.SIGINT) == 0
        # A first one would have waited that long.
        assert time.monotonic() - began < WEB_GRACE
    assert "web has not stopped" in house.output


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_dies_is_started_again(lasting_house: House, part: str) -> None:
    house = lasting_house
    pids = house.find(PARTS[part])
    os.kill(pids[0], signal.SIGKILL)
    assert eventually(lambda: bool(set(house.find(PARTS[part])) - set(pids)))
    assert f"house: {part} (process {pids[0]}) was ended by SIGKILL" in house.output
    assert eventually(lambda: is_healthy(house.port))


def test_a_data_directory_in_use_is_one_line(lasting_house: House) -> None:
    said = refusal(lasting_house.data_dir, free_port())
    assert said.count("\n") == 1
    assert str(lasting_house.data_dir) in said
    assert str(lasting_house.process.pid) in said


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_in_use_is_one_line(data_dir: Path, host: str) -> None:
    with socket.create_server((host, 0)) as other:
        port = other.getsockname()[1]
        said = refusal(data_dir, port)
    assert said.count("\n") == 1
    assert str(port) in said


def test_a_wrong_configuration_is_one_line(data_dir: Path) -> None:
    said = refusal(data_dir, free_port(), KNOXCALL_BASE_URL="ftp://vault")
    assert said.count("\n") == 1
    assert "KNOXCALL_BASE_URL" in said
