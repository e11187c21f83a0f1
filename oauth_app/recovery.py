"""When a provider answers again: what failed there is due at once, spread over a minute."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from django.db import Error

from oauth_app.claim import Avoid, bring_forward
from oauth_app.hosts import hosts

logger = logging.getLogger(__name__)

SPREAD = 60.0


def make_recovered_due() -> int:
    """Make due what failed at hosts that answer again, or of clients that may call again; returns how many connections.

    A database that is away loses nothing: every connection comes back by its own back-off.
    """
    recovered = hosts().take_recovered()
    if not recovered:
        return 0
    at = avoided(recovered)
    try:
        made = bring_forward(at, spread=SPREAD)
    except Error as err:
        logger.warning("what failed at a host that answers again stays in its back-off: %s", type(err).__name__)
        return 0
    if made:
        logger.info("%d failing connections are due within a minute: their provider answers again", made)
    return made


def avoided(keys: Iterable[str]) -> Avoid:
    """The hosts and clients that ``keys`` name, as ``oauth_app.hosts`` spells them."""
    named = list(keys)
    return Avoid(
        hosts=frozenset(key[2:] for key in named if key.startswith("h ")),
        clients=frozenset(key[2:] for key in named if key.startswith("c ")),
    )
