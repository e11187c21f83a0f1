"""A request to the token or the revocation endpoint, read once and kept for whoever asks later."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import parse_qsl, unquote_plus


@dataclass
class TokenRequest:
    """One request, recorded as it arrived."""

    at: float
    """Seconds since the epoch."""
    grant_type: str
    form: dict[str, str]
    headers: dict[str, str]
    auth_method: str
    """`basic`, `post` or `none`."""
    client_id: str
    client_secret: str | None
    peer_certificate: Mapping[str, Any] | None = None
    """What the client showed in the TLS handshake, as `ssl` decodes it."""
    repeated_fields: tuple[str, ...] = ()
    outcome: str = "pending"
    """Then `issued`, `revoked`, the code of an error, or `replaced` where an answer kept it from taking effect."""

    @classmethod
    def parse(cls, body: bytes, headers: Message, *, at: float, peer: Mapping[str, Any] | None = None) -> TokenRequest:
        pairs = parse_qsl(body.decode(errors="replace"), keep_blank_values=True)
        form = dict(pairs)
        auth_method, client_id, client_secret = _credentials(headers.get("Authorization", ""), form)
        return cls(
            at=at,
            grant_type=form.get("grant_type", ""),
            form=form,
            headers=dict(headers),
            auth_method=auth_method,
            client_id=client_id,
            client_secret=client_secret,
            peer_certificate=peer,
            repeated_fields=tuple(name for name, times in Counter(name for name, _ in pairs).items() if times > 1),
        )


def _credentials(authorization: str, form: Mapping[str, str]) -> tuple[str, str, str | None]:
    """Method, client id and client secret; id and secret are form-encoded inside Basic (RFC 6749 §2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            client_id, _, client_secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "basic", "", None
        return "basic", unquote_plus(client_id), unquote_plus(client_secret)
    if "client_secret" in form:
        return "post", form.get("client_id", ""), form["client_secret"]
    return "none", form.get("client_id", ""), None
