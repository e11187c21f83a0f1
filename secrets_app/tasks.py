"""Housekeeping on the schedule."""

from __future__ import annotations

import logging

from celery import shared_task
from django.db import InterfaceError, OperationalError

from secrets_app import idempotency

logger = logging.getLogger(__name__)


@shared_task(name="secrets_app.tasks.prune")
def prune() -> None:
    """Delete what has outlived its use: idempotency records of more than a day."""
    try:
        if deleted := idempotency.prune():
            logger.info("pruned %d idempotency records", deleted)
    except (OperationalError, InterfaceError) as err:
        # The schedule asks again.
        logger.warning("idempotency records are not pruned: the database is away (%s)", type(err).__name__)
