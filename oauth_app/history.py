"""The history of connections: what is written into it ahead of a refresh token's end, and how it stays small.

Changes of state are written where they are made, in the transaction that makes them. Here is what only time brings about; the
schedule asks for it. Both work in batches, so that no statement holds many rows for long, and any number of workers may do
them at once.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, F, Q, QuerySet, Window
from django.db.models.functions import Now, RowNumber

from knoxcall.clock import database_now
from oauth_app.attention import REAUTHORIZE_NOTICE, needs_consent_soon, reauthorize_soon
from oauth_app.models import Connection, ConnectionEvent

logger = logging.getLogger(__name__)

# An event goes when it is older than this, and when its connection has so many newer ones.
KEPT_FOR = timedelta(days=90)
MOST_KEPT = 100

# Rows that one statement deletes, and one run; the next one goes on from there.
PRUNED_AT_ONCE = 5_000
PRUNED_IN_A_RUN = 100_000
# Connections whose history is cut in one run.
CUT_IN_A_RUN = 500

# Connections whose end is foretold in one transaction, and in one run.
FORETOLD_AT_ONCE = 500
FORETOLD_IN_A_RUN = 10_000


def foretell() -> int:
    """Tell the history and the log which refresh tokens end within seven days, once for each end; returns how many.

    It was told if that was within the seven days: an end that moves within them is no news, an end of the next token is.
    """
    told = 0
    while told < FORETOLD_IN_A_RUN:
        batch = _foretell(min(FORETOLD_AT_ONCE, FORETOLD_IN_A_RUN - told))
        told += batch
        if batch < FORETOLD_AT_ONCE:
            break
    return told


def _foretell(limit: int) -> int:
    """One batch: mark and events in one transaction, so that of two workers one tells, and never neither."""
    with transaction.atomic():
        # The lock decides who tells. What another worker holds it tells itself; on SQLite the transaction is its own lock.
        untold = list(_untold().select_for_update(skip_locked=True, of=("self",))[:limit])
        Connection.objects.filter(pk__in=[connection.pk for connection in untold]).update(reauthorize_told_at=Now())
        now = database_now()
        ConnectionEvent.objects.bulk_create(_event(connection, now) for connection in untold)
    for connection in untold:
        logger.warning("connection %s: its refresh token ends at %s", connection.pk, connection.reauthorize_by)
    return len(untold)


def _untold() -> QuerySet[Connection]:
    before_the_notice = Q(reauthorize_told_at=None) | Q(
        reauthorize_told_at__lt=F("reauthorize_by") - REAUTHORIZE_NOTICE
    )
    return (
        Connection.objects.filter(needs_consent_soon(), before_the_notice, reauthorize_by__gt=Now())
        .select_related("secret__registration")
        .order_by("reauthorize_by")
        .only(
            "status",
            "status_changed_at",
            "reauthorize_by",
            "refresh_token_rolls",
            "refresh_token_expires_at",
            "secret__registration__grant_type",
        )
    )


def _event(connection: Connection, now: datetime) -> ConnectionEvent:
    found = reauthorize_soon(connection, now, renewable=True)
    return ConnectionEvent(
        connection=connection,
        previous_status=connection.status,
        status=connection.status,
        code="reauthorize_soon",
        message=found.message if found else "",
    )


def prune_events() -> int:
    """Delete events older than 90 days, and those beyond the newest 100 of a connection; returns how many."""
    deleted = _delete_in_batches(_too_old, at_most=PRUNED_IN_A_RUN)
    crowded = _crowded()
    if crowded:
        deleted += _delete_in_batches(lambda: _beyond_the_newest(crowded), at_most=PRUNED_IN_A_RUN - deleted)
    return deleted


def _too_old() -> QuerySet[Any, int]:
    old = ConnectionEvent.objects.filter(created_at__lt=Now() - KEPT_FOR)
    return old.order_by("created_at").values_list("pk", flat=True)


def _crowded() -> list[uuid.UUID]:
    """Connections with more events than are kept, those with the most first."""
    counted = ConnectionEvent.objects.values("connection").annotate(events=Count("pk"))
    # In this order: with a limit alone PostgreSQL counts along the index, row by row, and takes longer.
    crowded = counted.filter(events__gt=MOST_KEPT).order_by("-events").values_list("connection", flat=True)
    return list(crowded[:CUT_IN_A_RUN])


def _beyond_the_newest(connections: Sequence[uuid.UUID]) -> QuerySet[Any, int]:
    newest_first = Window(RowNumber(), partition_by="connection", order_by="-id")
    ranked = ConnectionEvent.objects.filter(connection__in=connections).annotate(place=newest_first)
    return ranked.filter(place__gt=MOST_KEPT).order_by().values_list("pk", flat=True)


def _delete_in_batches(doomed: Callable[[], QuerySet[Any, int]], *, at_most: int) -> int:
    deleted = 0
    while deleted < at_most:
        limit = min(PRUNED_AT_ONCE, at_most - deleted)
        ids = list(doomed()[:limit])
        gone = _delete(ids)
        deleted += gone
        if len(ids) < limit or not gone:
            break
    return deleted


def _delete(ids: list[int]) -> int:
    with transaction.atomic():
        # What another worker is deleting is left to it: two that wait for each other's rows would be a deadlock.
        own = ConnectionEvent.objects.filter(pk__in=ids).select_for_update(skip_locked=True)
        deleted, _ = ConnectionEvent.objects.filter(pk__in=list(own.values_list("pk", flat=True))).delete()
    return deleted
