"""What a preset can say about a provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class TokenAuthMethod(StrEnum):
    """How the client authenticates at the token endpoint (RFC 6749 §2.3.1; `none` is a public client)."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    NONE = "none"


class ReplayPolicy(StrEnum):
    """What to do with a refresh token of which nobody knows whether the provider consumed it.

    `safe`: try again at once. `one_try`: serve the valid access token to its end, then replay once. `never`: serve what is
    valid, then ask a person for consent.
    """

    SAFE = "safe"
    ONE_TRY = "one_try"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A part of a provider's addresses that the request fills in. ``pattern`` lets it name nothing but the intended host."""

    name: str
    pattern: str
    default: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A provider, as data. `{tenant}`-like parts of addresses are filled from ``variables``. ``source`` is its documentation."""

    name: str
    label: str
    source: str
    auth_url: str
    token_url: str
    revocation_url: str | None = None
    issuer: str | None = None
    variables: tuple[Variable, ...] = ()
    grants: tuple[str, ...] = ("authorization_code",)

    default_scopes: tuple[str, ...] = ()
    # What client_credentials sends where the request names no scopes.
    client_credentials_scopes: tuple[str, ...] = ()
    scope_separator: str = " "
    answered_scope_separator: str | None = None
    scope_on_refresh: bool = False

    authorize_params: Mapping[str, str] = field(default_factory=dict)
    pkce: bool = True
    token_auth_method: TokenAuthMethod = TokenAuthMethod.POST
    replay_policy: ReplayPolicy = ReplayPolicy.ONE_TRY
    # Seconds to assume where an answer says none; None: the token does not expire.
    default_expires_in: int | None = None
    # Where the user's own token is nested in the answer, for a provider that nests it.
    nested_token: str | None = None
    # What an answer says of the account that was connected, worth keeping in the clear.
    facts: tuple[str, ...] = ()
