"""Outages of the database as this process noticed them: one is told to everybody once the database is back.

From then on nobody sends again what may have been answered, until every spool had its time (``oauth_app.claim``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.db import Error, InterfaceError, InternalError, OperationalError
from django.db.models.functions import Now

from knoxcall.waiting import release_connection
from oauth_app.models import DatabaseReturn

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# What a database raises that is away, or does not take what we have just now: internal errors are those of a read-only one.
AWAY = (OperationalError, InterfaceError, InternalError)
# PostgreSQL's codes for what somebody else keeps locked, by which a database that is there is told from one that is away.
_LOCKS = {"55P03", "40P01"}

# Seconds for which a consent's answer waits for a database that is away: a person waits with it.
CONSENT_PATIENCE = 4.0

_lock = threading.Lock()
_since: float | None = None


def notice(error: Error) -> None:
    """Note that the database is away. Says so once for each outage."""
    global _since
    with _lock:
        if _since is not None:
            return
        _since = time.monotonic()
    logger.error("the database is away (%s): nothing is claimed until it is back", type(error).__name__)


def is_lock(error: BaseException) -> bool:
    """Whether somebody else's lock was in the way, and nothing else."""
    return getattr(error.__cause__, "sqlstate", None) in _LOCKS


def is_known() -> bool:
    """Whether the database was away when this process last asked it."""
    return _since is not None


def tell_return() -> None:
    """Tell everybody that the database is back, if it was away. Called before anything else that asks it; raises ``Error``."""
    global _since
    since = _since
    if since is None:
        return
    DatabaseReturn.objects.update_or_create(pk=1, defaults={"returned_at": Now()})
    with _lock:
        if _since is None:
            return
        _since = None
    logger.warning("the database is back after %.1f s", time.monotonic() - since)


def patiently(store: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run ``store``, and run it again while the database is away, for a few seconds. It must do no harm when it is repeated."""
    deadline = time.monotonic() + CONSENT_PATIENCE
    pause = 0.05
    while True:
        try:
            return store(*args, **kwargs)
        except AWAY as err:
            if time.monotonic() + pause > deadline:
                logger.error("what a consent brought could not be stored: %s", type(err).__name__)
                raise
            release_connection()
            time.sleep(pause)
            pause = min(1.0, pause * 2)
