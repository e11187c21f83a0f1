"""The authorization server's side of OAuth2, in memory, without a socket: RFC 6749, 7009, 7636 and 9207.

Every value it gives out begins with `fake-access-`, `fake-refresh-` or `fake-code-`: a search for leaks finds it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from .answers import Reply
from .behaviour import Behaviour, RefreshTokens
from .record import TokenRequest


class Refused(Exception):
    """The protocol answers this request with an error."""

    def __init__(self, code: str, description: str = "", *, status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.description = description
        self.status = status


@dataclass
class _Grant:
    """What one consent, or one set of credentials, allows."""

    scope: str
    consumed: set[str] = field(default_factory=set)
    is_revoked: bool = False


@dataclass
class _Code:
    redirect_uri: str
    scope: str
    challenge: str
    grant: _Grant | None = None
    """Set once the code was exchanged: a second exchange ends the grant that the first one made (RFC 6749 §4.1.2)."""


class AuthorizationServer(Behaviour):
    """A provider's memory and rules. Safe to call from many threads."""

    def __init__(self, **switches: Any) -> None:
        super().__init__(**switches)
        self._lock = threading.RLock()
        self._codes: dict[str, _Code] = {}
        self._access_tokens: dict[str, _Grant] = {}
        self._refresh_tokens: dict[str, _Grant] = {}
        self.authorizations: list[dict[str, list[str]]] = []
        self.revocations: list[dict[str, str]] = []
        self.issued = 0
        """Access tokens given out, by whatever grant."""
        self.refreshes = 0
        """Refreshes that took effect."""
        self.reuses = 0
        """Replays of a consumed refresh token."""
        self.code_reuses = 0

    # What can be seen from outside.

    def is_live(self, access_token: str) -> bool:
        with self._lock:
            grant = self._access_tokens.get(access_token)
            return grant is not None and not grant.is_revoked

    def revoke_grants(self) -> None:
        """End every grant: refreshes are answered with `invalid_grant` from now on."""
        with self._lock:
            for grant in [*self._refresh_tokens.values(), *self._access_tokens.values()]:
                grant.is_revoked = True

    # The three endpoints.

    def authorize(self, query: str) -> Reply:
        """The answer of a person who consents at once: a redirect with a code, a token or an error."""
        parameters = parse_qs(query, keep_blank_values=True)
        asked = {name: values[-1] for name, values in parameters.items()}
        with self._lock:
            self.authorizations.append(parameters)
            redirect_uri = asked.get("redirect_uri", "")
            if asked.get("client_id") != self.client_id or not urlsplit(redirect_uri).scheme:
                # Whoever cannot be trusted with the address must not be sent there (RFC 6749 §4.1.2.1).
                return Reply(status=400, body=b"Unknown client, or no redirect URI.", content_type="text/plain")
            is_implicit = asked.get("response_type") == "token"
            try:
                if self.authorize_error:
                    raise Refused(self.authorize_error)
                outcome = self._implicit(asked) if is_implicit else self._code(asked)
            except Refused as refused:
                outcome = _without_empty({"error": refused.code, "error_description": refused.description})
            outcome |= _without_empty({"state": asked.get("state", ""), "iss": self.iss or ""})
        return Reply(status=302, headers={"Location": _with_parameters(redirect_uri, outcome, in_fragment=is_implicit)})

    def token(self, request: TokenRequest) -> Reply:
        with self._lock:
            try:
                fields = self._grant(request)
            except Refused as refused:
                request.outcome = refused.code
                return self._error(refused, request.auth_method)
            request.outcome = "issued"
            return self._tokens(self._dressed(fields))

    def revoke(self, request: TokenRequest) -> Reply:
        """Revocation of RFC 7009: an unknown token is a success too."""
        with self._lock:
            try:
                self._check_client(request)
            except Refused as refused:
                request.outcome = refused.code
                return self._error(refused, request.auth_method)
            request.outcome = "revoked"
            self.revocations.append(request.form)
            token = request.form.get("token", "")
            self._access_tokens.pop(token, None)
            if grant := self._refresh_tokens.get(token):
                grant.is_revoked = True
            return Reply(status=200)

    # Consent.

    def _code(self, asked: Mapping[str, str]) -> dict[str, str]:
        if asked.get("response_type") != "code":
            raise Refused("unsupported_response_type")
        challenge = asked.get("code_challenge", "")
        if challenge and asked.get("code_challenge_method") != "S256":
            raise Refused("invalid_request", "The challenge must be S256.")
        if self.requires_pkce and not challenge:
            raise Refused("invalid_request", "A code challenge is required.")
        code = _new("code")
        self._codes[code] = _Code(asked["redirect_uri"], asked.get("scope", ""), challenge)
        return {"code": code}

    def _implicit(self, asked: Mapping[str, str]) -> dict[str, str]:
        fields = self._dressed(self._issue(_Grant(asked.get("scope", "")), refresh_token=None))
        return {name: str(value) for name, value in fields.items()}

    # Grants.

    def _grant(self, request: TokenRequest) -> dict[str, Any]:
        if request.repeated_fields:
            raise Refused("invalid_request", "A field is repeated.")
        self._check_client(request)
        match request.grant_type:
            case "authorization_code":
                return self._exchange(request.form)
            case "refresh_token":
                return self._refresh(request.form)
            case "password":
                return self._from_password(request.form)
            case "client_credentials":
                # A refresh token should not be included (RFC 6749 §4.4.3): the grant can be repeated.
                return self._issue(_Grant(request.form.get("scope", "")), refresh_token=None)
            case "":
                raise Refused("invalid_request", "No grant type.")
            case _:
                raise Refused("unsupported_grant_type")

    def _check_client(self, request: TokenRequest) -> None:
        is_known = _is_same(request.client_id, self.client_id)
        if self.client_secret is not None:
            is_known = is_known and _is_same(request.client_secret or "", self.client_secret)
        if not is_known:
            raise Refused("invalid_client", status=401)
        if request.auth_method == "basic" and "client_secret" in request.form:
            raise Refused("invalid_request", "Two ways to authenticate in one request.")

    def _exchange(self, form: Mapping[str, str]) -> dict[str, Any]:
        code = self._codes.get(form.get("code", ""))
        if code is None:
            raise Refused("invalid_grant", "Unknown code.")
        if code.grant is not None:
            self.code_reuses += 1
            code.grant.is_revoked = True
            raise Refused("invalid_grant", "The code was used before.")
        if form.get("redirect_uri") != code.redirect_uri:
            raise Refused("invalid_grant", "Another redirect URI.")
        if code.challenge != _challenge(form.get("code_verifier")):
            raise Refused("invalid_grant", "The verifier does not match the challenge.")
        code.grant = _Grant(code.scope)
        fields = self._issue(code.grant, refresh_token=self._first_refresh_token(code.grant))
        if self.nest_under:
            nested = _Grant(code.scope)
            fields[self.nest_under] = self._issue(nested, refresh_token=self._first_refresh_token(nested))
        return fields

    def _from_password(self, form: Mapping[str, str]) -> dict[str, Any]:
        if (form.get("username"), form.get("password")) != (self.username, self.password):
            raise Refused("invalid_grant", "Wrong username or password.")
        grant = _Grant(form.get("scope", ""))
        return self._issue(grant, refresh_token=self._first_refresh_token(grant))

    def _refresh(self, form: Mapping[str, str]) -> dict[str, Any]:
        token = form.get("refresh_token", "")
        grant = self._refresh_tokens.get(token)
        if grant is None:
            raise Refused("invalid_grant", "Unknown refresh token.")
        if token in grant.consumed:
            self.reuses += 1
            if not grant.is_revoked:
                grant.is_revoked = self.reuse_revokes
                raise Refused(self.reuse_error, "The refresh token was used before.")
        if grant.is_revoked:
            raise Refused("invalid_grant", "The grant was revoked.")
        self.refreshes += 1
        return self._issue(grant, refresh_token=self._next_refresh_token(grant, token), scope=form.get("scope"))

    # Tokens.

    def _first_refresh_token(self, grant: _Grant) -> str | None:
        if self.refresh_tokens is RefreshTokens.NEVER:
            return None
        return self._new_refresh_token(grant)

    def _next_refresh_token(self, grant: _Grant, used: str) -> str | None:
        match self.refresh_tokens:
            case RefreshTokens.ROTATED:
                grant.consumed.add(used)
                return self._new_refresh_token(grant)
            case RefreshTokens.RENEWED:
                return self._new_refresh_token(grant)
            case RefreshTokens.REPEATED:
                return used
            case _:
                return None

    def _new_refresh_token(self, grant: _Grant) -> str:
        token = _new("refresh")
        self._refresh_tokens[token] = grant
        return token

    def _issue(self, grant: _Grant, *, refresh_token: str | None, scope: str | None = None) -> dict[str, Any]:
        access_token = _new("access")
        self._access_tokens[access_token] = grant
        self.issued += 1
        fields = {"access_token": access_token, "token_type": self.token_type, "expires_in": self.expires_in}
        if refresh_token is not None:
            fields["refresh_token"] = refresh_token
        if granted := self.scope or scope or grant.scope:
            fields["scope"] = granted
        return fields

    def _dressed(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in {**fields, **self.extra}.items() if name not in self.omit}

    def _tokens(self, fields: Mapping[str, Any]) -> Reply:
        # RFC 6749 §5.1: what carries a token is never stored.
        headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
        if self.form_encoded:
            body = urlencode(fields).encode()
            return Reply(status=200, body=body, content_type="application/x-www-form-urlencoded", headers=headers)
        return Reply(status=200, body=json.dumps(fields).encode(), headers=headers)

    def _error(self, refused: Refused, auth_method: str) -> Reply:
        fields = _without_empty({"error": refused.code, "error_description": refused.description})
        headers = {"Cache-Control": "no-store"}
        if refused.status == 401 and auth_method == "basic":
            headers["WWW-Authenticate"] = 'Basic realm="fake"'
        return Reply(status=self.error_status or refused.status, body=json.dumps(fields).encode(), headers=headers)


def _challenge(verifier: str | None) -> str:
    """The S256 challenge that belongs to a verifier; none to none (RFC 7636 §4.6)."""
    if verifier is None:
        return ""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _with_parameters(url: str, parameters: Mapping[str, str], *, in_fragment: bool) -> str:
    if in_fragment:
        return f"{url}#{urlencode(parameters)}"
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(parameters)}"


def _without_empty(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}


def _new(kind: str) -> str:
    return f"fake-{kind}-{secrets.token_urlsafe(24)}"


def _is_same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
