"""Issuers: fetching what they say of themselves, and keeping it, so that a consent need not wait for it.

What was fetched serves for a day, and for a week while the issuer cannot be asked: addresses change rarely, and an outage of
the metadata must not stop those who could still consent.
"""

from __future__ import annotations

import contextlib
import logging
import time
from datetime import datetime, timedelta

from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Q
from django.db.models.functions import Coalesce, Now
from django.dispatch import Signal

from knoxcall import http
from knoxcall.addresses import UrlRefused
from knoxcall.api.errors import DependencyUnavailable
from knoxcall.clock import database_now
from knoxcall.context import seconds_left
from knoxcall.waiting import NoPlaceToWait, place, release_connection
from oauth_app.models import Issuer
from oauth_app.protocol.metadata import IssuerMetadata, MetadataRefused, check_issuer_url, metadata_urls, read_metadata

FRESH_FOR = timedelta(hours=24)
SERVED_FOR = timedelta(days=7)
PAUSE_AFTER_FAILURE = timedelta(minutes=5)
# Seconds for both addresses together. A create call goes on to fetch a token after this, and has 25 s for all of it.
DEADLINE = 8.0
# A worker that is told to stop waits for what it is doing, and has 30 s for it.
LONGEST_ROUND = 15.0

logger = logging.getLogger(__name__)

issuer_changed = Signal()
"""An issuer says something else than before. Sent with ``issuer`` (the row) and ``metadata``, once for each change, by whoever
sees it first, inside the transaction that stores it: what a receiver writes is committed with it, and a receiver that raises
leaves the change to be seen again."""


class DiscoveryFailed(Exception):
    """There is no metadata to go by. ``message`` says why in plain words that may be shown to whoever named the issuer."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


def discover(issuer_url: str, *, deadline: float = DEADLINE) -> IssuerMetadata:
    """Return what the issuer says of itself: what is stored while that is fresh, else asked anew, within ``deadline`` seconds.

    What is stored serves on for a week where asking fails, and is not asked for again within five minutes of that. No
    transaction may be held here. Raises ``DiscoveryFailed``, and ``DependencyUnavailable`` where too many are waiting.
    """
    try:
        known = Issuer.objects.filter(url=check_issuer_url(issuer_url)).first()
    except UrlRefused as err:
        raise DiscoveryFailed(str(err)) from None
    now = database_now()
    if known is not None and now - known.fetched_at >= SERVED_FOR:
        known = None
    if known is not None and (now - known.fetched_at < FRESH_FOR or _failed_just_now(known, now)):
        return IssuerMetadata.from_json(known.metadata)
    try:
        with place():
            metadata, _ = _refetch(issuer_url, deadline=deadline)
            return metadata
    except NoPlaceToWait:
        if known is None:
            raise DependencyUnavailable("Too many requests are waiting. Try again in a second.") from None
    except DiscoveryFailed:
        if known is None:
            raise
    return IssuerMetadata.from_json(known.metadata)


def _failed_just_now(known: Issuer, now: datetime) -> bool:
    return known.failed_at is not None and now - known.failed_at < PAUSE_AFTER_FAILURE


def refetch_stale(limit: int = 20) -> int:
    """Ask the issuers again whose metadata is more than a day old, ``limit`` at most; returns how many say something else.

    Those whose last try is the longest ago come first, so that issuers that are gone for good hold up no other. It begins no
    call after ``LONGEST_ROUND`` seconds: who is left has a turn the next time.
    """
    ends_at = time.monotonic() + LONGEST_ROUND
    rested = Q(failed_at=None) | Q(failed_at__lt=Now() - PAUSE_AFTER_FAILURE)
    stale = Issuer.objects.filter(rested, fetched_at__lt=Now() - FRESH_FOR)
    changes = 0
    for url in list(stale.order_by(Coalesce("failed_at", "fetched_at")).values_list("url", flat=True)[:limit]):
        if time.monotonic() >= ends_at:
            break
        # One that fails is marked and logged, and the others have their turn.
        with contextlib.suppress(DiscoveryFailed):
            _, is_change = _refetch(url, deadline=DEADLINE)
            changes += is_change
    return changes


def _refetch(issuer_url: str, *, deadline: float) -> tuple[IssuerMetadata, bool]:
    """Fetch and store; also returns whether it is a change. Raises ``DiscoveryFailed``, which is marked where a row is."""
    try:
        metadata = _fetch(issuer_url, deadline=deadline)
        return metadata, _store(issuer_url, metadata)
    except DiscoveryFailed as failure:
        if _mark_failed(issuer_url):
            logger.warning("issuer %s could not be asked again: %s", issuer_url, failure)
        raise
    except (OperationalError, InterfaceError):
        raise
    except Exception as err:
        # A receiver's fault must not stop the consents of everybody else: as long as it lasts, what was stored serves on.
        logger.exception("what issuer %s says now could not be taken over", issuer_url)
        _mark_failed(issuer_url)
        raise DiscoveryFailed("What the issuer says now could not be taken over.") from err


def _fetch(issuer_url: str, *, deadline: float) -> IssuerMetadata:
    """Ask at the address of OpenID Connect Discovery and, where nothing is there, at that of RFC 8414."""
    ends_at = time.monotonic() + seconds_left(deadline)
    try:
        first, second = metadata_urls(issuer_url)
        release_connection()
        answer = _get(first, ends_at=ends_at)
        if answer.status in (404, 410):
            answer = _get(second, ends_at=ends_at)
        return read_metadata(issuer_url, status=answer.status, headers=answer.headers, body=answer.body)
    except (UrlRefused, MetadataRefused) as err:
        raise DiscoveryFailed(str(err)) from None
    except http.OutboundError as err:
        raise DiscoveryFailed(f"The issuer could not be asked for its metadata: {err}") from None


def _get(url: str, *, ends_at: float) -> http.Answer:
    return http.send("GET", url, headers={"Accept": "application/json"}, deadline=ends_at - time.monotonic())


def _store(issuer_url: str, metadata: IssuerMetadata) -> bool:
    """Keep what was fetched; returns whether it is a change. Of several who see one at once, one tells of it."""
    document = metadata.to_json()
    with transaction.atomic():
        # A lock that lets others refer to the row: who changes a client to this issuer holds what a receiver wants.
        issuer, is_new = Issuer.objects.select_for_update(no_key=True).get_or_create(
            url=issuer_url, defaults={"metadata": document}
        )
        if is_new:
            return False
        is_change: bool = issuer.metadata != document
        issuer.metadata, issuer.fetched_at, issuer.failed_at = document, database_now(), None
        issuer.save(update_fields=["metadata", "fetched_at", "failed_at"])
        if is_change:
            issuer_changed.send(sender=Issuer, issuer=issuer, metadata=metadata)
    return is_change


def _mark_failed(issuer_url: str) -> bool:
    return bool(Issuer.objects.filter(url=issuer_url).update(failed_at=Now()))
