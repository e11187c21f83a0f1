"""Celery's part in refreshing: it says when. Messages carry no token and no id; what is due stands in the database."""

from __future__ import annotations

import logging
import threading
from typing import Any

from celery import shared_task
from celery.signals import worker_ready, worker_shutdown

from oauth_app import authorize, clients, discovery, revocation
from oauth_app.sweep import sweeper

logger = logging.getLogger(__name__)
_revoking = threading.Lock()


@shared_task(name="oauth_app.tasks.sweep", acks_late=False)
def sweep() -> None:
    """Refresh what is due. Repeated, lost or simultaneous messages do no harm."""
    sweeper().tick()


@worker_ready.connect
def watch_for_silence(**_: Any) -> None:
    """Start the watch that sweeps when the broker has fallen silent."""
    threading.Thread(target=sweeper().watch, name="sweep-watch", daemon=True).start()


@worker_shutdown.connect
def finish_calls(**_: Any) -> None:
    """Let calls in flight end and be stored before the process goes."""
    sweeper().stop()


@shared_task(name="oauth_app.tasks.revoke", acks_late=False)
def revoke() -> None:
    """Revoke at the providers what was given up."""
    # One at a time in a process: a provider that is silent must not take every slot of the worker.
    if not _revoking.acquire(blocking=False):
        return
    try:
        revocation.revoke_due()
    finally:
        _revoking.release()


@shared_task(name="oauth_app.tasks.prune")
def prune() -> None:
    """Delete consents that ended or ran out more than a day ago, and erase whatever was kept for a day only."""
    if deleted := authorize.prune():
        logger.info("pruned %d consents", deleted)
    if erased := clients.erase_previous_secrets():
        logger.info("erased %d previous client secrets", erased)
    if erased := revocation.prune():
        logger.warning("gave up %d revocations after 24 hours", erased)


@shared_task(name="oauth_app.tasks.refetch_issuers", acks_late=False)
def refetch_issuers() -> None:
    """Ask issuers again whose metadata is older than a day."""
    if changed := discovery.refetch_stale():
        logger.info("the metadata of %d issuers changed", changed)
