"""Marks of use: noting that something was used, without a write on every use."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.db import Error, connection
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

logger = logging.getLogger(__name__)

INTERVAL = timedelta(minutes=1)
_REMEMBERED = 50_000


@contextmanager
def _impatient() -> Iterator[None]:
    """On SQLite, wait only a moment for another writer: a read must not stand behind it for the sake of a mark."""
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        yield
        return
    with connection.cursor() as cursor:
        usual = cursor.execute("PRAGMA busy_timeout").fetchone()[0]
        cursor.execute("PRAGMA busy_timeout = 20")
        try:
            yield
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {int(usual)}")


class UseMarks:
    """Writes `last_used_at` at most once a minute for each row, whatever the number of uses, in every process together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted: OrderedDict[Any, float] = OrderedDict()

    def note(self, rows: QuerySet, key: Any) -> None:
        """Note a use of the row ``key`` of ``rows``. A database that does not take it is not the user's trouble."""
        now = time.monotonic()
        with self._lock:
            if now - self._noted.get(key, -3600.0) < INTERVAL.total_seconds():
                return
            self._noted[key] = now
            self._noted.move_to_end(key)
            if len(self._noted) > _REMEMBERED:
                self._noted.popitem(last=False)
        try:
            with _impatient():
                rows.filter(Q(last_used_at=None) | Q(last_used_at__lt=Now() - INTERVAL), pk=key).update(
                    last_used_at=Now()
                )
        except Error as err:
            logger.warning("a use could not be noted: %s", type(err).__name__)

    def forget(self) -> None:
        """Forget what was noted; the next use of each row is noted again."""
        with self._lock:
            self._noted.clear()
