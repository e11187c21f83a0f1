"""Requests to a provider, built with oauthlib: where to send the browser, and what to post to the token endpoint.

oauthlib only builds here. Sending is the outbound client's work, and reading answers is ours (`answers`): oauthlib raises on a
changed scope after the refresh token was consumed, and loses the status of everything that is not a token.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote_plus

from oauthlib.oauth2 import (
    BackendApplicationClient,
    LegacyApplicationClient,
    MobileApplicationClient,
    WebApplicationClient,
)
from oauthlib.oauth2.rfc6749.parameters import prepare_token_request
from requests_oauthlib import OAuth2Session

from oauth_app.protocol.client import OAuthClient
from oauth_app.providers import BodyFormat, TokenAuthMethod
from secrets_app.crypto.cipher import Plaintext


@dataclass(frozen=True, slots=True, repr=False)
class TokenRequest:
    """A POST to the token endpoint (RFC 6749 §3.2). Holds credentials."""

    url: str
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return "TokenRequest(****)"


def new_code_verifier() -> str:
    """A PKCE code verifier of 64 characters (RFC 7636 §4.1)."""
    return str(WebApplicationClient("").create_code_verifier(64))


def authorization_url(client: OAuthClient, *, redirect_uri: str, state: str, code_verifier: str | None) -> str:
    """Where to send the browser (RFC 6749 §4.1.1, §4.2.1), with an S256 challenge where there is a verifier (RFC 7636 §4.3).

    A query that the configured address has already survives, repeated parameters included.
    """
    params: dict[str, str] = dict(client.authorize_params)
    if code_verifier is not None:
        challenge = WebApplicationClient(client.client_id).create_code_challenge(code_verifier, "S256")
        params |= {"code_challenge": challenge, "code_challenge_method": "S256"}
    kind = MobileApplicationClient if client.grant_type == "implicit" else WebApplicationClient
    with OAuth2Session(client=kind(client.client_id), redirect_uri=redirect_uri, scope=client.scope or None) as session:
        url, _ = session.authorization_url(client.auth_url, state=state, **params)
    return str(url)


def code_request(client: OAuthClient, *, code: str, redirect_uri: str, code_verifier: str | None) -> TokenRequest:
    """Exchange an authorization code (RFC 6749 §4.1.3)."""
    body = WebApplicationClient(client.client_id).prepare_request_body(
        code=code,
        redirect_uri=redirect_uri,
        code_verifier=code_verifier,
        include_client_id=_sends_client_id(client),
        **_extra(client),
    )
    return _token_request(client, client.token_endpoint, body)


def refresh_request(
    client: OAuthClient, refresh_token: Plaintext, *, granted: Collection[str] | None = None
) -> TokenRequest:
    """Use a refresh token (RFC 6749 §6). The scope is sent only to providers that want it.

    It names nothing that was not ``granted``, as far as that is known: scopes that were added since would end the grant.
    """
    missing = set() if granted is None else client.preset.missing_scopes(client.scopes, granted)
    scopes = (scope for scope in client.scopes if scope not in missing)
    scope = client.scope_separator.join(scopes) if client.preset.scope_on_refresh else None
    extra = _extra(client) | ({"client_id": client.client_id} if _sends_client_id(client) else {})
    body = prepare_token_request("refresh_token", refresh_token=refresh_token.reveal(), scope=scope or None, **extra)
    return _token_request(client, client.refresh_endpoint, body)


def grant_request(client: OAuthClient) -> TokenRequest:
    """Make a repeatable grant: client credentials (RFC 6749 §4.4.2) or password (§4.3.2)."""
    scope = client.scope or None
    if client.grant_type == "client_credentials":
        body = BackendApplicationClient(client.client_id).prepare_request_body(
            scope=scope, include_client_id=_sends_client_id(client), **_extra(client)
        )
    elif client.grant_type == "password":
        body = LegacyApplicationClient(client.client_id).prepare_request_body(
            username=client.username,
            password=client.password,
            scope=scope,
            include_client_id=_sends_client_id(client),
            **_extra(client),
        )
    else:
        raise ValueError(f"the grant {client.grant_type} needs a person")
    return _token_request(client, client.token_endpoint, body)


def _sends_client_id(client: OAuthClient) -> bool:
    # With Basic the header says it; a public client has no other way, and one that shows a certificate must (RFC 8705 §2).
    return client.token_auth_method is not TokenAuthMethod.BASIC or client.certificate is not None


def _extra(client: OAuthClient) -> dict[str, str]:
    extra = dict(client.token_params)
    if client.token_auth_method is TokenAuthMethod.POST and client.client_secret:
        extra["client_secret"] = client.client_secret
    return extra


def basic_authorization(client: OAuthClient) -> str:
    """The header's value. Both parts are form-encoded before they are joined and base64-encoded (RFC 6749 §2.3.1)."""
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _token_request(client: OAuthClient, url: str, body: str) -> TokenRequest:
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    if client.token_auth_method is TokenAuthMethod.BASIC:
        headers["Authorization"] = basic_authorization(client)
    if client.preset.token_body is BodyFormat.JSON:
        headers["Content-Type"] = "application/json"
        body = json.dumps(dict(parse_qsl(body, keep_blank_values=True)))
    return TokenRequest(url, headers, body.encode())
