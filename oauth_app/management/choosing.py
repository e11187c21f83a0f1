"""Which connections a command is about: the options that narrow it down, and what is said to one that means nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.db.models import Q, QuerySet

from billing_app.accounts import AccountRefused, get_account
from oauth_app.models import Connection, GrantType
from oauth_app.providers import PROVIDERS

# Ids that are read at once. Few, so that what is read has not been refreshed by a worker before its turn comes.
PAGE = 100
_ENDED = (Connection.Status.REAUTHORIZATION_REQUIRED, Connection.Status.DISCONNECTED)


def add_choice(parser: CommandParser) -> None:
    """Add `--provider` and `--account`."""
    parser.add_argument("--provider", metavar="P", help="only connections of this provider, such as google or custom")
    parser.add_argument("--account", metavar="SLUG", help="only connections of this account")


def chosen_connections(options: dict[str, Any]) -> QuerySet[Connection]:
    """The connections that `--provider` and `--account` leave. Raises ``CommandError``."""
    chosen = Connection.objects.all()
    if (provider := options["provider"]) is not None:
        check_known("provider", provider, list(PROVIDERS))
        chosen = chosen.filter(secret__registration__provider=provider)
    if options["account"] is not None:
        try:
            chosen = chosen.filter(account=get_account(options["account"]))
        except AccountRefused as err:
            raise CommandError(str(err)) from None
    return chosen


def check_known(kind: str, name: str, known: list[str]) -> None:
    """Raise a ``CommandError`` that names the ``known`` ones if ``name`` is not among them."""
    if name not in known:
        raise CommandError(f"There is no {kind} {name}. Known are: {', '.join(known)}.")


def due_at(chosen: QuerySet[Connection], moment: datetime) -> QuerySet[Connection]:
    """Those of ``chosen`` that are due at ``moment``."""
    return chosen.filter(refresh_due_at__lte=moment)


def renewable(chosen: QuerySet[Connection]) -> QuerySet[Connection]:
    """Those of ``chosen`` that can be refreshed, due or not: by a refresh token or a grant that can be repeated."""
    repeatable = [grant for grant in GrantType if grant.is_repeatable]
    means = Q(refresh_token__isnull=False) | Q(secret__registration__grant_type__in=repeatable)
    return chosen.filter(means).exclude(status__in=_ENDED)


def ids_by_deadline(due: QuerySet[Connection]) -> Iterator[UUID]:
    """The ids of connections that are due, the oldest deadline first, a page at a time.

    What is refreshed meanwhile is due later, and does not come again.
    """
    rows = due.order_by("refresh_due_at", "pk").values_list("refresh_due_at", "pk")
    after = Q()
    while page := list(rows.filter(after)[:PAGE]):
        yield from (pk for _, pk in page)
        deadline, pk = page[-1]
        after = Q(refresh_due_at__gt=deadline) | Q(refresh_due_at=deadline, pk__gt=pk)


def ids_in_any_order(chosen: QuerySet[Connection]) -> Iterator[UUID]:
    """The ids of connections, a page at a time. Ids are random, so each page has some of every host."""
    rows = chosen.order_by("pk").values_list("pk", flat=True)
    page = list(rows[:PAGE])
    while page:
        yield from page
        page = list(rows.filter(pk__gt=page[-1])[:PAGE])
