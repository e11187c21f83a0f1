"""Refreshing in the foreground: what became of each connection, counted, and a stop that lets calls in flight end."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any
from uuid import UUID

from oauth_app.management.progress import Progress
from oauth_app.sweep import CALL_SLOTS, Sweeper

# Connections that are handed to the sweeper at once. No more than half of what it can call: a host and an account have less
# than all of that, and each that finds no place has cost a claim.
AT_ONCE = CALL_SLOTS // 2
# Seconds until what found no place is handed in again, and seconds in which something has to have moved.
PAUSE, PATIENCE = 0.25, 5.0

# What the sweeper says of a connection, with our words for it. Those with a code behind them come with their codes.
WORDS = {
    "failed": "failed; tried again by the workers",
    "ended": "ended: needs a new consent, or other credentials",
    "held": "left alone: somebody else was refreshing it, or it changed meanwhile",
    "busy": "not sent: the host is at its limit, or is being spared after failures",
    "postponed": "not sent: a refresh was cut off, and the valid token is served to its end first",
    "fault": "failed by a fault of ours; the log has it",
}
FAILURES = ("failed", "ended", "fault")


class Tally:
    """Counts results as the sweeper's threads report them, and moves the progress on."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._lock = threading.Lock()
        self._results: Counter[str] = Counter()
        self._codes: dict[str, Counter[str]] = {"failed": Counter(), "ended": Counter()}

    def note(self, connection_id: UUID, result: str) -> None:
        """A connection is done; ``result`` as in `Sweeper.refresh_these`."""
        kind, _, code = result.partition(":")
        with self._lock:
            self._results[kind] += 1
            if kind in self._codes:
                self._codes[kind][code] += 1
        self._progress.advance()

    @property
    def has_failures(self) -> bool:
        return any(self._results[kind] for kind in FAILURES)

    @property
    def not_reached(self) -> int:
        """Those that were chosen and that nothing was said of: the command was stopped, or they are gone."""
        return max(0, self._total - self._results.total())

    def lines(self) -> list[str]:
        """The summary: one line for all, and one for each kind of result that there was besides."""
        lines = [f"Refreshed {self._results['refreshed']:,} of {self._total:,} in {self._progress.seconds:,.1f} s."]
        for kind, words in WORDS.items():
            if number := self._results[kind]:
                codes = self._codes.get(kind, Counter()).most_common()
                named = ", ".join(f"{code} {count:,}" for code, count in codes)
                lines.append(f"  {number:>7,}  {words}{f' ({named})' if named else ''}")
        if self.not_reached:
            lines.append(f"  {self.not_reached:>7,}  not reached")
        return lines

    def document(self, *, interrupted: bool) -> dict[str, Any]:
        """The summary for machines."""
        counted = {kind: self._codes[kind] if kind in self._codes else self._results[kind] for kind in WORDS}
        return {
            "connections": self._total,
            "refreshed": self._results["refreshed"],
            **counted,
            "not_reached": self.not_reached,
            "interrupted": interrupted,
            "seconds": round(self._progress.seconds, 1),
        }


def refresh_all(
    sweeper: Sweeper,
    ids: Iterator[UUID],
    *,
    note: Callable[[UUID, str], None],
    should_stop: Callable[[], bool],
    only_due: bool = False,
) -> None:
    """Refresh ``ids``, or those of them that are still due then, and ``note`` what became of each.

    What found no place at its host, or for its account, is handed in again as long as anything moves. `busy` is noted of what
    was not sent even so: its host is being spared, or others take all its places.
    """
    waiting: deque[UUID] = deque()
    moved_at = time.monotonic()

    def done(pk: UUID, result: str) -> None:
        nonlocal moved_at
        if result == "busy":
            waiting.append(pk)
        else:
            moved_at = time.monotonic()
            note(pk, result)

    while not should_stop():
        fresh = list(islice(ids, AT_ONCE))
        batch = fresh + [waiting.popleft() for _ in range(min(len(waiting), AT_ONCE - len(fresh)))]
        if not batch:
            return
        before = moved_at = time.monotonic() if fresh else moved_at
        sweeper.refresh_these(batch, on_done=done, should_stop=should_stop, only_due=only_due)
        if fresh or moved_at != before:
            continue
        if time.monotonic() - moved_at > PATIENCE:
            break
        time.sleep(PAUSE)
    else:
        # Stopped: what waits was not reached.
        return
    for pk in waiting:
        note(pk, "busy")


class Stop:
    """Whether somebody asked to stop, by Ctrl-C or SIGTERM. Falsy until then."""

    signum = 0

    def __bool__(self) -> bool:
        return self.signum != 0

    @property
    def exit_status(self) -> int:
        """130 after Ctrl-C, as shells have it."""
        return 128 + self.signum


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Within the block a signal to stop is noted, and does nothing else: calls in flight end, because each has a deadline."""
    stop = Stop()

    def note(signum: int, frame: object) -> None:
        stop.signum = stop.signum or signum

    before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def without_routine(*, is_wanted: bool) -> Iterator[None]:
    """Within the block the log keeps to warnings, so that a line for each token does not bury the progress of the command."""
    log = logging.getLogger("oauth_app")
    before = log.level
    if not is_wanted:
        log.setLevel(max(before, logging.WARNING))
    try:
        yield
    finally:
        log.setLevel(before)
