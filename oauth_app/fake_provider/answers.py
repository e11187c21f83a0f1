"""What the provider may answer instead of what the protocol asks for, down to the connection."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Drop(StrEnum):
    """How a connection is lost."""

    RESET = "reset"
    """Reset at once, as by a provider that went down before it read the request."""
    CLOSED = "closed"
    """Closed in good order after the request was read, with no answer."""
    MID_ANSWER = "mid-answer"
    """Closed after the head and half of the body that the head announces."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What goes on the wire."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One way to answer. Whatever is left out is as the protocol has it, so `Answer()` changes nothing.

    A request *takes effect* when tokens are issued and a single-use refresh token is consumed. It does so where any
    part of the provider's own body is sent; an answer with another body, or with none, leaves the provider as it was,
    unless `takes_effect` says that the work was done and only the answer was lost.
    """

    status: int | None = None
    body: bytes | None = None
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    takes_effect: bool = False
    delay: float | None = None
    """Seconds between the work and the answer; None leaves it to the provider's own `delay`."""
    held: bool = False
    """Whether the answer waits, after the work, for `FakeProvider.release()`."""
    trickle: float = 0
    """Seconds before every byte of the body: no single read is slow, only the whole."""
    drop: Drop | None = None

    @classmethod
    def error(cls, code: str, *, status: int = 400, **fields: Any) -> Answer:
        """An error of RFC 6749 §5.2; with `status=200` it is one of GitHub's."""
        return cls.json({"error": code, **fields}, status=status)

    @classmethod
    def ok_false(cls, code: str) -> Answer:
        """An error as Slack reports it: status 200 and `ok: false`."""
        return cls.json({"ok": False, "error": code}, status=200)

    @classmethod
    def json(cls, document: Any, *, status: int = 200) -> Answer:
        return cls(status=status, body=json.dumps(document).encode(), content_type="application/json")

    @classmethod
    def html(cls, status: int = 502) -> Answer:
        """The page of a gateway that did not reach the provider."""
        page = f"<html><head><title>{status}</title></head><body><h1>{status} Bad Gateway</h1></body></html>"
        return cls(status=status, body=page.encode(), content_type="text/html; charset=utf-8")

    @classmethod
    def empty(cls, status: int = 200) -> Answer:
        return cls(status=status, body=b"")

    @classmethod
    def busy(cls, status: int = 503, *, retry_after: int | str | None = None) -> Answer:
        """A refusal for now; `retry_after` is seconds or an HTTP date, sent as it stands."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return cls(status=status, body=b"", headers=headers)

    @classmethod
    def hang(cls, *, takes_effect: bool = True) -> Answer:
        """Silence until the provider is told to release; then its own answer, or none where nothing took effect."""
        if takes_effect:
            return cls(held=True)
        return cls(held=True, drop=Drop.CLOSED)

    @classmethod
    def dropped(cls, drop: Drop, *, takes_effect: bool = False) -> Answer:
        return cls(drop=drop, takes_effect=takes_effect)

    def does_the_work(self) -> bool:
        own_body_is_sent = self.body is None and self.drop in (None, Drop.MID_ANSWER)
        return self.takes_effect or own_body_is_sent

    def over(self, own: Reply) -> Reply:
        """The reply that leaves: the provider's own with everything replaced that this answer names."""
        return Reply(
            status=own.status if self.status is None else self.status,
            body=own.body if self.body is None else self.body,
            content_type=self.content_type or own.content_type,
            headers={**own.headers, **self.headers},
        )
