"""`make bench`, or `python -m benchmarks`: measure one thing after the other, say so meanwhile, and print a table.

Each is measured in a process of its own (``benchmarks.apart``) on a database of its own. Everything listens on loopback,
ends within a bounded time, and leaves nothing behind. The exit status is 1 if a measurement failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.catalogue import BENCHMARKS
from benchmarks.databases import environments
from benchmarks.figures import Figure, MeasurementFailed
from benchmarks.machine import machine
from benchmarks.report import HEADINGS, Measured, Report
from benchmarks.scale import Scale
from knoxcall.children import end_with_parent
from tests.support.house import BASE_DIR, environment
from tests.support.services import NoPostgres, free_port

# Beside the seconds that are measured: starting vaults, filling tables (a million rows take minutes), stopping.
PATIENCE = 120.0
SECONDS_PER_ROW = 0.002
# A house takes up to 25 s to stop.
GRACE = 40.0


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    scale = Scale(seconds=options.seconds, rows=options.rows, latency_ms=options.latency)
    command = shlex.join(["python", "-m", "benchmarks", *arguments])
    try:
        report = run(command, list(dict.fromkeys(options.only or BENCHMARKS)), options.database, scale)
    except NoPostgres as err:
        print(err, file=sys.stderr)
        return 1
    if options.json:
        text = json.dumps(report.as_json(), indent=2) + "\n"
        if options.json == "-":
            sys.stdout.write(text)
        else:
            Path(options.json).write_text(text)
    if options.json != "-":
        print(report.as_markdown() if options.markdown else report.as_text())
    return 1 if report.failures else 0


def run(command: str, names: list[str], database: str, scale: Scale) -> Report:
    """Measure ``names`` on the chosen databases, one after the other. A failure is noted and does not stop the rest."""
    measured: list[Measured] = []
    failures: list[str] = []
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kc-bench-")))
        found = stack.enter_context(environments(database))
        described = machine(found.get("postgresql", {}).get("DATABASE_URL"))
        due = [(name, key) for name in names for key in BENCHMARKS[name].databases(list(found))]
        for number, (name, key) in enumerate(due, 1):
            _say(f"[{number}/{len(due)}] {name} on {HEADINGS[key]} … ", end="")
            began = time.monotonic()
            try:
                figures = measure_apart(name, scale, found[key], scratch / f"{name}-{key}")
            except MeasurementFailed as err:
                failures.append(f"{name} on {HEADINGS[key]}: {err}")
                _say(f"failed: {err}")
            else:
                measured.append(Measured(name, BENCHMARKS[name].title, key, figures))
                _say(f"{time.monotonic() - began:.1f} s")
    return Report(command, described, measured, failures)


def measure_apart(name: str, scale: Scale, services: Mapping[str, str], directory: Path) -> list[Figure]:
    """Measure ``name`` in a process of its own, which keeps to ``directory``. Raises ``MeasurementFailed``."""
    directory.mkdir()
    env = environment(directory / "data", free_port(), {**services, "KNOXCALL_OUTBOUND_ALLOW": "127.0.0.0/8"})
    env |= {"DJANGO_SETTINGS_MODULE": "knoxcall.settings", "TMPDIR": str(directory)}
    command = [sys.executable, "-m", "benchmarks.apart", name, json.dumps(asdict(scale))]
    with (
        open(directory / "log", "w+") as log,
        subprocess.Popen(
            command,
            cwd=BASE_DIR,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            preexec_fn=end_with_parent(),
        ) as process,
    ):
        try:
            printed, _ = process.communicate(timeout=PATIENCE + 4 * scale.seconds + SECONDS_PER_ROW * scale.rows)
        except subprocess.TimeoutExpired:
            raise MeasurementFailed("it took too long") from None
        finally:
            _end(process)
        if process.returncode:
            log.seek(0)
            raise MeasurementFailed("\n".join(log.read().splitlines()[-15:]))
    return [Figure(**figure) for figure in json.loads(printed)]


def _end(process: subprocess.Popen[str]) -> None:
    """End ``process``, if it has not by itself, and let it stop what it started."""
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        # What it started ends with it.
        process.kill()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the vault on this machine. docs/benchmarks.md explains."
    )
    defaults = Scale()
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="measure this; may be repeated")
    parser.add_argument(
        "--database",
        choices=("auto", "sqlite", "postgres", "both"),
        default="auto",
        help="auto: both where PostgreSQL is installed",
    )
    parser.add_argument(
        "--seconds", type=_positive, default=defaults.seconds, help="of each measurement (default: %(default)g)"
    )
    parser.add_argument(
        "--rows",
        type=_whole,
        default=defaults.rows,
        help="connections in the largest table that is claimed from (default: %(default)d)",
    )
    parser.add_argument(
        "--latency",
        type=_positive,
        default=defaults.latency_ms,
        help="milliseconds that the provider takes (default: %(default)g)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON; - is standard output")
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _say(line: str, end: str = "\n") -> None:
    """Progress goes to standard error: standard output is for the figures."""
    print(line, end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    # The end of this process must reach every `finally`, and Ctrl-C needs no traceback.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, _: sys.exit(128 + signum))
    sys.exit(main(sys.argv[1:]))
