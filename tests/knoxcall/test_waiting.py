"""Waiting inside a request: places are few, and nobody sleeps on a connection."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import pytest
from django.db import connection, transaction

from knoxcall import waiting
from knoxcall.waiting import NoPlaceToWait, place, poll, release_connection


@pytest.fixture
def three_places(monkeypatch):
    monkeypatch.setattr(waiting, "_places", threading.BoundedSemaphore(3))


@pytest.mark.usefixtures("three_places")
def test_one_more_than_there_are_places_is_refused_at_once():
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(place())
        started = time.monotonic()
        with pytest.raises(NoPlaceToWait), place():
            pass
        assert time.monotonic() - started < 1
    with place():
        pass


@pytest.mark.usefixtures("three_places")
def test_a_place_is_free_again_after_an_error():
    for _ in range(10):
        with pytest.raises(RuntimeError), place():
            raise RuntimeError


def test_a_quarter_of_32_threads_never_waits():
    assert waiting.PLACES == 24
    assert waiting._places._initial_value == waiting.PLACES


def test_polling_ends_with_the_first_thing_seen(db):
    seen = iter([None, None, 0, 1])
    assert poll(lambda: next(seen), seconds=5) == 0


def test_polling_looks_once_even_without_time(db):
    assert poll(lambda: "seen", seconds=-1) == "seen"
    assert poll(lambda: None, seconds=0) is None


def test_polling_gives_up_in_time(db):
    started = time.monotonic()
    assert poll(lambda: None, seconds=0.15) is None
    assert 0.15 <= time.monotonic() - started < 5


def test_pauses_grow_to_a_quarter_of_a_second(db, monkeypatch):
    pauses = []
    monkeypatch.setattr(waiting.random, "uniform", lambda *_: 1.0)
    monkeypatch.setattr(waiting.time, "sleep", pauses.append)
    looks = iter([None] * 12 + ["seen"])
    poll(lambda: next(looks), seconds=60)
    assert pauses[:3] == pytest.approx([0.02, 0.03, 0.045])
    assert pauses == sorted(pauses)
    assert pauses[-1] == 0.25


def test_what_is_raised_while_looking_is_raised(db):
    def fail():
        raise KeyError

    with pytest.raises(KeyError):
        poll(fail, seconds=5)


@pytest.mark.django_db(transaction=True)
def test_no_connection_is_held_while_sleeping(monkeypatch):
    held = []
    monkeypatch.setattr(waiting.time, "sleep", lambda _: held.append(connection.connection))

    def look():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return "seen" if held else None

    assert poll(look, seconds=5) == "seen"
    # SQLite has no pool that somebody else could wait for, and keeps its file open.
    assert (held[0] is None) == (connection.vendor != "sqlite")


@pytest.mark.django_db(transaction=True)
def test_a_connection_in_a_transaction_is_not_given_back():
    with transaction.atomic():
        release_connection()
        assert connection.connection is not None
    release_connection()
    assert (connection.connection is None) == (connection.vendor != "sqlite")
