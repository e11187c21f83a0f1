"""What an issuer says of itself: where its metadata is, and reading it, strictly (OpenID Connect Discovery 1.0, RFC 8414).

Whoever answers at an issuer's address decides where codes, client secrets and refresh tokens are sent. So every address in
the metadata passes the checks of one that was typed in, and a document that is wrong in any member we use is not used at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from knoxcall.addresses import UrlRefused, in_ascii
from oauth_app.providers import TokenAuthMethod

# Issuers are looked up by their URL, and PostgreSQL has no room for a long text in an index.
MAX_ISSUER_LENGTH = 500
_MAX_ITEMS = 1000
_MAX_SHOWN = 200

# With a client certificate the client authenticates in the TLS handshake (RFC 8705 §2): nothing is added to the request.
_BY_CERTIFICATE = frozenset({"tls_client_auth", "self_signed_tls_client_auth"})


class MetadataRefused(ValueError):
    """The metadata is not used. The message says why in plain words; of the document it quotes at most the issuer, cut short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerMetadata:
    """The members of an issuer's metadata that are used here, checked (RFC 8414 §2). ``None``: the issuer does not say."""

    issuer: str
    token_endpoint: str
    authorization_endpoint: str | None = None
    """``None`` only where no grant of the issuer uses a browser."""
    revocation_endpoint: str | None = None
    requires_iss: bool = False
    """Whether every callback names the issuer (RFC 9207 §3): one that does not is refused (§2.4)."""
    token_endpoint_auth_methods: tuple[str, ...] = ("client_secret_basic",)
    code_challenge_methods: tuple[str, ...] | None = None
    grant_types: tuple[str, ...] | None = None
    scopes_supported: tuple[str, ...] | None = None
    mtls_token_endpoint: str | None = None
    """Where to go instead with a client certificate (RFC 8705 §5); the same holds for the next one."""
    mtls_revocation_endpoint: str | None = None

    @property
    def pkce(self) -> bool:
        """Whether to send a code challenge. Silence is no reason against: who does not know it ignores it (RFC 6749 §3.1)."""
        return self.code_challenge_methods is None or "S256" in self.code_challenge_methods

    def preferred_auth_method(self, has_secret: bool, *, has_certificate: bool = False) -> TokenAuthMethod:
        """How a client should authenticate, by what it has. Raises ``MetadataRefused`` where only other ways are offered.

        Without a secret it is `none` wherever any of ours is offered: many issuers serve public clients and do not say so.
        """
        offered = set(self.token_endpoint_auth_methods)
        if not offered & (set(TokenAuthMethod) | (_BY_CERTIFICATE if has_certificate else set())):
            raise MetadataRefused("The issuer offers no way of client authentication that the vault has.")
        if has_secret:
            for method in (TokenAuthMethod.BASIC, TokenAuthMethod.POST):
                if method in offered:
                    return method
        return TokenAuthMethod.NONE

    def to_json(self) -> dict[str, Any]:
        """The form in which it is stored; equal for equal metadata."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> IssuerMetadata:
        """Read ``to_json`` back. Another release may have stored fewer members, or more."""
        values: dict[str, Any] = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**values)


def check_issuer_url(issuer_url: str) -> str:
    """Return ``issuer_url`` if it can be an issuer's (RFC 8414 §2). Only its form is looked at. Raises ``UrlRefused``."""
    if len(issuer_url) > MAX_ISSUER_LENGTH:
        raise UrlRefused(f"The URL is longer than {MAX_ISSUER_LENGTH} characters.")
    in_ascii(issuer_url)
    if "?" in issuer_url:
        raise UrlRefused("The URL of an issuer has no query: leave out the ? and what follows it.")
    return issuer_url


def metadata_urls(issuer_url: str) -> tuple[str, str]:
    """Where the metadata may be: by OpenID Connect Discovery §4, asked first, and by RFC 8414 §3.1. Raises ``UrlRefused``."""
    base = in_ascii(check_issuer_url(issuer_url)).removesuffix("/")
    parts = urlsplit(base)
    return (
        f"{base}/.well-known/openid-configuration",
        f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{parts.path}",
    )


