"""Real workers: the Procfile's `worker` and `beat` lines, started as a production machine would start them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import MeasurementFailed
from benchmarks.processes import cpu_seconds, total
from knoxcall.children import end_with_parent
from tests.support.house import BASE_DIR
from tests.support.procfile import lines

# A worker lets its calls end and stores their answers before it goes.
GRACE = 40.0


@dataclass(frozen=True, slots=True)
class Workers:
    """Running processes, each of which is one: the workers have threads and no children."""

    workers: list[subprocess.Popen[bytes]]
    beat: subprocess.Popen[bytes]
    logs: Path

    @property
    def pids(self) -> list[int]:
        """The ids of the workers, without that of beat."""
        return [worker.pid for worker in self.workers]

    def check(self) -> None:
        """Raise ``MeasurementFailed`` if one of them has ended, with the last that they said."""
        if any(process.poll() is not None for process in (*self.workers, self.beat)):
            raise MeasurementFailed(f"a process ended by itself:\n{self.last_lines()}")

    def wait_until(self, is_so: Callable[[], bool], seconds: float) -> None:
        """Return when it is so; raise ``MeasurementFailed`` where it is not in time."""
        deadline = time.monotonic() + seconds
        while not is_so():
            self.check()
            if time.monotonic() > deadline:
                raise MeasurementFailed(f"the workers do not do what is due:\n{self.last_lines()}")
            time.sleep(0.05)

    def cpu_seconds(self) -> float | None:
        """The CPU time that all of them have used."""
        return total(cpu_seconds(process.pid) for process in (*self.workers, self.beat))

    def last_lines(self) -> str:
        return "\n".join(
            line for log in sorted(self.logs.iterdir()) for line in [log.name, *log.read_text().splitlines()[-10:]]
        )

    def stop(self) -> None:
        """Ask all of them to end, as a deploy does, and wait until they did."""
        for process in (self.beat, *self.workers):
            process.terminate()
        for process in (self.beat, *self.workers):
            process.wait(GRACE)


@contextlib.contextmanager
def running_workers(count: int) -> Iterator[Workers]:
    """So many workers and a beat, in this process's environment; none of them is left afterwards."""
    commands = lines()
    with tempfile.TemporaryDirectory(prefix="kc-workers-") as name:
        logs = Path(name)
        started: list[subprocess.Popen[bytes]] = []
        try:
            for number in range(count):
                started.append(_start(commands["worker"], logs / f"worker-{number}.log"))
            beat = _start(commands["beat"], logs / "beat.log")
            started.append(beat)
            yield Workers(started[:-1], beat, logs)
        finally:
            for process in started:
                process.kill()
                process.wait()


def _start(command: str, log: Path) -> subprocess.Popen[bytes]:
    variables = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with open(log, "wb") as output:
        # The line says `exec`, so the shell becomes what it starts.
        return subprocess.Popen(
            ["sh", "-c", command],
            cwd=BASE_DIR,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=end_with_parent(),
        )
