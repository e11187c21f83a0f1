"""How long `make run` takes until the vault answers, on a data directory that has seen its first start."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.figures import MeasurementFailed, figure
from benchmarks.scale import Scale
from tests.support.house import PATIENCE, is_healthy, running_house
from tests.support.services import free_port
from tests.support.vaults import on_production_services, production_environment

MOST = 5
_PAUSE = 0.005


@dataclass(frozen=True, slots=True)
class Starting:
    """From the start of the process to the first 200 of `/healthz`."""

    first_s: float = figure("first start, with migrations and keys, until /healthz", "s")
    warm_s: float = figure("warm start until /healthz, median", "s")
    starts: int = figure("warm starts", "")


def measure(scale: Scale) -> Starting:
    """Start a house for the first time, then again and again until the time is over: at least once."""
    with tempfile.TemporaryDirectory(prefix="kc-start-") as directory, _services() as env:
        data_dir = Path(directory) / "data"
        first = _start(data_dir, env)
        ends_at = time.monotonic() + scale.seconds
        warm: list[float] = []
        while not warm or (time.monotonic() < ends_at and len(warm) < MOST):
            warm.append(_start(data_dir, env))
    return Starting(first_s=first, warm_s=median(warm), starts=len(warm))


@contextlib.contextmanager
def _services() -> Iterator[Mapping[str, str]]:
    if on_production_services():
        with production_environment() as env:
            yield env
    else:
        yield {}


def _start(data_dir: Path, env: Mapping[str, str]) -> float:
    """Start a house and stop it again; returns the seconds until it answered."""
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        began = time.perf_counter()
        answered_at = pool.submit(_first_answer, port)
        with running_house(data_dir, port=port, env=env):
            return answered_at.result() - began


def _first_answer(port: int) -> float:
    deadline = time.monotonic() + PATIENCE
    while not is_healthy(port):
        if time.monotonic() > deadline:
            raise MeasurementFailed("the house did not answer")
        time.sleep(_PAUSE)
    return time.perf_counter()
