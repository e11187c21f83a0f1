"""The switches of the provider: how it behaves until it is told otherwise."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

from .answers import Answer
from .checks import checked


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
    """Every field may be set at any time, from any thread; requests that arrive later go by it.

    Its type decides what it may be set to (`ValueError` otherwise), and the text beside the type is what people read of it.
    In `extra`, `nested_extra`, `error_extra`, `metadata`, `mtls_endpoint_aliases`, `id_token` and `iss`, `{base_url}` is the
    provider's own address and `{now_ms}` the time in milliseconds.
    """

    # Who may come in.
    client_id: Annotated[str, "The id of its one client."] = "fake-client"
    client_secret: Annotated[
        str | None, "The client's secret. With null the client is a public one: it says its id and proves nothing."
    ] = "fake-client-secret"
    username: Annotated[str, "Who consents, and who signs in by the password grant."] = "fake-user"
    password: Annotated[str, "The password of `username`."] = "fake-password"
    requires_client_certificate: Annotated[
        bool, "The client shows a certificate in the TLS handshake, and needs no secret then (RFC 8705)."
    ] = False
    client_certificate_sha256: Annotated[
        str | None, "The client shows the certificate with this SHA-256 fingerprint, and needs no secret then."
    ] = None

    # Consent.
    asks: Annotated[bool, "Consent is a page with two buttons; otherwise everybody says yes at once."] = False
    authorize_error: Annotated[str | None, "The error that every consent ends with, such as access_denied."] = None
    iss: Annotated[str | None, "The issuer named in the redirect (RFC 9207), such as {base_url}."] = None
    requires_pkce: Annotated[
        bool, "An authorization without a challenge is refused. One that was sent is always checked."
    ] = False

    # Refresh.
    refresh_tokens: Annotated[
        RefreshTokens,
        "rotated: single use. renewed: a new one each time, the old stay valid. kept: one, left out of the answer to a "
        "refresh. repeated: one, in every answer. never: none.",
    ] = RefreshTokens.ROTATED
    offline_scopes: Annotated[
        Collection[str], "Without one of these among the scopes there is no refresh token; an empty list asks for none."
    ] = ()
    refresh_ends_access_token: Annotated[bool, "A refresh ends the access token before it, as at GitHub."] = False
    reuse_grace: Annotated[
        float, "Seconds in which a consumed refresh token may come again, and is answered with the same new tokens."
    ] = 0
    reuse_revokes: Annotated[bool, "The replay of a consumed refresh token ends its grant."] = True
    reuse_error: Annotated[str, "The error that a replay is answered with."] = "invalid_grant"

    # What a token answer looks like.
    expires_in: Annotated[
        Any, "Sent as it stands, whatever it is. It limits nothing here: tokens live until they are revoked."
    ] = 3600
    lifetimes_in_milliseconds: Annotated[bool, "Lifetimes that are numbers are sent as thousands of themselves."] = (
        False
    )
    refresh_token_expires_in: Annotated[Any, "Sent beside a refresh token; left out if null."] = None
    token_type: Annotated[Any, "Sent as it stands."] = "Bearer"
    scope: Annotated[str | None, "The scope granted; null grants what was asked."] = None
    scope_separator: Annotated[str | None, "What stands between the scopes of an answer; null: as asked."] = None
    unechoed_scopes: Annotated[Collection[str], "Scopes that are granted and never named in an answer."] = ()
    extra: Annotated[Mapping[str, Any], "Fields added to every token answer, or replacing its own."] = field(
        default_factory=dict
    )
    omit: Annotated[Collection[str], "Names of fields that token answers lack."] = ()
    id_token: Annotated[
        Mapping[str, Any] | None,
        "Claims of the id_token that comes with scope openid, over iss, sub, aud, email, iat and exp; null: none comes. "
        "HS256 with the client secret, or unsigned without one.",
    ] = None
    nest_under: Annotated[
        str | None, "Where the answer to a code carries a second pair of tokens, as Slack's authed_user."
    ] = None
    nested_extra: Annotated[Mapping[str, Any], "Fields of that second pair, which has neither `extra` nor `omit`."] = (
        field(default_factory=dict)
    )
    nested_scope_parameter: Annotated[
        str | None,
        "The authorize parameter with the scopes of the second pair, as Slack's user_scope; null: both pairs have the same.",
    ] = None
    form_encoded: Annotated[bool, "Answers are form-encoded instead of JSON."] = False
    json_if_asked: Annotated[bool, "`Accept: application/json` brings JSON although form_encoded is on."] = False

    # What an error looks like.
    client_error: Annotated[str, "The error for a client that is not known."] = "invalid_client"
    code_error: Annotated[str, "The error for a code that is not good."] = "invalid_grant"
    refresh_error: Annotated[str, "The error for a refresh token that is unknown or revoked."] = "invalid_grant"
    error_status: Annotated[int | None, "The status of every error; GitHub and Slack say 200."] = None
    error_extra: Annotated[Mapping[str, Any], 'Fields added to every error, such as Slack\'s {"ok": false}.'] = field(
        default_factory=dict
    )

    # Revocation and discovery.
    revocation_needs_client: Annotated[bool, "/revoke asks for the client's credentials, not for the token alone."] = (
        True
    )
    revoke_ends_grant: Annotated[bool, "Revoking an access token ends its grant; otherwise that token alone."] = False
    metadata: Annotated[Mapping[str, Any], "Merged over the metadata document; a null removes a field."] = field(
        default_factory=dict
    )
    mtls_endpoint_aliases: Annotated[
        Mapping[str, Any] | None,
        "The endpoints for clients with a certificate, announced in the metadata (RFC 8705 §5).",
    ] = None

    # The wire.
    delay: Annotated[
        float, "Seconds between the work and the answer: who gives up meanwhile has consumed the refresh token."
    ] = 0
    answer: Annotated[
        Answer | None,
        "How the token endpoint answers whatever is not planned otherwise: an object of status, json or body or body_base64, "
        "content_type, headers, takes_effect, delay, held, trickle and drop (reset, closed, mid-answer).",
    ] = None

    def __setattr__(self, name: str, value: Any) -> None:
        if switch := SWITCHES.get(name):
            value = checked(name, switch.type, value)
        super().__setattr__(name, value)


class Switch(NamedTuple):
    """What there is to know of one field of `Behaviour`."""

    type: Any
    doc: str


SWITCHES: dict[str, Switch] = {
    name: Switch(*get_args(hint)) for name, hint in get_type_hints(Behaviour, include_extras=True).items()
}
DEFAULTS: dict[str, Any] = {switch.name: getattr(Behaviour(), switch.name) for switch in fields(Behaviour)}
