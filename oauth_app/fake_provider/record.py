"""A request to the token or a revocation endpoint, read once and kept for whoever asks later."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_plus

_SPOKEN_TYPES = frozenset({"authorization_code", "refresh_token", "client_credentials", "password", "code", "token"})


class Peer(NamedTuple):
    """What a client showed in the TLS handshake."""

    certificate: Mapping[str, Any]
    """As `ssl` decodes it."""
    sha256: str
    """The certificate's fingerprint, in lower-case hex."""


@dataclass
class TokenRequest:
    """One request, recorded as it arrived."""

    at: float
    """Seconds since the epoch."""
    grant_type: str
    form: dict[str, str]
    """The fields of the body, whether it was form-encoded or JSON."""
    headers: dict[str, str]
    auth_method: str
    """`basic`, `post`, `bearer` or `none`."""
    client_id: str
    client_secret: str | None
    bearer: str | None = None
    accept: str = ""
    peer_certificate: Mapping[str, Any] | None = None
    """What the client showed in the TLS handshake, as `ssl` decodes it."""
    peer_sha256: str | None = None
    repeated_fields: tuple[str, ...] = ()
    port: int | None = None
    """The client's end of the connection."""
    outcome: str = "pending"
    """Then `issued`, `revoked`, the code of an error, or `replaced` where an answer kept it from taking effect."""

    @classmethod
    def parse(
        cls, body: bytes, headers: Message, *, at: float, peer: Peer | None = None, port: int | None = None
    ) -> TokenRequest:
        pairs = _fields(body, headers.get_content_type())
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
            bearer=headers.get("Authorization", "").partition(" ")[2] if auth_method == "bearer" else None,
            accept=headers.get("Accept", ""),
            peer_certificate=peer.certificate if peer else None,
            peer_sha256=peer.sha256 if peer else None,
            repeated_fields=tuple(name for name, times in Counter(name for name, _ in pairs).items() if times > 1),
            port=port,
        )


class Seen(NamedTuple):
    """What may be shown of one request: nothing that a client must keep to itself."""

    at: float
    """Seconds since the epoch."""
    endpoint: str
    """`authorize`, `token` or `revoke`."""
    type: str
    """The grant type; at `authorize` the response type."""
    client_id: str
    outcome: str

    def line(self) -> str:
        """One line; a type that is not known, and what a terminal might obey, is not repeated."""
        moment = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        spoken = self.type if self.type in _SPOKEN_TYPES else "other" if self.type else "-"
        client = re.sub(r"[^\x21-\x7e]", "?", self.client_id)[:60] or "-"
        return f"{moment} {self.endpoint} {spoken} {client} {self.outcome}"


def _fields(body: bytes, content_type: str) -> list[tuple[str, str]]:
    """The fields of a body; of one in JSON those that are texts, numbers or booleans."""
    text = body.decode(errors="replace")
    if content_type != "application/json":
        return parse_qsl(text, keep_blank_values=True)
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return []
    if not isinstance(pairs, list):
        return []
    return [
        (pair[0], pair[1] if isinstance(pair[1], str) else json.dumps(pair[1]))
        for pair in pairs
        if isinstance(pair, tuple) and isinstance(pair[1], str | int | float)
    ]


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
    return "bearer" if scheme.lower() == "bearer" else "none", form.get("client_id", ""), None
