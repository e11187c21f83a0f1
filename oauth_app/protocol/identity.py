"""Whose account it is that was connected, as far as a token answer tells. Shown to people, and never taken for a login."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oauth_app.providers import Provider

_LONGEST = 255
_LONGEST_TOKEN = 64 * 1024
# Control characters, lone surrogates, and what breaks lines or turns their direction: a name must not pose as another.
_NOT_SHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# What names a person best comes first (OpenID Connect Core §5.1).
_NAMING_CLAIMS = ("email", "preferred_username", "upn", "name")


@dataclass(frozen=True, slots=True)
class Identity:
    """What an `id_token` says of its subject. Its signature is not checked, so it proves nothing.

    It came from the token endpoint over TLS (OpenID Connect Core §3.1.3.7), which is enough to show it to an operator.
    """

    subject: str = field(default="", repr=False)
    name: str = field(default="", repr=False)


def read_id_token(token: Any) -> Identity:
    """The identity in the payload of a JWT (RFC 7519 §7.2); an empty one where there is none that can be read."""
    if not isinstance(token, str) or len(token) > _LONGEST_TOKEN or token.count(".") != 2:
        return Identity()
    payload = token.split(".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        return Identity()
    if not isinstance(claims, dict):
        return Identity()
    names = (shown(claims.get(claim)) for claim in _NAMING_CLAIMS)
    return Identity(shown(claims.get("sub")), next((name for name in names if name), ""))


def account_name(preset: Provider, identity: Identity, facts: Mapping[str, Any]) -> str:
    """What to call the connected account: what the `id_token` says, or else the preset's facts, or else the bare subject."""
    named = (shown(fact(facts, path)) for path in preset.connected_as)
    return identity.name or next((name for name in named if name), "") or subject_of(preset, identity, facts)


def subject_of(preset: Provider, identity: Identity, facts: Mapping[str, Any]) -> str:
    """What identifies who consented, at that provider; empty where nothing tells."""
    return identity.subject or (shown(fact(facts, preset.subject)) if preset.subject else "")


def fact(facts: Mapping[str, Any], path: str) -> Any:
    """The fact at ``path``, in which a dot goes into an object; ``None`` if there is none."""
    found: Any = facts
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def shown(value: Any) -> str:
    """``value`` as a line of at most 255 characters, if it is text, or a number, that can be stored and shown."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**30:
        return str(value)
    if not isinstance(value, str) or _NOT_SHOWN.search(value):
        return ""
    return value[:_LONGEST]
