"""When: refreshing ahead of expiry, waiting after a failure. Pure arithmetic; the clock is an argument."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

MARGIN = timedelta(minutes=5)
MARGIN_SHARE = 0.20
JITTER = timedelta(minutes=1)
JITTER_SHARE = 0.05

# A refresh token that dies of not being used is used when so much of its life is over.
KEEP_ALIVE_SHARE = 0.75

FIRST_BACKOFF = timedelta(seconds=15)
LONGEST_BACKOFF = timedelta(minutes=15)
SHORTEST_BACKOFF = timedelta(seconds=1)
REJECTED_INTERVAL = timedelta(hours=24)

_random: random.Random = random.SystemRandom()


def refresh_due(issued_at: datetime, expires_at: datetime) -> datetime:
    """When to refresh a token: `expires_at − min(5 min, 20 % of its lifetime)`, minus up to 5 % or a minute of jitter.

    No floor on lifetimes: a token of 8 s is due after 6.4 s, or up to 0.4 s before.
    """
    lifetime = expires_at - issued_at
    margin = min(MARGIN, lifetime * MARGIN_SHARE)
    jitter = min(JITTER, lifetime * JITTER_SHARE) * _random.random()
    return expires_at - margin - jitter


def keep_alive_due(used_at: datetime, ends_at: datetime) -> datetime:
    """When to use a refresh token that dies at ``ends_at`` of not being used: after three quarters, less up to 5 % of jitter."""
    life = ends_at - used_at
    return used_at + life * (KEEP_ALIVE_SHARE - JITTER_SHARE * _random.random())


def backoff(failures: int, *, retry_after: int | None = None) -> timedelta:
    """How long to wait after the ``failures``-th failure in a row: full jitter under a ceiling of 15 s, doubling, to 15 min.

    Full jitter, because connections that failed together must not come back together. A provider's `Retry-After` is a minimum.
    """
    ceiling = min(LONGEST_BACKOFF, FIRST_BACKOFF * (1 << min(max(0, failures - 1), 10)))
    pause = max(SHORTEST_BACKOFF, ceiling * _random.random())
    if retry_after is not None:
        pause = max(pause, timedelta(seconds=retry_after) + SHORTEST_BACKOFF * _random.random())
    return pause


def rejected_pause() -> timedelta:
    """How long to wait after the provider refused our client: about a day."""
    share: float = _random.uniform(1.0, 1.1)
    return timedelta(seconds=REJECTED_INTERVAL.total_seconds() * share)
