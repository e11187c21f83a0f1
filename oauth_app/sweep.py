"""The background refresh: claim what is due, call in a pool of threads of its own, as often as somebody says so.

A tick claims no more than there are free call slots, so that whatever is claimed goes on the wire at once. Beat ticks once a
second; a worker that heard nothing for five seconds ticks by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from django.db import Error, InterfaceError, OperationalError, connections

from knoxcall.waiting import release_connection
from oauth_app.claim import claim_due, hand_back
from oauth_app.clients import registrations_of
from oauth_app.models import ClientRegistration, Connection
from oauth_app.refresh import refresh

logger = logging.getLogger(__name__)

CALL_SLOTS = 32
SILENCE = 5.0
# Seconds to wait for a quarter of the slots to be free, so that one claim serves several calls.
GATHERING = 0.02
# A tick goes on while there is work, so that a busy minute is not served in steps of one pool a second.
LONGEST_TICK = 5.0


class Sweeper:
    """Refreshes due connections in one process. ``tick`` may be called by anybody at any time; one runs at a time."""

    def __init__(self, slots: int = CALL_SLOTS) -> None:
        self._slots = slots
        self._pool = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="refresh")
        self._ticking = threading.Lock()
        self._changed = threading.Condition()
        self._in_flight = 0
        self._stopping = threading.Event()
        self._last_tick = time.monotonic()

    def tick(self) -> int:
        """Claim and send what is due; returns how many. Returns 0 at once where another tick is running."""
        self._last_tick = time.monotonic()
        if not self._ticking.acquire(blocking=False):
            return 0
        try:
            return self._sweep()
        finally:
            self._ticking.release()

    def _sweep(self) -> int:
        swept = 0
        deadline = time.monotonic() + LONGEST_TICK
        while not self._stopping.is_set() and (left := deadline - time.monotonic()) > 0:
            free = self._wait_for_slots(left)
            claimed = claim_due(free) if free else []
            registrations = registrations_of(connection.secret_id for connection in claimed) if claimed else {}
            for connection in claimed:
                self._submit(connection, registrations.get(connection.secret_id))
            swept += len(claimed)
            if len(claimed) < free or not free:
                break
        return swept

    def _wait_for_slots(self, seconds: float) -> int:
        def at_least(free: int) -> bool:
            return self._slots - self._in_flight >= free or self._stopping.is_set()

        with self._changed:
            self._changed.wait_for(lambda: at_least(1), timeout=seconds)
            # Calls end in clusters: a claim for each would cost as much as the refreshes that it is for.
            self._changed.wait_for(lambda: at_least(self._slots // 4), timeout=GATHERING)
            return 0 if self._stopping.is_set() else self._slots - self._in_flight

    def _submit(self, connection: Connection, registration: ClientRegistration | None) -> None:
        if registration is None or self._stopping.is_set():
            # Deleted meanwhile, or told to stop: nothing was sent, and the row must say so.
            hand_back(connection)
            return
        with self._changed:
            self._in_flight += 1
        try:
            self._pool.submit(self._refresh, connection, registration)
        except RuntimeError:
            # The pool was shut down a moment ago.
            self._landed()
            hand_back(connection)

    def _refresh(self, connection: Connection, registration: ClientRegistration) -> None:
        try:
            refresh(connection, registration)
        except (OperationalError, InterfaceError) as err:
            logger.error(
                "connection %s: the database went away (%s); its lease runs out", connection.pk, type(err).__name__
            )
        except Exception:
            logger.exception("connection %s: a fault of ours", connection.pk)
        finally:
            release_connection()
            self._landed()

    def _landed(self) -> None:
        with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()

    def watch(self) -> None:
        """Tick whenever nobody has for five seconds, until stopped: a broker that fell silent must not stop refreshes."""
        while not self._stopping.wait(1.0):
            if time.monotonic() - self._last_tick < SILENCE:
                continue
            logger.info("no sweep was asked for in %.0f s; sweeping", SILENCE)
            try:
                self.tick()
            except Error as err:
                logger.warning("the sweep found no database: %s", type(err).__name__)
            finally:
                connections.close_all()

    def stop(self) -> None:
        """Claim nothing more, and wait for the calls in flight: each has a deadline."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._pool.shutdown(wait=True)


_sweeper: Sweeper | None = None
_sweeper_lock = threading.Lock()


def sweeper() -> Sweeper:
    """The sweeper of this process."""
    global _sweeper
    with _sweeper_lock:
        if _sweeper is None:
            _sweeper = Sweeper()
        return _sweeper
