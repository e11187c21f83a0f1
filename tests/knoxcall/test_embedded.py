"""The embedded default's key files: made once, for the owner only, and missed when they are lost."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from knoxcall import embedded
from knoxcall.embedded import make_private_directory, new_master_keys, read_or_create_key_file


@pytest.fixture
def key_file(tmp_path) -> Path:
    return tmp_path / "data" / "keys" / "master_keys"


@pytest.fixture
def database(tmp_path) -> Path:
    return tmp_path / "data" / "knoxcall.sqlite3"


@pytest.fixture
def loose_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def test_the_first_start_writes_the_keys_and_the_next_one_reads_them(key_file, database):
    assert read_or_create_key_file(key_file, content="first", guards=database) == "first"
    assert read_or_create_key_file(key_file, content="second", guards=database) == "first"


@pytest.mark.usefixtures("loose_umask")
def test_a_key_file_is_for_its_owner_only(key_file, database):
    read_or_create_key_file(key_file, content="first", guards=database)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700


@pytest.mark.usefixtures("loose_umask")
def test_a_private_directory_is_for_its_owner_only(tmp_path):
    assert stat.S_IMODE(make_private_directory(tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_nothing_but_the_key_file_is_left(key_file, database):
    read_or_create_key_file(key_file, content="first", guards=database)
    assert list(key_file.parent.iterdir()) == [key_file]


def test_a_lost_key_file_is_refused_while_the_database_is_there(key_file, database):
    read_or_create_key_file(key_file, content="first", guards=database)
    database.touch()
    assert read_or_create_key_file(key_file, content="second", guards=database) == "first"
    key_file.unlink()
    with pytest.raises(ImproperlyConfigured) as caught:
        read_or_create_key_file(key_file, content="second", guards=database)
    assert str(key_file) in str(caught.value)
    assert str(database) in str(caught.value)
    assert not key_file.exists()


def test_processes_that_start_at_once_agree_on_the_keys(key_file, database):
    program = (
        "import sys, pathlib; from knoxcall.embedded import read_or_create_key_file as r; sys.stdin.readline();"
        "print(r(pathlib.Path(sys.argv[1]), content=sys.argv[2], guards=pathlib.Path(sys.argv[3])))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(key_file), f"keys-{number}", str(database)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    # Those that read their line at once have all been imported by the time the last of them gets one.
    for process in started:
        process.stdin.write("\n")
    said = {process.communicate(timeout=20)[0].strip() for process in started}
    assert said == {key_file.read_text()}
    assert list(key_file.parent.iterdir()) == [key_file]


def test_the_second_of_two_that_write_reads_what_the_first_one_wrote(key_file, database, monkeypatch):
    link = os.link

    def be_second(source, target):
        Path(target).write_text("first")
        link(source, target)

    monkeypatch.setattr(embedded.os, "link", be_second)
    assert read_or_create_key_file(key_file, content="second", guards=database) == "first"
    assert list(key_file.parent.iterdir()) == [key_file]


def test_keys_and_database_made_by_another_process_meanwhile_are_no_loss(key_file):
    class MadeMeanwhile:
        def exists(self) -> bool:
            key_file.parent.mkdir(parents=True)
            key_file.write_text("first")
            return True

    assert read_or_create_key_file(key_file, content="second", guards=MadeMeanwhile()) == "first"


def test_new_master_keys_are_one_key_of_256_random_bits():
    name, _, encoded = new_master_keys().partition(":")
    assert name == "k1"
    assert len(base64.b64decode(encoded, validate=True)) == 32
    assert len({new_master_keys() for _ in range(50)}) == 50
