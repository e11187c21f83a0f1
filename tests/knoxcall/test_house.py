"""The parts of the house that need no running one; `tests/journeys/test_house.py` runs it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from knoxcall import children, house, settings


@pytest.fixture
def lock(tmp_path: Path) -> int:
    return house.take(tmp_path / "data")


def test_a_data_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    os.close(house.take(tmp_path / "data"))
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(house.CannotStart):
        house.take(tmp_path / "file" / "data")


def test_a_lock_whose_house_was_killed_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house, "GRACE", 0.3)
    held = house.take(tmp_path / "data")
    # No process has this number: the house is gone, and a child of it still holds the lock.
    os.pwrite(held, b"99999999", 0)
    began = time.monotonic()
    with pytest.raises(house.CannotStart):
        house.take(tmp_path / "data")
    assert time.monotonic() - began > 0.3
    os.close(held)
    os.close(house.take(tmp_path / "data"))


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(house.CannotStart):
        house.check_port(port)


def test_a_socket_fits_wherever_the_data_directory_is(monkeypatch: pytest.MonkeyPatch) -> None:
    sockets = set()
    for data_dir in (Path("/short"), Path("/", *["deep"] * 40), Path("/", *["deep"] * 41)):
        monkeypatch.setattr(settings, "DATA_DIR", data_dir)
        sockets.add(settings._valkey_socket())
    assert Path("/short/run/valkey.sock") in sockets
    assert len(sockets) == 3
    assert all(len(os.fsencode(path)) < 104 for path in sockets)


def test_a_broker_is_not_started_where_others_may_enter(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    with pytest.raises(house.CannotStart):
        house.broker_command(tmp_path / "run" / "valkey.sock")


def test_a_child_that_keeps_dying_is_started_less_and_less_often(lock: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "SHORTEST_PAUSE", 0.01)
    child = children.Child("moth", [sys.executable, "-c", "raise SystemExit(3)"], lock=lock)
    told: list[str] = []
    while len(told) < 5:
        if said := child.tend():
            told.append(said)
        time.sleep(0.005)
    child.kill()
    os.close(lock)
    assert "ended with status 3; it starts again in 0.01 s" in told[0]
    assert "started again" in told[1]
    assert "again in 0.02 s" in told[2]
    assert "again in 0.04 s" in told[4]
