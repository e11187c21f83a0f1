"""`manage.py refresh_tokens [--due | --all] [--provider P] [--account SLUG] [--dry-run] [--json]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from django.db.models import Count, QuerySet

from knoxcall.clock import database_now
from oauth_app.management.choosing import (
    add_choice,
    chosen_connections,
    due_at,
    ids_by_deadline,
    ids_in_any_order,
    renewable,
)
from oauth_app.management.progress import Progress
from oauth_app.management.refreshing import Stop, Tally, refresh_all, stop_on_signal, without_routine
from oauth_app.models import Connection
from oauth_app.outage import AWAY
from oauth_app.sweep import Sweeper

STOPPING = "Stopping: the calls in flight end and are stored, within half a minute."


class Command(BaseCommand):
    help = "Refresh tokens now, with the workers' own claims and limits: never one twice, whatever they do meanwhile."

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--due", action="store_true", help="what is due; so it is without --all")
        which.add_argument("--all", action="store_true", help="everything that can be refreshed, due or not")
        add_choice(parser)
        parser.add_argument("--dry-run", action="store_true", help="count by provider, and neither call nor write")
        parser.add_argument("--json", action="store_true", help="print the summary as a JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = chosen_connections(options)
        chosen = renewable(chosen) if options["all"] else due_at(chosen, database_now())
        if options["dry_run"]:
            self._count(chosen, as_json=options["json"])
            return
        ids = ids_in_any_order(chosen) if options["all"] else ids_by_deadline(chosen)
        with without_routine(is_wanted=options["verbosity"] > 1):
            status = self._refresh(ids, chosen.count(), only_due=not options["all"], as_json=options["json"])
        if status:
            sys.exit(status)

    def _count(self, chosen: QuerySet[Connection], *, as_json: bool) -> None:
        counted = chosen.order_by().values_list("secret__registration__provider").annotate(number=Count("pk"))
        providers = dict(counted.order_by("-number", "secret__registration__provider"))
        total = sum(providers.values())
        if as_json:
            self.stdout.write(json.dumps({"connections": total, "providers": providers}))
            return
        for provider, number in providers.items():
            self.stdout.write(f"{number:>9,}  {provider}")
        self.stdout.write(f"{total:>9,}  would be refreshed")

    def _refresh(self, ids: Iterator[UUID], total: int, *, only_due: bool, as_json: bool) -> int:
        """Refresh them and print the summary; returns the exit status."""
        progress = Progress(self._to_stderr, total, is_terminal=self.stderr.isatty())
        tally = Tally(progress, total)
        sweeper = Sweeper()
        away: Error | None = None
        with stop_on_signal() as stop:
            try:
                stopped = _told_once(stop, progress)
                refresh_all(sweeper, ids, note=tally.note, should_stop=stopped, only_due=only_due)
            except AWAY as err:
                away = err
            finally:
                # What was called is stored, or lies in the spool, before this returns.
                sweeper.stop()
        progress.finish()
        summary = json.dumps(tally.document(interrupted=bool(stop))) if as_json else "\n".join(tally.lines())
        self.stdout.write(summary)
        if away is not None:
            raise CommandError(f"The database went away ({type(away).__name__}): nothing more was sent.")
        if stop:
            return stop.exit_status
        return 1 if tally.has_failures else 0

    def _to_stderr(self, text: str) -> None:
        # No colour: what is written here is no error.
        self.stderr.write(text, str, ending="")
        self.stderr.flush()


def _told_once(stop: Stop, progress: Progress) -> Callable[[], bool]:
    """Whether to stop; the first time that it is so, the person is told why the command does not end at once."""
    told = False

    def should_stop() -> bool:
        nonlocal told
        if stop and not told:
            told = True
            # Not in the handler: it may have come in the middle of a line.
            progress.say(STOPPING)
        return bool(stop)

    return should_stop
