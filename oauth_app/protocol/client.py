"""A client at a provider, opened: what is needed to talk to its endpoints, and the document it is sealed as."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

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
    issuer: str | None = None
    authorize_params: Mapping[str, str] = field(default_factory=dict)
    token_params: Mapping[str, str] = field(default_factory=dict)
    token_auth_method: TokenAuthMethod = TokenAuthMethod.BASIC
    pkce: bool = True
    replay_policy: ReplayPolicy = ReplayPolicy.ONE_TRY
    scope_separator: str = " "
    default_expires_in: int | None = None

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
    def token_host(self) -> str:
        """Host of the token endpoint, with its port where that is not the usual one."""
        parts = urlsplit(self.token_url)
        host = (parts.hostname or "").lower()
        usual = {"https": 443, "http": 80}.get(parts.scheme)
        return host if parts.port in (None, usual) else f"{host}:{parts.port}"

    def to_document(self) -> Plaintext:
        """The JSON document that is sealed."""
        document = {name: getattr(self, name) for name in self.__slots__}
        return Plaintext(json.dumps({k: dict(v) if isinstance(v, Mapping) else v for k, v in document.items()}))

    @classmethod
    def from_document(cls, document: Plaintext) -> OAuthClient:
        """Read a document back; one that an older release sealed lacks the newer fields and gets their defaults."""
        data: dict[str, Any] = json.loads(document.reveal())
        data["scopes"] = tuple(data.get("scopes", ()))
        data["token_auth_method"] = TokenAuthMethod(data["token_auth_method"])
        data["replay_policy"] = ReplayPolicy(data["replay_policy"])
        return cls(**data)
