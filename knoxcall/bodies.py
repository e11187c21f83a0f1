"""Reading request bodies: how large, how many at once, and what to do with one that comes without a length.

A thread reads a body as fast as it is sent, and a sender may take for ever. So few may send at once, and of these few fewer on
behalf of any one sender: whoever stalls stands in nobody's way but their own. The rest wait their turn, for a moment: bodies
that are not stalled take milliseconds.
"""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest

from knoxcall.api.errors import DependencyUnavailable, PayloadTooLarge
from knoxcall.waiting import release_connection

# Of the 32 threads of a web process: 12 may read at once, 4 of them what one sender sends, and 8 more may wait for that.
PLACES = 12
PLACES_PER_SENDER = 4
WAITING = 8
LONGEST_WAIT = 2.0

_turn = threading.Condition()
_waiting = 0
_sending: Counter[Hashable] = Counter()


class TooManyBodies(DependencyUnavailable):
    message = "Too many requests are being sent at once. Try again in a second."


@contextmanager
def reading(sender: Hashable) -> Iterator[None]:
    """Hold a place for reading what ``sender`` sends. Raises ``TooManyBodies`` where none comes free in two seconds."""
    with _turn:
        if not _is_free(sender):
            _wait_for(sender)
        _sending[sender] += 1
    try:
        yield
    finally:
        with _turn:
            _sending[sender] -= 1
            if not _sending[sender]:
                del _sending[sender]
            _turn.notify_all()


def _is_free(sender: Hashable) -> bool:
    return _sending[sender] < PLACES_PER_SENDER and _sending.total() < PLACES


def _wait_for(sender: Hashable) -> None:
    global _waiting
    if _waiting >= WAITING:
        raise TooManyBodies
    _waiting += 1
    try:
        if not _turn.wait_for(lambda: _is_free(sender), timeout=LONGEST_WAIT):
            raise TooManyBodies
    finally:
        _waiting -= 1


def read_body(request: HttpRequest, *, sender: Hashable) -> bytes:
    """Read the body of ``request``, once; Django has it from then on. Raises ``PayloadTooLarge`` and ``TooManyBodies``.

    A chunked body (RFC 9112 §7.1) has no length, and Django would take it for empty: it is read here and given one.
    """
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    # Whoever stalls holds a thread, but none of the database connections that the others need.
    release_connection()
    with reading(sender):
        if "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower():
            body = request.META["wsgi.input"].read(limit + 1)
            request.META["CONTENT_LENGTH"] = str(len(body))
            request._stream = io.BytesIO(body)
        try:
            return request.body
        except RequestDataTooBig:
            raise PayloadTooLarge from None
