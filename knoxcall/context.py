"""What belongs to the request being served: its id, which every log line and every answer carries, and when it must end."""

from __future__ import annotations

import time
from contextvars import ContextVar

# Clients give up on a server that is silent for 30 s; nothing done inside a request may last longer than this.
REQUEST_SECONDS = 24.0

request_id: ContextVar[str] = ContextVar("request_id", default="-")
_ends_at: ContextVar[float | None] = ContextVar("ends_at", default=None)


def begin_request() -> None:
    """Start the clock of the request that this thread serves."""
    _ends_at.set(time.monotonic() + REQUEST_SECONDS)


def end_request() -> None:
    """Stop the clock: what this thread does next belongs to no request."""
    _ends_at.set(None)


def seconds_left(most: float) -> float:
    """How long something may still take: ``most``, or what is left of the request if that is less. May be negative."""
    ends_at = _ends_at.get()
    return most if ends_at is None else min(most, ends_at - time.monotonic())
