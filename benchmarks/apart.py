"""One benchmark in a process and a database of its own: `python -m benchmarks.apart NAME SCALE`.

The environment says which database; standard output is the figures as JSON, standard error the vault's log.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module

from benchmarks.catalogue import BENCHMARKS
from benchmarks.figures import Figure, MeasurementFailed, figures_of
from benchmarks.scale import Scale
from tests.support.vaults import on_production_services, production_environment


def measure(name: str, scale: Scale) -> list[Figure]:
    """Measure ``name`` here; Django is set up before its module is imported, if it needs that."""
    with own_tables() if BENCHMARKS[name].in_process else contextlib.nullcontext():
        return figures_of(import_module(f"benchmarks.{name}").measure(scale))


@contextlib.contextmanager
def own_tables() -> Iterator[None]:
    """Let Django work on a new, migrated database."""
    with contextlib.ExitStack() as stack:
        if on_production_services():
            os.environ.update(stack.enter_context(production_environment()))
        import django
        from django.core.management import call_command
        from django.db import connection, connections

        django.setup()
        call_command("migrate", verbosity=0)
        yield
        connections.close_all()
        if connection.vendor == "postgresql":
            connection.close_pool()


def main(arguments: list[str]) -> None:
    name, scale = arguments
    # The end of this process must reach every `finally`: some stop a whole vault.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        figures = measure(name, Scale(**json.loads(scale)))
    except MeasurementFailed as err:
        sys.exit(str(err))
    print(json.dumps([asdict(figure) for figure in figures]))


if __name__ == "__main__":
    main(sys.argv[1:])
