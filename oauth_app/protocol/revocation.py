"""Telling a provider that a token is over (RFC 7009), in its own way where it has one; built and read, not sent."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode

from knoxcall.addresses import UrlRefused, check_url
from oauth_app.protocol.answers import read_retry_after
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import BROKE_OFF, TURNED_AWAY, plain_code
from oauth_app.protocol.requests import basic_authorization
from oauth_app.providers import Revocation, RevocationStyle, TokenAuthMethod
from secrets_app.crypto.cipher import Plaintext

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
# Said with whatever status, Slack's own words among them: it may be otherwise in a moment.
_LATER = BROKE_OFF | TURNED_AWAY | {"ratelimited", "request_timeout", "service_unavailable"}


class RevocationFailed(Exception):
    """The provider did not end the token. ``code`` is its error code or ours; ``retryable``: it may do so later.

    ``retry_after`` is seconds, where the provider says so (RFC 7009 §2.2.1).
    """

    def __init__(self, code: str, *, retryable: bool, retry_after: int | None = None) -> None:
        self.code = code
        self.retryable = retryable
        self.retry_after = retry_after
        super().__init__(code)


@dataclass(frozen=True, slots=True, repr=False)
class RevocationRequest:
    """One request that ends one token. Holds credentials.

    ``is_optional``: it ends the access token of a refresh token that was ended before; not every provider can (RFC 7009 §2).
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    is_optional: bool = False

    def __repr__(self) -> str:
        return "RevocationRequest(****)"


def revocation_of(client: OAuthClient) -> Revocation | None:
    """Where and how this client's tokens are ended; ``None`` where the provider has no way."""
    if client.revocation_url:
        return Revocation(url=(client.certificate and client.mtls_revocation_url) or client.revocation_url)
    return client.preset.revocation


def revocation_requests(
    client: OAuthClient, *, access_token: Plaintext | None, refresh_token: Plaintext | None, facts: Mapping[str, Any]
) -> list[RevocationRequest]:
    """What to send, in this order, to end a connection's tokens; empty where the provider has no way.

    The refresh token goes first: if only that is ended, nothing can be renewed. Raises ``RevocationFailed`` where the address
    needs a fact that the provider never told, or told so that it leads elsewhere.
    """
    revocation = revocation_of(client)
    if revocation is None:
        return []
    url = _filled(revocation, client, facts)
    match revocation.style:
        case RevocationStyle.BEARER:
            return [_bearer(url, access_token)] if access_token else []
        case RevocationStyle.GITHUB:
            return [_github(client, url, access_token)] if access_token else []
        case RevocationStyle.STRIPE:
            return [_stripe(client, url, facts)]
    hinted = (("refresh_token", refresh_token), ("access_token", access_token))
    tokens = [
        (hint, token)
        for hint, token in hinted
        if token is not None and (hint == "access_token" or not revocation.wants_access_token)
    ]
    if revocation.ends_grant:
        # One is enough, and the second would be told that there is no such token.
        tokens = tokens[:1]
    requests = [_by_token(client, revocation, url, hint, token) for hint, token in tokens]
    return [*requests[:1], *(replace(request, is_optional=True) for request in requests[1:])]


def read_revocation(revocation: Revocation, *, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Return if the token is ended, by this request or before. Raises ``RevocationFailed``."""
    try:
        data = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        data = {}
    said = data.get("error") if isinstance(data, dict) else None
    if isinstance(said, dict):
        # Dropbox's way to spell a code.
        said = said.get(".tag", "")
    code = plain_code(said) if said is not None else f"http_{status}"
    refused = isinstance(data, dict) and (said is not None or data.get("ok") is False)
    if 200 <= status < 300 and not refused:
        return
    if status < 500 and code in revocation.gone:
        return
    # GitHub has no such token any more (404), or will not look at one that it does not know (422).
    if revocation.style is RevocationStyle.GITHUB and status in (404, 422):
        return
    retryable = status >= 500 or status in (408, 425, 429) or code in _LATER
    raise RevocationFailed(code, retryable=retryable, retry_after=read_retry_after(headers))


def _filled(revocation: Revocation, client: OAuthClient, facts: Mapping[str, Any]) -> str:
    known = {**{k: v for k, v in facts.items() if isinstance(v, str)}, **client.variables}
    known["client_id"] = quote(client.client_id, safe="")
    if "{instance_url}" in revocation.url:
        known["instance_url"] = _instance(client, known.get("instance_url", ""))
    try:
        # Somebody's own address stands as it is: only the presets' have parts to fill in.
        return check_url(revocation.url if client.revocation_url else revocation.url.format(**known))
    except (KeyError, UrlRefused):
        raise RevocationFailed("no_revocation_address", retryable=False) from None


# What Salesforce names in an answer may only be Salesforce's.
_INSTANCE = re.compile(r"https://[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:salesforce|force)\.com", re.IGNORECASE | re.ASCII)


def _instance(client: OAuthClient, url: str) -> str:
    return url if _INSTANCE.fullmatch(url) else f"https://{client.variables.get('login_host', 'login.salesforce.com')}"


def _bearer(url: str, access_token: Plaintext) -> RevocationRequest:
    return RevocationRequest("POST", url, {"Authorization": f"Bearer {access_token.reveal()}", "Accept": _JSON}, b"")


def _github(client: OAuthClient, url: str, access_token: Plaintext) -> RevocationRequest:
    # Basic as everywhere but in RFC 6749: nothing is form-encoded first.
    pair = base64.b64encode(f"{client.client_id}:{client.client_secret or ''}".encode()).decode()
    headers = {"Authorization": f"Basic {pair}", "Content-Type": _JSON, "Accept": "application/vnd.github+json"}
    return RevocationRequest("DELETE", url, headers, json.dumps({"access_token": access_token.reveal()}).encode())


def _stripe(client: OAuthClient, url: str, facts: Mapping[str, Any]) -> RevocationRequest:
    account = facts.get("stripe_user_id")
    if not isinstance(account, str):
        raise RevocationFailed("no_stripe_user_id", retryable=False)
    headers = {"Authorization": f"Bearer {client.client_secret}", "Content-Type": _FORM, "Accept": _JSON}
    body = urlencode({"client_id": client.client_id, "stripe_user_id": account})
    return RevocationRequest("POST", url, headers, body.encode())


def _by_token(client: OAuthClient, revocation: Revocation, url: str, hint: str, token: Plaintext) -> RevocationRequest:
    """The styles that name the token in the body; they differ in what else is in it, and in how the client says who it is."""
    style = revocation.style
    form = {"token": token.reveal()}
    headers = {"Accept": _JSON, **revocation.headers}
    if style is RevocationStyle.RFC7009:
        form["token_type_hint"] = hint
        if client.token_auth_method is not TokenAuthMethod.BASIC:
            form |= {"client_id": client.client_id}
            form |= {"client_secret": client.client_secret} if client.client_secret else {}
        else:
            headers["Authorization"] = basic_authorization(client)
            # RFC 8705 §2: who shows a certificate names itself.
            form |= {"client_id": client.client_id} if client.certificate else {}
    elif style is RevocationStyle.JSON_TOKEN:
        headers["Authorization"] = basic_authorization(client)
        return RevocationRequest("POST", url, headers | {"Content-Type": _JSON}, json.dumps(form).encode())
    return RevocationRequest("POST", url, headers | {"Content-Type": _FORM}, urlencode(form).encode())
