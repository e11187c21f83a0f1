"""Idempotency's hook: a decorator for the methods that change something. The ledger behind it is named in the settings.

Contract §1: `X-Idempotency-Key` (or `Idempotency-Key`) comes on every changing call of the official client.
"""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Callable
from typing import Any, Protocol

from django.conf import settings
from django.utils.module_loading import import_string
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.encoders import JSONEncoder

from knoxcall.api.errors import ValidationFailed
from knoxcall.bodies import read_body


class Attempt(Protocol):
    """The running of one idempotent request. ``resource_id`` is set when an earlier run, cut off since, created it already."""

    resource_id: uuid.UUID | None

    def names(self, resource_id: uuid.UUID) -> None:
        """Record, inside the transaction that creates it, what this request created."""

    def finish(self, status: int, body: bytes) -> None:
        """Keep the answer for replay."""

    def abandon(self) -> None:
        """Let the next request with this key run afresh, or resume with what was created."""


class Replay(Exception):
    """Raised by a ledger that has the answer: its status and JSON body."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body
        super().__init__("replayed")


class NoKey:
    """The attempt of a request that came without an idempotency key: nothing is recorded."""

    resource_id: uuid.UUID | None = None

    def names(self, resource_id: uuid.UUID) -> None:
        pass

    def finish(self, status: int, body: bytes) -> None:
        pass

    def abandon(self) -> None:
        pass


Handler = Callable[..., Response]


def idempotent(handler: Handler) -> Handler:
    """Make a method answer a repeated key with its first answer. The method finds its ``Attempt`` in ``request.attempt``."""

    @functools.wraps(handler)
    def guarded(view: Any, request: Request, *args: Any, **kwargs: Any) -> Response:
        try:
            attempt = begin(request)
        except Replay as known:
            return Response(json.loads(known.body), status=known.status, headers={"Idempotent-Replayed": "true"})
        request.attempt = attempt  # type: ignore[attr-defined]
        try:
            response = handler(view, request, *args, **kwargs)
        except BaseException:
            attempt.abandon()
            raise
        if 200 <= response.status_code < 300:
            attempt.finish(response.status_code, json.dumps(response.data, cls=JSONEncoder).encode())
        else:
            attempt.abandon()
        return response

    guarded.is_idempotent = True  # type: ignore[attr-defined]
    return guarded


def begin(request: Request) -> Attempt:
    """Open an attempt for ``request``. Raises ``Replay``, ``IdempotencyKeyReused`` or ``DependencyUnavailable``."""
    body = read_body(request._request, sender=request.auth.account_id)  # type: ignore[union-attr]
    key = request.headers.get("X-Idempotency-Key") or request.headers.get("Idempotency-Key")
    if key is None:
        return NoKey()
    if not (1 <= len(key) <= 255 and key.isascii() and key.isprintable()):
        message = "Must be 1 to 255 printable ASCII characters."
        raise ValidationFailed(f"X-Idempotency-Key: {message}", fields={"X-Idempotency-Key": [message]})
    ledger: Any = import_string(settings.KNOXCALL_IDEMPOTENCY)
    attempt: Attempt = ledger.begin(
        api_key=request.auth, key=key, method=request.method or "", path=request.path, body=body
    )
    return attempt
