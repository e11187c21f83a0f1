"""Waiting inside a request: for how long, how many at once, and how to look again.

A caller that waits holds a thread. Were every thread to wait, reads that need no waiting would stand still behind them, so
waiting needs a place, and places are fewer than threads.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from django.db import connection

T = TypeVar("T")

# Of 32 threads per web process at most 24 wait: a quarter always serves what needs no waiting.
PLACES = 24
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.25

_places = threading.BoundedSemaphore(PLACES)


class NoPlaceToWait(Exception):
    """Every place is taken; the caller should come back in a second."""


@contextmanager
def place() -> Iterator[None]:
    """Hold one of the places of this process while waiting or calling out. Raises ``NoPlaceToWait`` at once."""
    if not _places.acquire(blocking=False):
        raise NoPlaceToWait
    try:
        yield
    finally:
        _places.release()


def release_connection() -> None:
    """Give the database connection back before something slow; the next query takes one again. Not inside a transaction.

    SQLite has no pool that somebody could wait for: opening its file again would cost a third of a refresh for nothing.
    """
    if connection.vendor != "sqlite" and not connection.in_atomic_block:
        connection.close()


class Pauses:
    """Growing pauses for a given time: 20 ms at first, half as long again each time, at most 250 ms.

    Each is a little random, so that those who wait do not march in step.
    """

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._pause = FIRST_PAUSE

    def take(self) -> bool:
        """Sleep for the next pause, holding no database connection; ``False`` at once when the time is over."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            return False
        release_connection()
        time.sleep(min(left, self._pause * random.uniform(0.75, 1.25)))  # noqa: S311  spreading, not secrecy
        self._pause = min(LONGEST_PAUSE, self._pause * 1.5)
        return True


def poll(look: Callable[[], T | None], *, seconds: float) -> T | None:
    """Call ``look`` with growing pauses until it returns something, or ``seconds`` have passed: then ``None``."""
    pauses = Pauses(seconds)
    while True:
        seen = look()
        if seen is not None:
            return seen
        if not pauses.take():
            return None
