"""A client at a provider, opened: what is needed to talk to its endpoints, and the document it is sealed as."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from knoxcall.client_certificates import ClientCertificate
from oauth_app.providers import PROVIDERS, Provider, ReplayPolicy, TokenAuthMethod
from secrets_app.crypto.cipher import Plaintext


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OAuthClient:
    """Everything a request to the provider is made of. Holds credentials in the clear: lives for the length of a call."""

    provider: str
    grant_type: str
    client_id: str
    client_secret: str | None = None
    username: str | None = None
    password: str | None = None
    scopes: tuple[str, ...] = ()
    auth_url: str = ""
    token_url: str = ""
    revocation_url: str | None = None
    # What goes to these instead while a certificate is shown (RFC 8705 §5).
    mtls_token_url: str | None = None
    mtls_revocation_url: str | None = None
    # Where the addresses were discovered; the issuer that a callback must name, and whether it always must (RFC 9207).
    issuer_url: str | None = None
    issuer: str | None = None
    requires_iss: bool = False
    # What fills the provider's addresses.
    variables: Mapping[str, str] = field(default_factory=dict)
    # Where the browser goes after a consent that was not started by a link with an address of its own.
    return_url: str | None = None
    authorize_params: Mapping[str, str] = field(default_factory=dict)
    token_params: Mapping[str, str] = field(default_factory=dict)
    token_auth_method: TokenAuthMethod = TokenAuthMethod.BASIC
    pkce: bool = True
    replay_policy: ReplayPolicy = ReplayPolicy.ONE_TRY
    scope_separator: str = " "
    default_expires_in: int | None = None
    # Those of `token_auth_method` and `pkce` that somebody chose, so that an issuer's metadata does not decide them.
    chosen: tuple[str, ...] = ()

    # Not of the document, but added for a call: the secret that was replaced lately, and the certificate to show.
    previous_client_secret: str | None = None
    certificate: ClientCertificate | None = None

    def __repr__(self) -> str:
        return f"OAuthClient({self.provider}, {self.grant_type})"

    @property
    def preset(self) -> Provider:
        """The provider's record."""
        return PROVIDERS[self.provider]

    @property
    def scope(self) -> str:
        """The scopes as one parameter."""
        return self.scope_separator.join(self.scopes)

    @property
    def token_endpoint(self) -> str:
        """Where codes and grants are exchanged."""
        return (self.certificate and self.mtls_token_url) or self.token_url

    @property
    def refresh_endpoint(self) -> str:
        """Where refresh tokens are sent."""
        return self.preset.refresh_url or self.token_endpoint

    @property
    def token_host(self) -> str:
        """Host of the token endpoint, with its port where that is not the usual one; of the implicit grant, which has none, the
        authorization endpoint's."""
        parts = urlsplit(self.token_url or self.auth_url)
        host = (parts.hostname or "").lower()
        usual = {"https": 443, "http": 80}.get(parts.scheme)
        return host if parts.port in (None, usual) else f"{host}:{parts.port}"

    def to_document(self) -> Plaintext:
        """The JSON document that is sealed."""
        document = {name: getattr(self, name) for name in _STORED}
        return Plaintext(json.dumps({k: dict(v) if isinstance(v, Mapping) else v for k, v in document.items()}))

    @classmethod
    def from_document(cls, document: Plaintext) -> OAuthClient:
        """Read a document back; one that an older release sealed lacks the newer fields and gets their defaults."""
        known: dict[str, Any] = json.loads(document.reveal())
        # What a newer release added while both run is not ours to understand.
        data = {name: value for name, value in known.items() if name in _STORED}
        data |= {name: tuple(data.get(name, ())) for name in ("scopes", "chosen")}
        data["token_auth_method"] = TokenAuthMethod(data["token_auth_method"])
        data["replay_policy"] = ReplayPolicy(data["replay_policy"])
        return cls(**data)


_STORED = tuple(name for name in OAuthClient.__slots__ if name not in ("previous_client_secret", "certificate"))