def read_metadata(issuer_url: str, *, status: int, headers: Mapping[str, str], body: bytes) -> IssuerMetadata:
    """Return the metadata of an answer, or raise ``MetadataRefused``.

    ``issuer`` must be ``issuer_url``, character for character (OpenID Connect Discovery §4.3, RFC 8414 §3.3): a difference of
    one slash is another issuer, because it is what an `iss` will be compared with.
    """
    data = _parse(status, headers, body)
    issuer = data.get("issuer")
    if not isinstance(issuer, str):
        raise MetadataRefused("issuer: The metadata must name its issuer.")
    if issuer != issuer_url:
        raise MetadataRefused(f"issuer: The metadata is that of {_shown(issuer)}, and not of {_shown(issuer_url)}.")
    token_endpoint = _read_url(data, "token_endpoint")
    if token_endpoint is None:
        raise MetadataRefused("token_endpoint: The metadata must name it.")
    aliases = data.get("mtls_endpoint_aliases")
    if not isinstance(aliases, dict | None):
        raise MetadataRefused("mtls_endpoint_aliases: Must be an object.")
    requires_iss = data.get("authorization_response_iss_parameter_supported")
    if not isinstance(requires_iss, bool | None):
        raise MetadataRefused("authorization_response_iss_parameter_supported: Must be true or false.")
    return IssuerMetadata(
        issuer=issuer,
        token_endpoint=token_endpoint,
        authorization_endpoint=_read_url(data, "authorization_endpoint"),
        revocation_endpoint=_read_url(data, "revocation_endpoint"),
        requires_iss=bool(requires_iss),
        # OpenID Connect Discovery §3 and RFC 8414 §2: what silence means.
        token_endpoint_auth_methods=_read_words(data, "token_endpoint_auth_methods_supported")
        or ("client_secret_basic",),
        code_challenge_methods=_read_words(data, "code_challenge_methods_supported"),
        grant_types=_read_words(data, "grant_types_supported"),
        scopes_supported=_read_words(data, "scopes_supported"),
        mtls_token_endpoint=_read_url(aliases or {}, "token_endpoint", inside="mtls_endpoint_aliases."),
        mtls_revocation_endpoint=_read_url(aliases or {}, "revocation_endpoint", inside="mtls_endpoint_aliases."),
    )


def _parse(status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    if status != 200:
        raise MetadataRefused(f"The issuer answered with status {status} instead of its metadata.")
    # A page that shows text of strangers can be made to show a JSON object. Static hosts may state no type at all.
    media_type = headers.get("Content-Type", "json").partition(";")[0].lower()
    try:
        data = json.loads(body.decode()) if "json" in media_type else None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise MetadataRefused("The issuer answered with something that is not a JSON object.")
    return data


def _read_url(data: Mapping[str, Any], name: str, *, inside: str = "") -> str | None:
    """The address in a member. One that is null counts as missing, which is how some issuers write it."""
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise MetadataRefused(f"{inside}{name}: Must be a URL.")
    try:
        return in_ascii(value)
    except UrlRefused as err:
        raise MetadataRefused(f"{inside}{name}: {err}") from None


def _read_words(data: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    """The list in a member. An empty one says nothing: it had to be left out (RFC 8414 §3.2)."""
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > _MAX_ITEMS or not all(map(_is_word, value)):
        raise MetadataRefused(f"{name}: Must be a list of at most {_MAX_ITEMS} words.")
    return tuple(value) or None


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\x21-\x7e]{1,200}", value) is not None


def _shown(text: str) -> str:
    """``text`` as it can be shown to people: on one line, in ASCII, and not for ever."""
    shown = re.sub(r"[^\x20-\x7e]", "?", text[: _MAX_SHOWN + 1])
    return f"`{shown}`" if len(shown) <= _MAX_SHOWN else f"`{shown[:_MAX_SHOWN]}…`"
