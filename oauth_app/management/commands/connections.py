"""`manage.py connections [--status S] [--provider P] [--account SLUG] [--attention] [--limit N] [--json]`."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db.models import QuerySet

from oauth_app.attention import Attention
from oauth_app.management.choosing import add_choice, check_known, chosen_connections
from oauth_app.management.listing import (
    HEADINGS,
    cells_of,
    counts_of,
    document_of,
    line_of,
    listed,
    totals,
    widths_of,
)
from oauth_app.models import Connection

Row = tuple[Any, list[Attention]]


class Command(BaseCommand):
    help = "List connections, those that need a person first. No credential is read."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--status", metavar="S", help="only connections in this status, such as refresh_failing")
        add_choice(parser)
        parser.add_argument(
            "--attention", action="store_true", help="only connections of which there is more to know than the status"
        )
        parser.add_argument("--limit", metavar="N", type=_a_number, help="list no more than the first N")
        parser.add_argument("--json", action="store_true", help="print a JSON array")

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = chosen_connections(options)
        if (status := options["status"]) is not None:
            check_known("status", status, list(Connection.Status.values))
            chosen = chosen.filter(status=status)
        try:
            if options["json"]:
                self._write_documents(_rows(chosen, options))
            else:
                self._write_lines(chosen, options)
        except BrokenPipeError:
            # Whoever read it has seen enough, as `head` has; nobody is there for what is left in the buffer.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _write_documents(self, rows: Iterator[Row]) -> None:
        self.stdout.write("[", ending="")
        for number, (connection, found) in enumerate(rows):
            document = json.dumps(document_of(connection, found))
            self.stdout.write(f"{',' if number else ''}\n{document}", ending="")
        self.stdout.write("\n]")

    def _write_lines(self, chosen: QuerySet[Connection], options: dict[str, Any]) -> None:
        limit: int | None = options["limit"]
        widths = widths_of(chosen)
        # Attention is not asked of the database, so what has it can only be counted as it passes.
        counts: dict[str, int] = Counter() if options["attention"] else counts_of(chosen)
        rows = _with_attention(chosen, counts) if options["attention"] else _rows(chosen, options)
        number = 0
        for number, (connection, found) in enumerate(rows, start=1):
            if number == 1:
                self.stdout.write(line_of(HEADINGS, widths))
            if limit is None or number <= limit:
                self.stdout.write(line_of(cells_of(connection, found), widths))
        if number:
            self.stdout.write("")
        cut = limit is not None and limit < sum(counts.values())
        self.stdout.write(f"{totals(counts)}{f'; listed are the first {limit:,}' if cut else ''}")


def _rows(chosen: QuerySet[Connection], options: dict[str, Any]) -> Iterator[Row]:
    limit: int | None = options["limit"]
    if options["attention"]:
        return islice(_with_attention(chosen, Counter()), limit)
    return listed(chosen, limit=limit)


def _with_attention(chosen: QuerySet[Connection], counts: dict[str, int]) -> Iterator[Row]:
    """Those that have attention, counted by status as they pass."""
    for connection, found in listed(chosen):
        if found:
            counts[connection.status] += 1
            yield connection, found


def _a_number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError("it must be a whole number from 1 on")
    return int(text)
