"""Reading token answers, strictly: whatever a provider sends is a token or a typed error, never a crash.

RFC 6749 §5.1 and §5.2, and the providers' own ways: errors with status 200, form-encoded answers, lifetimes as text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl

from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import (
    BROKE_OFF,
    CLIENT_REFUSED,
    DEAD_GRANT,
    TURNED_AWAY,
    ClientRefused,
    GrantDead,
    OutcomeUnknown,
    ProviderUnavailable,
    TokenRequestFailed,
    plain_code,
)
from oauth_app.protocol.identity import Identity, read_id_token
from secrets_app.crypto.cipher import Plaintext

# Turned away before it was looked at: too slow, too early, too many, not now.
_NOTHING_CONSUMED = frozenset({408, 425, 429, 503})
_LONGEST_LIFETIME = 10 * 365 * 86_400
_LONGEST_RETRY_AFTER = 86_400
_MAX_FACT = 500
# What a form looks like that does not call itself one; no page does. Read in one pass, however long it is.
_FORM = re.compile(r"[a-z_]{2,40}=[!#-;=?-z|~]*")
# RFC 6749 appendix A: tokens are printable ASCII.
_TOKEN = re.compile(r"[\x20-\x7e]+")


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """A token. ``expires_in`` is seconds from when the request was sent, ``None`` where it does not expire.

    ``scopes`` is what was granted, ``None`` where the answer does not say; ``facts`` is what it tells of the account, and
    ``identity`` what an `id_token` does. ``refresh_token_expires_in`` is seconds, where the provider says so.
    """

    access_token: Plaintext
    refresh_token: Plaintext | None
    token_type: str
    expires_in: int | None
    scopes: tuple[str, ...] | None
    facts: dict[str, Any] = field(default_factory=dict)
    identity: Identity = field(default_factory=Identity)
    refresh_token_expires_in: int | None = None
    # Whether it was had with the client secret that had been replaced.
    used_previous_secret: bool = False


def read_fragment(client: OAuthClient, fields: Mapping[str, str]) -> TokenAnswer:
    """Return the token that the implicit grant brought in the fragment (RFC 6749 §4.2.2). Raises ``TokenRequestFailed``.

    A refresh token has no place in it and is left where it is.
    """
    return replace(_token(client, dict(fields)), refresh_token=None, refresh_token_expires_in=None)


def read_answer(client: OAuthClient, *, status: int, headers: Mapping[str, str], body: bytes) -> TokenAnswer:
    """Return the token of an answer, or raise the ``TokenRequestFailed`` that it means."""
    data = _parse(headers, body)
    if data is None:
        if 200 <= status < 300:
            raise OutcomeUnknown("unreadable_answer", "The provider answered with something that is no token answer.")
        raise _from_status(status, headers)
    if 200 <= status < 300 and not data.get("error") and data.get("ok") is not False:
        return _token(client, data)
    failure = _failure(client, status, data, headers)
    if _source(client, data).get("access_token"):
        # It says that it failed and brings a token: whoever issues one may have used up the refresh token.
        raise OutcomeUnknown(failure.code, failure.message, retry_after=failure.retry_after)
    raise failure


def _parse(headers: Mapping[str, str], body: bytes) -> dict[str, Any] | None:
    """The fields of an answer. Its type is not asked: there are JSON answers that call themselves forms, and forms that do not.

    A rotated refresh token exists in this answer only, so what stands beside the tokens is read leniently.
    """
    try:
        text = body.decode(json.detect_encoding(body))
    except UnicodeDecodeError:
        # Tokens are ASCII: a name in another encoding does not change them.
        text = body.decode("latin-1")
    try:
        data = json.loads(text, strict=False, parse_int=_integer)
        return data if isinstance(data, dict) else None
    except RecursionError:
        return None
    except ValueError:
        pass
    return _parse_form(text.strip(), is_named="form-urlencoded" in headers.get("Content-Type", ""))


def _parse_form(text: str, *, is_named: bool) -> dict[str, Any] | None:
    if not is_named and not _FORM.fullmatch(text):
        return None
    try:
        fields = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=100))
    except ValueError:
        return None
    return fields if is_named or not fields.keys().isdisjoint({"access_token", "error"}) else None


def _integer(digits: str) -> int | float:
    # Python refuses to read an integer of thousands of digits; as a float it is infinite, and counts as missing.
    return int(digits) if len(digits) < 400 else float(digits)


def _failure(
    client: OAuthClient, status: int, data: Mapping[str, Any], headers: Mapping[str, str]
) -> TokenRequestFailed:
    if code := _in_words(client, status, data):
        return _permanent(code)
    if data.get("error") or 200 <= status < 300:
        return _from_error(status, data, headers)
    return _from_status(status, headers)


def _in_words(client: OAuthClient, status: int, data: Mapping[str, Any]) -> str | None:
    """The code that a provider means which tells some errors in words only."""
    words = client.preset.error_words
    if not words or not 400 <= status < 500 or status in _NOTHING_CONSUMED:
        return None
    said = data.get("error_description") or data.get("message")
    return words.get(said.lower().removesuffix(".")) if isinstance(said, str) else None


def _permanent(code: str) -> TokenRequestFailed:
    if code in DEAD_GRANT:
        return GrantDead(code, "The provider says that the grant is no longer valid.")
    return ClientRefused(code, "The provider refuses our client credentials or what they ask for.")


def _from_error(status: int, data: Mapping[str, Any], headers: Mapping[str, str]) -> TokenRequestFailed:
    code = plain_code(data.get("error"))
    # A token endpoint answers 401 to a client that it does not know (RFC 6749 §5.2), whatever it calls that.
    is_known = code in DEAD_GRANT | CLIENT_REFUSED or (status == 401 and code == "access_denied")
    if is_known and (status in (400, 401) or 200 <= status < 300):
        return _permanent(code)
    message, retry_after = f"The provider answered with an error (status {status}).", read_retry_after(headers)
    broke_off = status < 300 and code in BROKE_OFF
    unspoken = (
        status >= 500 and status not in _NOTHING_CONSUMED and code not in TURNED_AWAY | DEAD_GRANT | CLIENT_REFUSED
    )
    if broke_off or unspoken:
        return OutcomeUnknown(code, message, retry_after=retry_after)
    return ProviderUnavailable(code, message, retry_after=retry_after)


def _from_status(status: int, headers: Mapping[str, str]) -> TokenRequestFailed:
    retry_after = read_retry_after(headers)
    if status == 429:
        return ProviderUnavailable("rate_limited", "The provider limits our requests.", retry_after=retry_after)
    message = f"The provider answered with status {status}."
    if status >= 500 and status not in _NOTHING_CONSUMED:
        # A gateway's page tells nothing of what the provider behind it did.
        return OutcomeUnknown(f"http_{status}", message, retry_after=retry_after)
    return ProviderUnavailable(f"http_{status}", message, retry_after=retry_after)


def _source(client: OAuthClient, data: dict[str, Any]) -> dict[str, Any]:
    """Where the tokens are: at the top, or in the preset's object if there is none at the top."""
    nested = data.get(client.preset.nested_token or "")
    return nested if not data.get("access_token") and isinstance(nested, dict) else data


