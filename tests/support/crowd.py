"""Several threads that do something at the same moment, as several callers would."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import connections


def all_at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run ``calls`` in a thread each, all starting together; returns their results in order. Raises what one raised."""
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def run(number: int, call: Callable[[], Any]) -> None:
        try:
            barrier.wait()
            results[number] = call()
        except BaseException as err:  # noqa: BLE001  raised again where the test sees it
            errors.append(err)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
