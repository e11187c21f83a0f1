"""Processes that come back when they die, and that end when we do.

Whoever starts one must never have a second thread: what happens here between fork and exec is safe only without one,
and the kernel takes the end of the thread that forked for the end of the parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
PR_SET_PDEATHSIG = 1


def end_with_parent() -> Callable[[], None]:
    """Return what a child calls before its program, so that the kernel ends it when we die, even of SIGKILL.

    Only Linux can do that; elsewhere a parent that is killed leaves its children behind.
    """
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def before_exec() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        # We may have died before the line above took effect, and then no signal comes.
        if os.getppid() != parent:
            os._exit(1)

    return before_exec


class Child:
    """A process that should run for as long as we do.

    It has a session of its own: a Ctrl-C does not reach it behind our back, and what it started can be killed with it.
    ``lock`` is a descriptor that it inherits, so that a lock is free when the last child is gone, and not before.
    """

    def __init__(self, name: str, command: Sequence[str | Path], *, lock: int) -> None:
        self.name = name
        self.command = command
        self.lock = lock
        self.pause = SHORTEST_PAUSE
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(  # noqa: S603  commands of our own, and no shell
            self.command,
            cwd=BASE_DIR,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=end_with_parent(),
            pass_fds=[self.lock],
        )
        self.started_at = time.monotonic()
        self.due_at: float | None = None

    def is_running(self) -> bool:
        return self.process.poll() is None

    def tend(self) -> str | None:
        """Start the process again if it died: soon if it had lived for a while, else after a growing pause.

        Returns what happened, in words, if anything did.
        """
        if self.is_running():
            return None
        now = time.monotonic()
        if self.due_at is None:
            self.kill()
            if now - self.started_at > LONGEST_PAUSE:
                self.pause = SHORTEST_PAUSE
            self.due_at = now + self.pause
            told = f"{self.name} (process {self.process.pid}) {self.end()}; it starts again in {self.pause:g} s."
            self.pause = min(2 * self.pause, LONGEST_PAUSE)
            return told
        if now < self.due_at:
            return None
        self.start()
        return f"{self.name} started again (process {self.process.pid})."

    def end(self) -> str:
        """How the process ended, in words."""
        code = self.process.returncode
        return f"ended with status {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"

    def kill(self) -> None:
        """Kill the process and all that it started, or what is left of that."""
        # A Mac says PermissionError of a group in which nobody lives any more.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
