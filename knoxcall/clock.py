"""One clock: the database's. Leases, due times and expiries are set and compared with it, so that machines may disagree."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from django.db import connection

logger = logging.getLogger(__name__)


def database_now() -> datetime:
    """The database's idea of the time, in UTC: microseconds on PostgreSQL, milliseconds on SQLite."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')")
            return datetime.fromisoformat(cursor.fetchone()[0]).replace(tzinfo=UTC)
        cursor.execute("SELECT statement_timestamp()")
        moment: datetime = cursor.fetchone()[0]
        return moment.astimezone(UTC)


def iso(moment: datetime | None) -> str | None:
    """``2026-03-10T15:30:00.000Z``, the only form in which a time leaves the vault."""
    if moment is None:
        return None
    # Not strftime: its %Y has one digit in the year 1.
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


class PeerDates:
    """What the `Date` of other people's answers says of this machine's clock: nothing but a warning that it is off.

    One peer may be wrong itself, so what counts is what most of those say that were heard of lately.
    """

    TOLERANCE = 60.0
    # Seconds: between two looks at one peer, and between two warnings.
    PER_PEER, PER_WARNING = 60.0, 3600.0
    PEERS = 32

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._warned_at = float("-inf")

    def note(self, peer: str, date: str | None) -> None:
        """Note the `Date` (RFC 9110 §6.6.1) of an answer that ``peer`` sent a moment ago. What is none tells nothing."""
        now = time.monotonic()
        if date is None or now - self._noted.get(peer, (float("-inf"), 0.0))[0] < self.PER_PEER:
            return
        try:
            ahead = time.time() - parsedate_to_datetime(date).timestamp()
        except (ValueError, TypeError, OverflowError):
            return
        with self._lock:
            self._noted[peer] = (now, ahead)
            self._noted.move_to_end(peer)
            if len(self._noted) > self.PEERS:
                self._noted.popitem(last=False)
            lately = sorted((ahead for at, ahead in self._noted.values() if now - at < self.PER_WARNING), key=abs)
            # The middle one, and of two the one that is nearer to our clock.
            agreed = lately[(len(lately) - 1) // 2]
            if abs(agreed) <= self.TOLERANCE or now - self._warned_at < self.PER_WARNING:
                return
            self._warned_at = now
        direction = "ahead of" if agreed > 0 else "behind"
        logger.warning("this machine's clock is %.0f s %s the providers'", abs(agreed), direction)
