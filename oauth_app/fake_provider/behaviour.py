"""The switches of the provider: how it behaves until it is told otherwise."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .answers import Answer


class RefreshTokens(StrEnum):
    """What a grant's refresh tokens are like."""

    ROTATED = "rotated"
    """Single use: every refresh brings a new one, and a replay ends the grant (Salesforce, Slack)."""
    RENEWED = "renewed"
    """Every refresh brings a new one, and the old ones stay valid (Microsoft)."""
    KEPT = "kept"
    """One for the life of the grant, left out of the answer to a refresh (Google)."""
    REPEATED = "repeated"
    """One for the life of the grant, repeated in every answer."""
    NEVER = "never"
    """None at all (GitHub's classic apps)."""


@dataclass(kw_only=True, eq=False, repr=False)
class Behaviour:
    """Every field may be set at any time, from any thread; requests that arrive later go by it."""

    # Who may come in.
    client_id: str = "fake-client"
    client_secret: str | None = "fake-client-secret"
    """None makes the client a public one: it says its id in the form and proves nothing."""
    username: str = "fake-user"
    password: str = "fake-password"

    # Consent.
    authorize_error: str | None = None
    """The `error` that consent ends with, such as `access_denied`."""
    iss: str | None = None
    """The issuer named in the redirect (RFC 9207)."""
    requires_pkce: bool = False
    """A challenge that was sent is always checked; this refuses an authorization without one."""

    # Refresh.
    refresh_tokens: RefreshTokens = RefreshTokens.ROTATED
    reuse_revokes: bool = True
    """Whether the replay of a consumed refresh token ends its grant."""
    reuse_error: str = "invalid_grant"
    """The error that a replay is answered with; GitHub says `bad_refresh_token`."""

    # What a token answer looks like.
    expires_in: Any = 3600
    """Sent as it stands, whatever it is. It limits nothing here: tokens live until they are revoked."""
    token_type: Any = "Bearer"
    scope: str | None = None
    """The scope granted; None grants what was asked."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields that are added to every token answer, or replace its own. A nested pair has neither these nor `omit`."""
    nest_under: str | None = None
    """Where the answer to a code carries a second pair of tokens; Slack's is `authed_user`."""
    omit: Collection[str] = ()
    """Names of fields that token answers lack."""
    form_encoded: bool = False
    """Answers form-encoded, as GitHub does without an `Accept`."""
    error_status: int | None = None
    """The status of every error; GitHub and Slack say 200."""

    # The wire.
    delay: float = 0
    """Seconds between the work and the answer: a caller who gives up meanwhile has consumed his refresh token."""
    answer: Answer | None = None
    """How the token endpoint answers whatever `next()` has not planned otherwise."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "refresh_tokens":
            value = RefreshTokens(value)
        super().__setattr__(name, value)