def _token(client: OAuthClient, data: dict[str, Any]) -> TokenAnswer:
    source = _source(client, data)
    access_token = _sendable(source.get("access_token"))
    if access_token is None:
        raise OutcomeUnknown("no_access_token", "The provider's answer holds no access token.")
    unit = 1000 if client.preset.lifetimes_in_milliseconds else 1
    return TokenAnswer(
        access_token=access_token,
        refresh_token=_sendable(source.get("refresh_token")),
        token_type=read_token_type(source.get("token_type")),
        expires_in=read_lifetime(source.get("expires_in"), default=client.default_expires_in, unit=unit),
        scopes=_read_scopes(client, source.get(client.preset.scope_field)),
        facts=read_facts(client.preset.facts, data),
        identity=read_id_token(data.get("id_token")),
        refresh_token_expires_in=read_lifetime(_refresh_token_lifetime(source), default=None, unit=unit),
    )


def _sendable(value: Any) -> Plaintext | None:
    is_token = isinstance(value, str) and _TOKEN.fullmatch(value) and value.strip()
    # Anything else is no token to replace the one that we have.
    return Plaintext(value) if is_token else None


def _refresh_token_lifetime(source: Mapping[str, Any]) -> Any:
    # No RFC has it; these are the spellings in use.
    names = ("refresh_token_expires_in", "x_refresh_token_expires_in", "refresh_expires_in")
    return next((source[name] for name in names if name in source), None)


def read_facts(names: Iterable[str], data: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``names`` that ``data`` has a short text, a number or a flat object of them for."""
    return {name: kept for name in names if (kept := _small(data.get(name))) is not None}


def read_token_type(value: Any) -> str:
    """`Bearer`, however it is spelt; an unknown type as it is."""
    if not isinstance(value, str) or value.lower() == "bearer" or not re.fullmatch(r"[\x21-\x7e]{1,50}", value):
        return "Bearer"
    return value


def read_lifetime(value: Any, *, default: int | None, unit: int = 1) -> int | None:
    """Whole seconds out of a number or its text, of which ``unit`` make one.

    Zero, negative or unreadable counts as missing: ``default``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return default
    try:
        seconds = float(value) / unit if not isinstance(value, str) or len(value) <= 20 else math.nan
    except (ValueError, OverflowError):
        return default
    if not math.isfinite(seconds) or seconds < 1:
        return default
    return min(int(seconds), _LONGEST_LIFETIME)


def read_retry_after(headers: Mapping[str, str]) -> int | None:
    """`Retry-After` in whole seconds from now, whether it says seconds or a date (RFC 9110 §10.2.3); at most a day."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), _LONGEST_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text)
        stated = headers.get("Date")
        # The provider's own Date, where there is one: its clock may differ from ours.
        now = parsedate_to_datetime(stated) if stated else datetime.now(UTC)
        seconds = (moment - now).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(0, math.ceil(seconds)), _LONGEST_RETRY_AFTER)


def _read_scopes(client: OAuthClient, value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str):
        separators = {" ", client.scope_separator, client.preset.answered_scope_separator or " "}
        value = re.split(r"\s|" + "|".join(map(re.escape, separators)), value)
    if not isinstance(value, list):
        return None
    return tuple(dict.fromkeys(part for part in value if _text(part)))


def _small(value: Any) -> Any:
    """A fact worth keeping: a short text, a number, or a flat object of them."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)[:_MAX_FACT] if abs(value) < 10**30 else None
    if isinstance(value, str):
        return (_text(value) or "")[:_MAX_FACT] or None
    if isinstance(value, dict):
        return {k[:50]: v[:_MAX_FACT] for k, v in list(value.items())[:10] if _text(k) and _text(v)} or None
    return None


def _text(value: Any) -> str | None:
    """``value`` if it is text that can be stored and sent: no lone surrogate, which JSON can spell, and no control character."""
    if not isinstance(value, str) or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", value):
        return None
    return value
