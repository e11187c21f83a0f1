"""What sealing and opening one value costs, with the data key at hand as it is in a process that has run for a while."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from benchmarks.figures import figure
from benchmarks.rows import ACCESS_TOKEN
from benchmarks.scale import Scale
from secrets_app import data_keys
from secrets_app.crypto.cipher import Place, Plaintext
from tests.factories import an_account

_BATCH = 200
_LONGEST = 1.0


@dataclass(frozen=True, slots=True)
class Sealing:
    """CPU-bound times of one call, the median of batches."""

    value_bytes: int = figure("size of the value", "bytes")
    seal_us: float = figure("seal", "µs")
    open_us: float = figure("open", "µs")


def measure(scale: Scale) -> Sealing:
    """Seal and open a value as long as an access token, for half of the time each."""
    place = Place(account=an_account().pk, table="benchmark", column="value", row=uuid.uuid4())
    value = Plaintext(ACCESS_TOKEN)
    sealed = data_keys.seal(value, place)
    seconds = min(scale.seconds, _LONGEST) / 2
    return Sealing(
        value_bytes=len(ACCESS_TOKEN),
        seal_us=_microseconds(lambda: data_keys.seal(value, place), seconds),
        open_us=_microseconds(lambda: data_keys.unseal(sealed, place), seconds),
    )


def _microseconds(call: Callable[[], object], seconds: float) -> float:
    ends_at = time.perf_counter() + seconds
    batches: list[float] = []
    while not batches or time.perf_counter() < ends_at:
        began = time.perf_counter()
        for _ in range(_BATCH):
            call()
        batches.append((time.perf_counter() - began) / _BATCH)
    return median(batches) * 1e6
