"""Housekeeping on the schedule."""

from __future__ import annotations

import logging

from celery import shared_task

from secrets_app import idempotency

logger = logging.getLogger(__name__)


@shared_task(name="secrets_app.tasks.prune")
def prune() -> None:
    """Delete what has outlived its use: idempotency records of more than a day."""
    if deleted := idempotency.prune():
        logger.info("pruned %d idempotency records", deleted)
