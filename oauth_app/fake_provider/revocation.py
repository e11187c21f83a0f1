"""The revocation endpoints: RFC 7009, and the ways of Slack and GitHub. Each is recorded in `Issuer.revocations`."""

from __future__ import annotations

import json

from .answers import Reply
from .grants import check_client, refusal
from .issuer import Issuer, Refused
from .record import TokenRequest


def rfc7009(issuer: Issuer, request: TokenRequest) -> Reply:
    """POST `token`: an unknown one is a success too (RFC 7009 §2.2)."""
    with issuer.lock:
        try:
            if issuer.revocation_needs_client:
                check_client(issuer, request)
        except Refused as refused:
            return refusal(issuer, request, refused)
        style = "rfc7009" if request.client_id else "token_only"
        _record(issuer, request, {"style": style, **request.form})
        token = request.form.get("token", "")
        _end_access_token(issuer, token)
        if grant := issuer.grants_by_refresh_token.get(token):
            grant.is_revoked = True
        return Reply(status=200)


def bearer(issuer: Issuer, request: TokenRequest) -> Reply:
    """POST without a body, the access token as Bearer: Slack's `auth.revoke`."""
    with issuer.lock:
        token = request.bearer or ""
        if not issuer.is_live(token):
            request.outcome = "token_revoked" if token.startswith("fake-access-") else "invalid_auth"
            return _json({"ok": False, "error": request.outcome})
        _record(issuer, request, {"style": "bearer", "token": token})
        _end_access_token(issuer, token)
        return _json({"ok": True, "revoked": True})


def github(issuer: Issuer, request: TokenRequest) -> Reply:
    """DELETE with Basic and `access_token` in JSON: 204, or 422 for a token that is not live."""
    with issuer.lock:
        try:
            check_client(issuer, request)
        except Refused as refused:
            request.outcome = refused.code
            return _json({"message": "Bad credentials"}, status=401)
        token = request.form.get("access_token", "")
        if not issuer.is_live(token):
            request.outcome = "invalid_token"
            return _json({"message": "Validation Failed"}, status=422)
        _record(issuer, request, {"style": "github", **request.form})
        _end_access_token(issuer, token)
        return Reply(status=204)


def _record(issuer: Issuer, request: TokenRequest, entry: dict[str, str]) -> None:
    request.outcome = "revoked"
    issuer.revocations.append(entry)


def _end_access_token(issuer: Issuer, token: str) -> None:
    if grant := issuer.grants_by_access_token.pop(token, None):
        grant.access_tokens.discard(token)
        grant.is_revoked = grant.is_revoked or issuer.revoke_ends_grant


def _json(document: object, *, status: int = 200) -> Reply:
    return Reply(status=status, body=json.dumps(document).encode())
