"""The authorization endpoint: what a person meets, and where it sends them (RFC 6749 §4.1, §4.2, RFC 7636, RFC 9207)."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from .answers import Reply
from .issuer import Grant, Issuer, Refused

# The field that the two buttons of the page send.
_DECISION = "decision"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Allow access?</title>
<style>body {{ font: 1rem/1.5 sans-serif; margin: 4rem auto; max-width: 30rem }} button {{ font: inherit; padding: .5rem 1rem }}
</style></head><body>
<h1>Allow access?</h1>
<p><strong>{client}</strong> asks to act for <strong>{account}</strong>.</p>
{scopes}
<form method="get">
{fields}
<button name="decision" value="allow">Allow</button>
<button name="decision" value="deny">Deny</button>
</form>
<p><small>This provider is for rehearsals; nothing real is behind it.</small></p>
</body></html>
"""


class Consent(NamedTuple):
    """How one visit to the authorization endpoint ended."""

    outcome: str
    """`allowed`, `asked`, or the code of an error."""
    reply: Reply


def authorize(issuer: Issuer, query: str) -> Consent:
    """A page that asks, where `asks` is on and nothing was decided; else a redirect with a code, a token or an error."""
    asked = parameters_of(query)
    decision = asked.pop(_DECISION, "") if issuer.asks else ""
    with issuer.lock:
        if not decision:
            issuer.authorizations.append(parse_qs(query, keep_blank_values=True))
        redirect_uri = asked.get("redirect_uri", "")
        if asked.get("client_id") != issuer.client_id or not urlsplit(redirect_uri).scheme:
            # Whoever cannot be trusted with the address must not be sent there (RFC 6749 §4.1.2.1).
            body = b"Unknown client, or no redirect URI."
            return Consent("invalid_request", Reply(status=400, body=body, content_type="text/plain"))
        outcome, fields = "allowed", {}
        try:
            _check(issuer, asked)
            if issuer.asks and not decision:
                return Consent("asked", _page(issuer, asked, query))
            if decision not in ("", "allow"):
                raise Refused("access_denied")
            fields = _granted(issuer, asked)
        except Refused as refused:
            outcome = refused.code
            fields = {"error": refused.code, "error_description": refused.description}
        fields |= {"state": asked.get("state", ""), "iss": issuer.filled(issuer.iss) or ""}
    return Consent(outcome, _redirect(redirect_uri, fields, in_fragment=_is_implicit(asked)))


def parameters_of(query: str) -> dict[str, str]:
    """The parameters of a query; of one that is repeated the last."""
    return dict(parse_qsl(query, keep_blank_values=True))


def _check(issuer: Issuer, asked: Mapping[str, str]) -> None:
    if issuer.authorize_error:
        raise Refused(issuer.authorize_error)
    if _is_implicit(asked):
        return
    if asked.get("response_type") != "code":
        raise Refused("unsupported_response_type")
    challenge = asked.get("code_challenge", "")
    if challenge and asked.get("code_challenge_method") != "S256":
        raise Refused("invalid_request", "The challenge must be S256.")
    if issuer.requires_pkce and not challenge:
        raise Refused("invalid_request", "A code challenge is required.")


def _granted(issuer: Issuer, asked: Mapping[str, str]) -> dict[str, str]:
    if not _is_implicit(asked):
        return {"code": issuer.new_code(asked["redirect_uri"], asked)}
    fields = issuer.dressed(issuer.issue(Grant(asked.get("scope", "")), refresh_token=None))
    return {name: str(value) for name, value in fields.items()}


def _is_implicit(asked: Mapping[str, str]) -> bool:
    return asked.get("response_type") == "token"


def _page(issuer: Issuer, asked: Mapping[str, str], query: str) -> Reply:
    named = [scope for scope in re.split(r"[ ,]+", asked.get("scope", "")) if scope]
    items = "".join(f"<li>{html.escape(scope)}</li>" for scope in named)
    fields = "\n".join(
        f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
        for name, value in parse_qsl(query, keep_blank_values=True)
        if name != _DECISION
    )
    page = _PAGE.format(
        client=html.escape(issuer.client_id),
        account=html.escape(issuer.username),
        scopes=f"<p>It would be allowed:</p><ul>{items}</ul>" if named else "<p>It names no scope.</p>",
        fields=fields,
    )
    # No form-action: browsers hold it against the redirect after the form, too.
    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
    }
    return Reply(status=200, body=page.encode(), content_type="text/html; charset=utf-8", headers=headers)


def _redirect(url: str, fields: Mapping[str, str], *, in_fragment: bool) -> Reply:
    """Back to the client; a token, and the error of who asked for one, goes into the fragment (RFC 6749 §4.2.2)."""
    parameters = urlencode({name: value for name, value in fields.items() if value})
    if in_fragment:
        location = f"{url}#{parameters}"
    else:
        location = f"{url}{'&' if urlsplit(url).query else '?'}{parameters}"
    return Reply(status=302, headers={"Location": location})
