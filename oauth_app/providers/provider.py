"""What a preset can say about a provider."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

DAY = 86_400
"""Seconds."""


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


class BodyFormat(StrEnum):
    """How a token request is written. The RFC knows `form` only."""

    FORM = "form"
    JSON = "json"


class RevocationStyle(StrEnum):
    """How a provider is told that a token is over."""

    RFC7009 = "rfc7009"
    """POST `token` and `token_type_hint`, the client authenticating as at the token endpoint."""
    TOKEN_ONLY = "token_only"
    """POST `token` and nothing else: who holds the token may end it."""
    BEARER = "bearer"
    """POST without a body, the access token as Bearer."""
    JSON_TOKEN = "json_token"
    """POST a JSON body with `token` alone, the client authenticating with Basic."""
    GITHUB = "github"
    """DELETE with Basic and a JSON body `access_token`."""
    STRIPE = "stripe"
    """POST `client_id` and `stripe_user_id`, the client secret as Bearer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A part of a provider's addresses that the request fills in. ``pattern`` lets it name nothing but the intended host."""

    name: str
    pattern: str
    meaning: str
    """Ends the sentence "Must be …"."""
    default: str | None = None
    """``None``: the request must name it."""
    client_credentials_pattern: str | None = None
    """A narrower pattern, for the grant where nobody consents and the address has to say whose data it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """Where and how a token is ended."""

    url: str
    """May have the provider's variables, `{client_id}`, and facts of the connection, in braces."""
    style: RevocationStyle = RevocationStyle.RFC7009
    ends_grant: bool = False
    """Whether it ends all that this user gave this client, other connections of the same user included."""
    gone: tuple[str, ...] = ("invalid_token", "invalid_grant")
    """Error codes that say that the token was dead already, which is as good."""
    wants_access_token: bool = False
    """Whether `token` must be the access token, although there is a refresh token."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers of the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A provider, as data. `{tenant}`-like parts of addresses are filled from ``variables``."""

    name: str
    label: str
    source: str
    """The public document that the record was checked against."""
    auth_url: str
    token_url: str
    refresh_url: str | None = None
    """Where refresh tokens are sent; ``None``: to ``token_url``."""
    revocation: Revocation | None = None
    issuer: str | None = None
    """What `iss` in a callback is compared with (RFC 9207); may have variables."""
    issuer_pattern: str = ".*"
    """Only a filled-in issuer that matches is compared: for Microsoft's `common` tenant the user's own answers."""
    variables: tuple[Variable, ...] = ()
    grants: tuple[str, ...] = ("authorization_code",)
    note: str = ""
    """What the person who registers the client there has to know. A full sentence, or several."""

    default_scopes: tuple[str, ...] = ()
    offline_scopes: tuple[str, ...] = ()
    """Those that only ask for a refresh token: senseless with the implicit grant, and not always named in what was granted."""
    client_credentials_scopes: tuple[str, ...] = ()
    """What client_credentials sends where the request names no scopes."""
    scope_separator: str = " "
    answered_scope_separator: str | None = None
    """Where answers separate scopes in another way than requests do."""
    scope_field: str = "scope"
    """The field of an answer that names what was granted."""
    scope_prefix: str = ""
    """What answers put before some scopes that requests name without it."""
    scope_on_refresh: bool = False

    authorize_params: Mapping[str, str] = field(default_factory=dict)
    """Of the authorization code grant only."""
    pkce: bool = True
    token_auth_method: TokenAuthMethod = TokenAuthMethod.POST
    token_params: Mapping[str, str] = field(default_factory=dict)
    token_body: BodyFormat = BodyFormat.FORM
    replay_policy: ReplayPolicy = ReplayPolicy.ONE_TRY
    default_expires_in: int | None = None
    """Seconds to assume where an answer says none; ``None``: the token does not expire."""
    lifetimes_in_milliseconds: bool = False
    """Whether `expires_in` counts milliseconds."""
    refresh_token_idle: int | None = None
    """Seconds without use after which a refresh token dies, where the provider says so."""
    refresh_token_lifetime: int | None = None
    """Seconds after the consent at which a refresh token dies however much it is used, where the provider says so."""
    error_words: Mapping[str, str] = field(default_factory=dict)
    """For a provider that tells errors in words: what a 4xx answer to a token request says, and the RFC 6749 code it means.

    In lower case, without a full stop at the end; compared with the whole of `error_description`, or else `message`.
    """

    nested_token: str | None = None
    """Where the user's own token is nested in the answer, for a provider that nests it."""
    facts: tuple[str, ...] = ()
    """Top-level fields of a token answer that tell of the account that was connected, worth keeping in the clear."""
    callback_facts: tuple[str, ...] = ()
    """Query parameters of the provider's redirect that do the same."""
    connected_as: tuple[str, ...] = ()
    """Facts that name the account to a person, the best first; a dot goes into an object: `team.name`."""
    subject: str | None = None
    """The fact that identifies who consented, where there is no `id_token` with a `sub`; a dot goes into an object."""

    def missing_scopes(self, asked: Iterable[str], granted: Collection[str]) -> set[str]:
        """Those of ``asked`` that are not among the ``granted`` ones of an answer, however that spells them."""
        # What only asks for a refresh token, or for all that was consented to before, is not always named in an answer.
        unspoken = {*self.offline_scopes, "offline_access"}
        named = {*granted, *(scope.removeprefix(self.scope_prefix) for scope in granted)}
        return {scope for scope in asked if not scope.endswith("/.default")} - named - unspoken

    def issuer_of(self, variables: Mapping[str, str]) -> str | None:
        """The issuer that a callback must name, if it names one; ``None`` where it is not known beforehand."""
        issuer = self.issuer.format(**variables) if self.issuer else None
        return issuer if issuer and re.fullmatch(self.issuer_pattern, issuer) else None
