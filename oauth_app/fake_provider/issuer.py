"""What the provider remembers, and the tokens that it makes.

Every value it gives out begins with `fake-access-`, `fake-refresh-` or `fake-code-`: a search for leaks finds it.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .behaviour import Behaviour, RefreshTokens
from .identity import signed


class Refused(Exception):
    """The protocol answers this request with an error."""

    def __init__(self, code: str, description: str = "", *, status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.description = description
        self.status = status


@dataclass
class Use:
    """The use that consumed a refresh token."""

    at: float
    """On the monotonic clock."""
    fields: dict[str, Any] = field(default_factory=dict)
    """What it was answered with."""


@dataclass(frozen=True)
class Replay:
    """A consumed refresh token that came again."""

    at: float
    """Seconds since the epoch."""
    refresh_token: str
    is_forgiven: bool
    """Whether it was answered with the same new tokens."""


@dataclass
class Grant:
    """What one consent, or one set of credentials, allows."""

    scope: str
    nonce: str = ""
    access_tokens: set[str] = field(default_factory=set)
    consumed: dict[str, Use] = field(default_factory=dict)
    is_revoked: bool = False
    first_refresh_token: str | None = None
    latest_refresh_token: str | None = None
    refreshes: int = 0
    """Refreshes that took effect."""
    refreshed_at: float | None = None
    """Of the last of them, in seconds since the epoch."""
    replays: list[Replay] = field(default_factory=list)


@dataclass
class Code:
    """An authorization code that was given out."""

    redirect_uri: str
    asked: Mapping[str, str]
    """The parameters of the authorization."""
    grant: Grant | None = None
    """Set once the code was exchanged: a second exchange ends the grant that the first one made (RFC 6749 §4.1.2)."""


class Issuer(Behaviour):
    """A provider's switches and memory. Safe to call from many threads; the endpoints hold `lock` while they work."""

    base_url = ""

    def __init__(self, **switches: Any) -> None:
        super().__init__(**switches)
        self.lock = threading.RLock()
        self.codes: dict[str, Code] = {}
        self.grants_by_access_token: dict[str, Grant] = {}
        self.grants_by_refresh_token: dict[str, Grant] = {}
        self.refreshable: list[Grant] = []
        """Every grant that has, or had, a refresh token, the oldest first."""
        self.authorizations: list[dict[str, list[str]]] = []
        self.revocations: list[dict[str, str]] = []
        """The fields of every revocation, and its `style`: `rfc7009`, `token_only`, `bearer` or `github`."""
        self.issued = 0
        """Access tokens given out, by whatever grant."""
        self.refreshes = 0
        """Refreshes that took effect."""
        self.reuses = 0
        """Replays of a consumed refresh token."""
        self.code_reuses = 0

    def is_live(self, access_token: str) -> bool:
        with self.lock:
            grant = self.grants_by_access_token.get(access_token)
            return grant is not None and not grant.is_revoked

    def revoke_grants(self) -> None:
        """End every grant: refreshes are answered with `refresh_error` from now on."""
        with self.lock:
            for grant in [*self.grants_by_refresh_token.values(), *self.grants_by_access_token.values()]:
                grant.is_revoked = True

    def new_code(self, redirect_uri: str, asked: Mapping[str, str]) -> str:
        code = _new("code")
        self.codes[code] = Code(redirect_uri, asked)
        return code

    def issue(self, grant: Grant, *, refresh_token: str | None, scope: str | None = None) -> dict[str, Any]:
        """The fields of a token answer, before `dressed`; ``scope`` asks for less than the grant allows."""
        if self.refresh_ends_access_token:
            for old in grant.access_tokens:
                self.grants_by_access_token.pop(old, None)
            grant.access_tokens.clear()
        access_token = _new("access")
        grant.access_tokens.add(access_token)
        self.grants_by_access_token[access_token] = grant
        self.issued += 1
        fields = {
            "access_token": access_token,
            "token_type": self.token_type,
            "expires_in": self._lifetime(self.expires_in),
        }
        if refresh_token is not None:
            fields["refresh_token"] = refresh_token
            if self.refresh_token_expires_in is not None:
                fields["refresh_token_expires_in"] = self._lifetime(self.refresh_token_expires_in)
        if granted := self._echoed(self.scope or scope or grant.scope):
            fields["scope"] = granted
        return fields

    def first_refresh_token(self, grant: Grant) -> str | None:
        if self.refresh_tokens is RefreshTokens.NEVER:
            return None
        if self.offline_scopes and set(self.offline_scopes).isdisjoint(_split(grant.scope)):
            return None
        return self._new_refresh_token(grant)

    def next_refresh_token(self, grant: Grant, used: str) -> str | None:
        match self.refresh_tokens:
            case RefreshTokens.ROTATED:
                grant.consumed[used] = Use(time.monotonic())
                return self._new_refresh_token(grant)
            case RefreshTokens.RENEWED:
                return self._new_refresh_token(grant)
            case RefreshTokens.REPEATED:
                return used
            case _:
                return None

    def identity(self, grant: Grant) -> dict[str, str]:
        """The `id_token` that belongs into an answer, if any (OpenID Connect Core §3.1.3.3)."""
        if self.id_token is None or "openid" not in _split(self.scope or grant.scope):
            return {}
        now = int(time.time())
        claims = {
            "iss": self.filled(self.iss) or self.base_url,
            "sub": self.username,
            "aud": self.client_id,
            "email": f"{self.username}@example.com",
            "iat": now,
            "exp": now + 3600,
        }
        if grant.nonce:
            claims["nonce"] = grant.nonce
        return {"id_token": signed({**claims, **self.filled(self.id_token)}, self.client_secret)}

    def dressed(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """What is sent of a token answer: with `extra`, without `omit`."""
        return {name: value for name, value in {**fields, **self.filled(self.extra)}.items() if name not in self.omit}

    def filled(self, value: Any) -> Any:
        """``value`` with `{base_url}` and `{now_ms}` filled in, at any depth."""
        if isinstance(value, str):
            return value.replace("{base_url}", self.base_url).replace("{now_ms}", str(int(time.time() * 1000)))
        if isinstance(value, Mapping):
            return {name: self.filled(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.filled(inner) for inner in value]
        return value

    def _new_refresh_token(self, grant: Grant) -> str:
        token = _new("refresh")
        self.grants_by_refresh_token[token] = grant
        if grant.first_refresh_token is None:
            grant.first_refresh_token = token
            self.refreshable.append(grant)
        grant.latest_refresh_token = token
        return token

    def _lifetime(self, value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return value * 1000 if self.lifetimes_in_milliseconds and is_number else value

    def _echoed(self, scope: str) -> str:
        if self.scope_separator is None and not self.unechoed_scopes:
            return scope
        named = [part for part in _split(scope) if part not in self.unechoed_scopes]
        return (self.scope_separator or " ").join(named)


def _split(scope: str) -> list[str]:
    return [part for part in re.split(r"[ ,]+", scope) if part]


def _new(kind: str) -> str:
    return f"fake-{kind}-{secrets.token_urlsafe(24)}"
