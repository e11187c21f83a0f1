"""Celery's part in refreshing: it says when. Messages carry no token and no id; what is due stands in the database."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import shared_task
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down

from oauth_app import authorize, clients, discovery, history, outage, revocation, storing
from oauth_app.sweep import sweeper

logger = logging.getLogger(__name__)

# Seconds for which a thread of a worker keeps the interpreter while others want it; Python's own is a tenth of that. They all
# wait soon, for a provider or a lock, and every change of threads before that costs more than it gives.
SWITCH_INTERVAL = 0.05
_revoking = threading.Lock()


@shared_task(name="oauth_app.tasks.sweep", acks_late=False)
def sweep() -> None:
    """Refresh what is due. Repeated, lost or simultaneous messages do no harm."""
    sweeper().wake()


@worker_ready.connect
def begin(**_: Any) -> None:
    """Start the thread that sweeps; what was left in the spool comes first."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    thread = threading.Thread(target=sweeper().run, name="sweep", daemon=True)
    sweeper().wake()
    thread.start()


@worker_shutting_down.connect
def claim_no_more(**_: Any) -> None:
    """Stop claiming as soon as somebody asks for the end; tasks may still be running."""
    sweeper().ask_to_stop()


@worker_shutdown.connect
def finish(**_: Any) -> None:
    """Let calls in flight end and be stored before the process goes."""
    sweeper().stop()
    storing.close()


@shared_task(name="oauth_app.tasks.revoke", acks_late=False)
def revoke() -> None:
    """Revoke at the providers what was given up."""
    # One at a time in a process: a provider that is silent must not take every slot of the worker.
    if not _revoking.acquire(blocking=False):
        return
    try:
        with _away_is_no_fault():
            revocation.revoke_due()
    finally:
        _revoking.release()


@shared_task(name="oauth_app.tasks.prune")
def prune() -> None:
    """Delete what ended or ran out, erase whatever was kept for a day only, and bring the history up to date."""
    with _away_is_no_fault():
        if deleted := authorize.prune():
            logger.info("pruned %d consents", deleted)
        if erased := clients.erase_previous_secrets():
            logger.info("erased %d previous client secrets", erased)
        if erased := revocation.prune():
            logger.warning("gave up %d revocations after 24 hours", erased)
        history.foretell()
        if deleted := history.prune_events():
            logger.info("pruned %d events of connections", deleted)


@shared_task(name="oauth_app.tasks.refetch_issuers", acks_late=False)
def refetch_issuers() -> None:
    """Ask issuers again whose metadata is older than a day."""
    with _away_is_no_fault():
        if changed := discovery.refetch_stale():
            logger.info("the metadata of %d issuers changed", changed)


@contextmanager
def _away_is_no_fault() -> Iterator[None]:
    """Leave the block when the database is away: the schedule asks again, and the log needs no traceback of that."""
    try:
        yield
    except outage.AWAY as err:
        outage.notice(err)
