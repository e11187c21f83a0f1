"""What can be measured. Each entry is a module of this package with a function `measure(scale)`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One entry of the table."""

    title: str
    in_process: bool
    """Whether it calls the vault's own functions, so that Django and a migrated database have to be there first."""
    uses_database: bool = True
    """Whether the database makes a difference; without one it is measured once."""
    needs_postgresql: bool = False
    """Whether it is measured on PostgreSQL only."""

    def databases(self, found: list[str]) -> list[str]:
        """Those of ``found`` that it is measured on."""
        if self.needs_postgresql:
            return [name for name in found if name == "postgresql"]
        return found if self.uses_database else found[:1]


BENCHMARKS = {
    "sealing": Benchmark(title="Seal and open one value, without a database", in_process=True, uses_database=False),
    "statements": Benchmark(title="SQL statements", in_process=True),
    "claiming": Benchmark(title="Claim due connections", in_process=True),
    "refreshing": Benchmark(title="Refresh in one process", in_process=True),
    "sustained": Benchmark(title="Refresh in worker processes", in_process=True, needs_postgresql=True),
    "steady": Benchmark(title="Delay in a steady state", in_process=True, needs_postgresql=True),
    "reading": Benchmark(title="Read a fresh token over HTTP", in_process=False),
    "waiting": Benchmark(title="The same beside callers that wait", in_process=False),
    "starting": Benchmark(title="Start the house", in_process=False),
}
