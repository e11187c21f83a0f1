"""The figures as a table for a terminal, as Markdown, or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.figures import Figure

HEADINGS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


@dataclass(frozen=True, slots=True)
class Measured:
    """What one benchmark brought on one database."""

    benchmark: str
    title: str
    database: str
    figures: Sequence[Figure]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that one run measured, and where."""

    command: str
    machine: Mapping[str, str]
    measured: Sequence[Measured]
    failures: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        """Columns that line up in a terminal."""
        header = [f"{label:12} {text}" for label, text in self._header().items()]
        table = self._table()
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        lines = [_aligned(row, widths) for row in table]
        rule = "  ".join("-" * width for width in widths)
        return "\n".join([*header, "", lines[0], rule, *lines[1:]])

    def as_markdown(self) -> str:
        """A list and a table for `docs/benchmarks.md`."""
        header = [f"- {label}: {text}" for label, text in self._header().items()]
        table = [f"| {' | '.join(row)} |" for row in self._table()]
        rule = "| --- | --- |" + " ---: |" * (len(self._table()[0]) - 2)
        return "\n".join([*header, "", table[0], rule, *table[1:]])

    def _header(self) -> dict[str, str]:
        return {"command": self.command, **self.machine}

    def _table(self) -> list[list[str]]:
        """A heading, then a row for each figure with a column for each database."""
        columns = [key for key in HEADINGS if any(measured.database == key for measured in self.measured)]
        rows: dict[tuple[str, str], dict[str, Figure]] = {}
        # A database may lack figures that the other has: the fullest list says in which order they come.
        titles = list(dict.fromkeys(measured.title for measured in self.measured))
        for measured in sorted(self.measured, key=lambda each: (titles.index(each.title), -len(each.figures))):
            for figure in measured.figures:
                rows.setdefault((measured.title, figure.name), {})[measured.database] = figure
        table = [["", "figure", *(HEADINGS[column] for column in columns)]]
        previous = ""
        for (title, _), cells in rows.items():
            figure = next(iter(cells.values()))
            label = f"{figure.label}, {figure.unit}" if figure.unit else figure.label
            values = [_number(cells[column].value) if column in cells else "" for column in columns]
            table.append(["" if title == previous else title, label, *values])
            previous = title
        return table


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    words = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join(words + numbers).rstrip()


def _number(value: float | None) -> str:
    """Three digits that mean something; counts as they are."""
    if value is None:
        return "–"
    if isinstance(value, int) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
