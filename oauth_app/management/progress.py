"""How far a long command is: one line that is rewritten on a terminal, and lines now and then anywhere else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# Seconds between two looks of the line.
ON_A_TERMINAL = 0.1
ELSEWHERE = 5.0
_CLEAR = "\r\x1b[2K"


class Progress:
    """Counts what is done of ``total``, from any thread, and says so through ``write`` with rate and time left."""

    def __init__(
        self,
        write: Callable[[str], object],
        total: int,
        *,
        is_terminal: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._total = total
        self._is_terminal = is_terminal
        self._clock = clock
        self._lock = threading.Lock()
        self._done = 0
        self._started = self._shown = clock()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._clock() - self._started

    def advance(self) -> None:
        """One more is done."""
        with self._lock:
            self._done += 1
            if self._clock() - self._shown >= (ON_A_TERMINAL if self._is_terminal else ELSEWHERE):
                self._show()

    def say(self, line: str) -> None:
        """Write a line of its own."""
        with self._lock:
            self._write(f"{_CLEAR if self._is_terminal else ''}{line}\n")

    def finish(self) -> None:
        """Leave the last state on the terminal."""
        with self._lock:
            if self._is_terminal:
                self._show()
                self._write("\n")

    def _show(self) -> None:
        self._shown = self._clock()
        # The cursor goes back, so that a line of the log begins where this one did.
        self._write(f"{_CLEAR}{self.line()}\r" if self._is_terminal else f"{self.line()}\n")

    def line(self) -> str:
        """`1,200/5,000  24 %  210/s  18 s left`"""
        rate = self._done / max(self.seconds, 0.001)
        share = 100 * self._done // max(self._total, 1)
        line = f"{self._done:,}/{self._total:,}  {share} %  {rate:,.0f}/s"
        if 0 < self._done < self._total:
            line += f"  {_duration((self._total - self._done) / rate)} left"
        return line


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {left:02d} s"
