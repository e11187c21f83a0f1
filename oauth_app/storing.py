"""Storing outcomes, before anything else is done with an answer, and whatever becomes of the database meanwhile.

An outcome that the database does not take at once is written to the spool and tried again until it is taken. While this process
holds such a one it claims nothing new: more answers would have no better place to go.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path

from django.db import DataError, Error, IntegrityError, connection

from knoxcall.context import seconds_left
from oauth_app import outage
from oauth_app.applying import apply, settle
from oauth_app.claim import time_by_database
from oauth_app.keeping import Entry, Quiet, Shelf
from oauth_app.outcome import NOT_STORED, Outcome, failure_outcome

logger = logging.getLogger(__name__)

BATCH = 64
# A database that says nothing for so many seconds counts as away: what waits for it goes to the spool.
SILENT = 1.0
# Seconds between two tries while it is away.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
# Seconds that a caller waits for a database that comes back.
PATIENCE = 4.0
# Seconds without work after which the storing thread gives its database connection back.
IDLE = 0.5


class Storer:
    """Stores the outcomes of one process. Its threads begin with the first outcome that needs them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queued = threading.Condition(self._lock)
        self._all_stored = threading.Condition(self._lock)
        self._closing = threading.Event()
        self._queue: deque[Entry] = deque()
        self._open: dict[object, Entry] = {}
        self._threads: list[threading.Thread] = []
        self._shelf = Shelf()
        self._quiet = Quiet()

    def submit(self, outcome: Outcome) -> Future[bool]:
        """Store ``outcome`` soon, together with others; the future says whether it was, or was not needed any more."""
        entry = self._enter(outcome)
        self._put([entry])
        return entry.done

    def store(self, outcome: Outcome) -> bool:
        """Store ``outcome`` in this thread, at once. ``False``: it is not needed any more.

        Raises what the database raises when it does not take it for longer than ``PATIENCE``; what was to be stored is then
        kept, and stored as soon as it can be.
        """
        entry = self._enter(outcome)
        self._start()
        try:
            self._carry_out([entry])
        except Error as err:
            self._tell_away(err)
            connection.close()
            self._put([entry])
            wait([entry.done], timeout=max(0.0, seconds_left(PATIENCE)))
            if not entry.done.done():
                raise
        return entry.done.result()

    @property
    def waiting(self) -> int:
        """How many outcomes are not stored yet, for whatever reason."""
        return len(self._open)

    def is_holding(self) -> bool:
        """Whether an outcome is here that the database did not take at once."""
        return any(entry.is_late for entry in list(self._open.values()))

    def adopt_spool(self) -> int:
        """Take over what lies in the spool and is nobody's here; returns how much that was. Raises what the database raises."""
        taken = 0
        held = {entry.path for entry in list(self._open.values())}
        for path, outcome in self._shelf.found(held):
            entry = self._enter(outcome, path=path)
            if entry.path == path:
                taken += 1
                self._put([entry])
        if taken:
            logger.warning("storing %d outcomes that were left in the spool", taken)
        return taken

    def flush(self, seconds: float) -> bool:
        """Wait until everything is stored; ``False``: it is not after so long."""
        with self._lock:
            return self._all_stored.wait_for(lambda: not self._open, timeout=seconds)

    def drain(self) -> None:
        """Wait until everything is stored or safe on disk, however long that takes."""
        told_at = time.monotonic()
        while not self.flush(0.1):
            left = list(self._open.values())
            if all(entry.path is not None or entry.is_unsealable for entry in left):
                break
            self._shelf.keep(entry for entry in left if entry.is_late)
            if time.monotonic() - told_at > 5:
                told_at = time.monotonic()
                unsafe = sum(entry.path is None for entry in left)
                logger.error("%d answers are neither stored nor on disk: waiting for one of them", unsafe)

    def close(self) -> None:
        """The same, and end the threads."""
        self.drain()
        self._closing.set()
        with self._lock:
            self._queued.notify_all()
        for thread in self._threads:
            # One that a silent database keeps is not waited for: what it holds is on disk.
            thread.join(timeout=2.0)
        if left := len(self._open):
            logger.warning("%d answers wait in the spool for the next worker", left)

    def _enter(self, outcome: Outcome, *, path: Path | None = None) -> Entry:
        with self._lock:
            known = self._open.get(outcome.key)
            if known is not None:
                return known
            entry = self._open[outcome.key] = Entry(outcome, path=path, is_late=path is not None)
            return entry

    def _put(self, entries: Iterable[Entry]) -> None:
        self._start()
        with self._lock:
            self._queue.extend(entries)
            self._queued.notify()

    def _start(self) -> None:
        with self._lock:
            if self._threads:
                return
            for target, name in ((self._work, "store"), (self._watch, "store-watch")):
                thread = threading.Thread(target=target, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _work(self) -> None:
        """Store what is queued, batch by batch; while the database is away, again and again with growing pauses."""
        pause = FIRST_PAUSE
        while (batch := self._next()) is not None:
            if not batch:
                connection.close()
                continue
            try:
                self._carry_out(batch)
                pause = FIRST_PAUSE
            except Exception as err:  # noqa: BLE001  whatever it was, this thread and what it holds go on
                self._tell_away(err)
                connection.close()
                with self._lock:
                    self._queue.extendleft(reversed(batch))
                self._shelf.keep(list(self._queue))
                self._closing.wait(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
                self._shelf.keep(list(self._queue))
        connection.close()

    def _next(self) -> list[Entry] | None:
        """The next batch, one outcome of each connection; empty after a while without any; ``None`` at the end."""
        with self._lock:
            # Without work for a while, the database connection is given back, and then there is nothing to wake up for.
            idle = IDLE if connection.connection is not None else None
            self._queued.wait_for(lambda: self._queue or self._closing.is_set(), timeout=idle)
            if self._closing.is_set():
                return None
            batch: dict[object, Entry] = {}
            rest: list[Entry] = []
            while self._queue and len(batch) < BATCH:
                entry = self._queue.popleft()
                if entry.is_over:
                    continue
                if entry.outcome.connection_id in batch:
                    rest.append(entry)
                else:
                    batch[entry.outcome.connection_id] = entry
            self._queue.extendleft(reversed(rest))
            return list(batch.values())

    def _watch(self) -> None:
        """Write to the spool what a silent database keeps waiting, and try the disk again for what is on none."""
        while not self._closing.wait(SILENT / 2):
            before = time.monotonic() - SILENT
            late = [entry for entry in list(self._open.values()) if entry.begun_at < before and entry.path is None]
            if late:
                self._shelf.keep(late)
                # Sealing may have needed one.
                connection.close()

    def _carry_out(self, batch: list[Entry]) -> None:
        """Store ``batch``. One that the database refuses for what it is must not hold up the others."""
        outage.tell_return()
        new = [entry for entry in batch if entry.is_stored is None]
        try:
            stored = apply([entry.outcome for entry in new]) if new else set()
        except Exception as err:
            if len(batch) > 1:
                self._carry_out_singly(batch)
            elif _is_refusal(err):
                self._refused(batch[0], err)
            else:
                raise
            return
        for entry in new:
            entry.is_stored = entry.outcome.connection_id in stored
        away: Error | None = None
        for entry in batch:
            try:
                self._settle(entry)
            except outage.AWAY as err:
                away = err
        if away is not None:
            raise away

    def _carry_out_singly(self, batch: list[Entry]) -> None:
        """Store what can be stored of ``batch``: one row that somebody keeps locked looks like a database that is away."""
        locked: Error | None = None
        for entry in batch:
            try:
                self._carry_out([entry])
            except Error as err:
                if not connection.is_usable():
                    raise
                locked = err
        if locked is not None:
            raise locked

    def _refused(self, entry: Entry, err: Exception) -> None:
        """Store in place of an outcome that no database takes that it could not be stored: the claim must not stand.

        What was refused stays on disk for whoever looks into it.
        """
        outcome = entry.outcome
        # Its text may quote what was to be stored.
        name = type(err).__name__
        logger.error("connection %s: the provider's answer could not be stored: %s", outcome.connection_id, name)
        if outcome.claimed is None or outcome.columns.get("failure_code") == NOT_STORED.code:
            # Nothing could take its place; its lease runs out.
            self._shelf.leave(entry)
            entry.is_stored = False
            self._finish(entry)
            return
        if outcome.is_token:
            self._shelf.set_aside(entry)
        now = time_by_database(outcome.claimed)
        substitute = failure_outcome(outcome.claimed, outcome.client, NOT_STORED, now=now)
        entry.outcome, entry.content = replace(substitute, seal=outcome.seal), None
        self._carry_out([entry])

    def _settle(self, entry: Entry) -> None:
        try:
            settle(entry.outcome, is_stored=bool(entry.is_stored))
        except outage.AWAY:
            raise
        except Exception as err:  # noqa: BLE001  the outcome is stored; it must not be held for what follows from it
            name = type(err).__name__
            logger.error("connection %s: a fault of ours after storing: %s", entry.outcome.connection_id, name)
        self._finish(entry)

    def _finish(self, entry: Entry) -> None:
        # Its file first, so that nobody adopts it who does not find it among what is open.
        self._shelf.end(entry)
        if not entry.done.done():
            entry.done.set_result(bool(entry.is_stored))
        with self._lock:
            self._open.pop(entry.outcome.key, None)
            if not self._open:
                self._all_stored.notify_all()

    def _tell_away(self, err: Exception) -> None:
        """Say once what keeps the database from taking what there is; where it is away, to everybody."""
        if isinstance(err, outage.AWAY) and not outage.is_lock(err):
            outage.notice(err)
        elif self._quiet.is_news():
            logger.error("%d answers wait: the database does not take them (%s)", len(self._open), type(err).__name__)


def _is_refusal(err: Exception) -> bool:
    """Whether an outcome is refused for what it is. A database that is read-only, or lacks a column, would refuse any other."""
    return isinstance(err, DataError | IntegrityError) or not isinstance(err, Error)


_storer: Storer | None = None
_storer_lock = threading.Lock()


def storer() -> Storer:
    """The storer of this process."""
    global _storer
    with _storer_lock:
        if _storer is None:
            _storer = Storer()
        return _storer


def close() -> None:
    """Close the storer of this process, if there is one; the next outcome makes another."""
    global _storer
    with _storer_lock:
        closing, _storer = _storer, None
    if closing is not None:
        closing.close()


def adopt_in_background() -> None:
    """Store what a web process that was killed left in the spool, where no worker works in the same directory."""
    threading.Thread(target=_adopt, name="store-adopt", daemon=True).start()


def _adopt() -> None:
    pause, is_adopted = FIRST_PAUSE, False
    while not is_adopted:
        try:
            storer().adopt_spool()
            is_adopted = True
        except Error as err:
            outage.notice(err)
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
        finally:
            connection.close()
