"""The token endpoint: who may come in, and the four grants (RFC 6749 §4 to §6, RFC 7636, RFC 8705)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from .answers import Reply
from .issuer import Code, Grant, Issuer, Refused, Replay
from .record import TokenRequest


def token(issuer: Issuer, request: TokenRequest) -> Reply:
    """The answer to a token request; notes in it what became of it."""
    with issuer.lock:
        try:
            fields = _granted(issuer, request)
        except Refused as refused:
            return refusal(issuer, request, refused)
        request.outcome = "issued"
        # RFC 6749 §5.1: what carries a token is never stored.
        headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
        return _encoded(issuer, request, issuer.dressed(fields), headers=headers)


def check_client(issuer: Issuer, request: TokenRequest) -> None:
    """Raise `Refused` unless the request shows the client's secret, or its certificate where one is required."""
    is_known = _is_same(request.client_id, issuer.client_id)
    if issuer.requires_client_certificate or issuer.client_certificate_sha256:
        expected = (issuer.client_certificate_sha256 or request.peer_sha256 or "").replace(":", "").lower()
        is_known = is_known and request.peer_sha256 is not None and _is_same(request.peer_sha256, expected)
        needs_secret = request.client_secret is not None
    else:
        needs_secret = True
    if needs_secret and issuer.client_secret is not None:
        is_known = is_known and _is_same(request.client_secret or "", issuer.client_secret)
    if not is_known:
        raise Refused(issuer.client_error, status=401)
    if request.auth_method == "basic" and "client_secret" in request.form:
        raise Refused("invalid_request", "Two ways to authenticate in one request.")


def refusal(issuer: Issuer, request: TokenRequest, refused: Refused) -> Reply:
    """An error answer (RFC 6749 §5.2), noted in the request."""
    request.outcome = refused.code
    fields = {"error": refused.code}
    if refused.description:
        fields["error_description"] = refused.description
    headers = {"Cache-Control": "no-store"}
    if refused.status == 401 and request.auth_method == "basic":
        headers["WWW-Authenticate"] = 'Basic realm="fake"'
    status = issuer.error_status or refused.status
    return _encoded(issuer, request, {**fields, **issuer.filled(issuer.error_extra)}, status=status, headers=headers)


def _granted(issuer: Issuer, request: TokenRequest) -> dict[str, Any]:
    if request.repeated_fields:
        raise Refused("invalid_request", "A field is repeated.")
    check_client(issuer, request)
    match request.grant_type:
        case "authorization_code":
            return _exchange(issuer, request.form)
        case "refresh_token":
            return _refresh(issuer, request.form)
        case "password":
            return _from_password(issuer, request.form)
        case "client_credentials":
            # A refresh token should not be included (RFC 6749 §4.4.3): the grant can be repeated.
            return issuer.issue(Grant(request.form.get("scope", "")), refresh_token=None)
        case "":
            raise Refused("invalid_request", "No grant type.")
        case _:
            raise Refused("unsupported_grant_type")


def _exchange(issuer: Issuer, form: Mapping[str, str]) -> dict[str, Any]:
    code = issuer.codes.get(form.get("code", ""))
    if code is None:
        raise Refused(issuer.code_error, "Unknown code.")
    if code.grant is not None:
        issuer.code_reuses += 1
        code.grant.is_revoked = True
        raise Refused(issuer.code_error, "The code was used before.")
    if form.get("redirect_uri") != code.redirect_uri:
        raise Refused(issuer.code_error, "Another redirect URI.")
    if code.asked.get("code_challenge", "") != _challenge(form.get("code_verifier")):
        raise Refused(issuer.code_error, "The verifier does not match the challenge.")
    code.grant = Grant(code.asked.get("scope", ""), nonce=code.asked.get("nonce", ""))
    if not issuer.nest_under:
        return _first_tokens(issuer, code.grant)
    nested = _nested_scope(issuer, code)
    # Who asks for the second pair alone, by a parameter of its own, is given nothing beside it.
    is_alone = nested and issuer.nested_scope_parameter and not code.grant.scope
    fields = {} if is_alone else _first_tokens(issuer, code.grant)
    second = {} if nested is None else _first_tokens(issuer, Grant(nested))
    return {**fields, issuer.nest_under: {**second, **issuer.filled(issuer.nested_extra)}}


def _nested_scope(issuer: Issuer, code: Code) -> str | None:
    """The scope of the second pair of tokens; `None` where there is none."""
    if issuer.nested_scope_parameter is None:
        return code.asked.get("scope", "")
    return code.asked.get(issuer.nested_scope_parameter) or None


def _first_tokens(issuer: Issuer, grant: Grant) -> dict[str, Any]:
    return issuer.issue(grant, refresh_token=issuer.first_refresh_token(grant)) | issuer.identity(grant)


def _from_password(issuer: Issuer, form: Mapping[str, str]) -> dict[str, Any]:
    if (form.get("username"), form.get("password")) != (issuer.username, issuer.password):
        raise Refused("invalid_grant", "Wrong username or password.")
    return _first_tokens(issuer, Grant(form.get("scope", "")))


def _refresh(issuer: Issuer, form: Mapping[str, str]) -> dict[str, Any]:
    token = form.get("refresh_token", "")
    grant = issuer.grants_by_refresh_token.get(token)
    if grant is None:
        raise Refused(issuer.refresh_error, "Unknown refresh token.")
    if use := grant.consumed.get(token):
        is_forgiven = not grant.is_revoked and time.monotonic() - use.at < issuer.reuse_grace
        grant.replays.append(Replay(time.time(), token, is_forgiven))
        if is_forgiven:
            return use.fields
        issuer.reuses += 1
        if not grant.is_revoked:
            grant.is_revoked = issuer.reuse_revokes
            raise Refused(issuer.reuse_error, "The refresh token was used before.")
    if grant.is_revoked:
        raise Refused(issuer.refresh_error, "The grant was revoked.")
    issuer.refreshes += 1
    grant.refreshes += 1
    grant.refreshed_at = time.time()
    refresh_token = issuer.next_refresh_token(grant, token)
    fields = issuer.issue(grant, refresh_token=refresh_token, scope=form.get("scope")) | issuer.identity(grant)
    if consumed := grant.consumed.get(token):
        consumed.fields = fields
    return fields


def _encoded(
    issuer: Issuer,
    request: TokenRequest,
    fields: Mapping[str, Any],
    *,
    status: int = 200,
    headers: Mapping[str, str],
) -> Reply:
    wants_json = issuer.json_if_asked and "application/json" in request.accept
    if not issuer.form_encoded or wants_json:
        return Reply(status=status, body=json.dumps(fields).encode(), headers=headers)
    body = urlencode(fields).encode()
    return Reply(status=status, body=body, content_type="application/x-www-form-urlencoded", headers=headers)


def _challenge(verifier: str | None) -> str:
    """The S256 challenge that belongs to a verifier; none to none (RFC 7636 §4.6)."""
    if verifier is None:
        return ""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _is_same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
