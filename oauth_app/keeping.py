"""Outcomes that are not stored yet, and keeping them on disk while the database does not take them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from django.db import Error

from oauth_app import spool
from oauth_app.outcome import Outcome
from secrets_app import data_keys
from secrets_app.crypto.cipher import SealBroken

logger = logging.getLogger(__name__)

# Seconds between two lines about the same trouble.
TELLING = 30.0


@dataclass(eq=False, slots=True)
class Entry:
    """One outcome on its way into the database."""

    outcome: Outcome
    begun_at: float = field(default_factory=time.monotonic)
    done: Future[bool] = field(default_factory=Future)
    path: Path | None = None
    """Where it lies on disk, if it does."""
    content: bytes | None = None
    """What is written there, sealed once: a disk that takes nothing for a while must not use up the seals."""
    is_late: bool = False
    """Whether it has met a database that was away."""
    is_unsealable: bool = False
    """Whether it cannot even be sealed without the database. Of such a one nothing was sent: what is sent has its seals."""
    is_stored: bool | None = None
    """What the database said; ``None``: nothing yet."""
    is_over: bool = False
    """Whether it is stored, or known not to be needed."""


class Quiet:
    """Says no more than twice a minute that something is so."""

    def __init__(self) -> None:
        self._told_at = float("-inf")

    def is_news(self) -> bool:
        now = time.monotonic()
        if now - self._told_at < TELLING:
            return False
        self._told_at = now
        return True


class Shelf:
    """The spool as one process uses it, by any of its threads. A spool that cannot be used is told of, and raises nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # One thread writes at a time; what another has written meanwhile needs no second file.
        self._writing = threading.Lock()
        self._left_alone: set[Path] = set()
        self._quiet = Quiet()

    def keep(self, entries: Iterable[Entry]) -> None:
        """Write those of ``entries`` that are on no disk yet; they are late from then on."""
        # Those first that can be sealed without the database.
        for entry in sorted(entries, key=lambda entry: entry.outcome.seal is None):
            with self._writing:
                if entry.path is None and not entry.is_over:
                    self._write(entry)

    def end(self, entry: Entry) -> None:
        """``entry`` needs no file any more."""
        with self._lock:
            entry.is_over = True
            path = entry.path
        if path is not None:
            self._remove(path)

    def leave(self, entry: Entry) -> None:
        """``entry`` is over, and its file, if there is one, is left to whoever looks into it, or to the next process."""
        with self._lock:
            entry.is_over = True
            path, entry.path = entry.path, None
        if path is not None:
            self._left_alone.add(path)

    def set_aside(self, entry: Entry) -> None:
        """Keep on disk what ``entry`` is now, for whoever looks into it: it becomes something else, and nobody adopts this."""
        self.keep([entry])
        if entry.path is not None:
            try:
                logger.error("it is kept in the spool as %s", spool.set_aside(entry.path).name)
                entry.path = None
            except OSError as err:
                self._tell_unsafe(err)

    def found(self, held: Collection[Path | None]) -> Iterator[tuple[Path, Outcome]]:
        """What lies there beside what is ``held``. Raises what the database raises."""
        try:
            paths = [path for path in spool.files() if path not in held and path not in self._left_alone]
        except OSError as err:
            self._tell_unsafe(err)
            return
        for path in paths:
            try:
                yield path, spool.read(path)
            except FileNotFoundError:
                # Another worker was first.
                continue
            except OSError as err:
                self._tell_unsafe(err)
            except (spool.Unreadable, SealBroken) as err:
                self._left_alone.add(path)
                logger.error("%s in the spool cannot be read and stays there: %s", path.name, err)

    def _write(self, entry: Entry) -> None:
        entry.is_late = True
        try:
            if entry.content is None:
                entry.content = spool.sealed(entry.outcome, entry.outcome.seal or data_keys.seal)
            path = spool.write(entry.outcome, entry.content)
        except Error:
            entry.is_unsealable = True
            return
        except Exception as err:  # noqa: BLE001  whatever it was, the others have their turn, and this one another
            self._tell_unsafe(err)
            return
        with self._lock:
            entry.path = path
            is_over = entry.is_over
        if is_over:
            # Stored while it was written.
            self._remove(path)

    def _remove(self, path: Path) -> None:
        try:
            spool.remove(path)
        except OSError as err:
            # The next process finds that it is stored.
            self._left_alone.add(path)
            logger.error("%s is stored and cannot be removed from the spool: %s", path.name, err.strerror)

    def _tell_unsafe(self, err: Exception) -> None:
        if self._quiet.is_news():
            logger.error(
                "the spool cannot be used (%s): answers are held in memory, and nothing is claimed until they are stored",
                err.strerror if isinstance(err, OSError) else type(err).__name__,
            )
