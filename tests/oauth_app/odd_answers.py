"""Token answers as no document describes them, and what is to be made of each. Many were seen in real systems."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from oauth_app.protocol.errors import (
    ClientRefused,
    GrantDead,
    OutcomeUnknown,
    ProviderUnavailable,
    TokenRequestFailed,
)

FORM = "application/x-www-form-urlencoded"
HTML = "text/html; charset=utf-8"
# A provider's words, which nobody may get to see as markup.
HOSTILE = "<script>hostile</script>"
LONG = "x" * 65_536


@dataclass(frozen=True)
class Brings:
    """A token. ``refresh``: ``None`` where the answer brings none, and the one that is stored stays."""

    access: str = "new-access"
    refresh: str | None = "new-refresh"
    expires_in: int | None = 3600
    scopes: tuple[str, ...] | None = None
    token_type: str = "Bearer"


TOKEN = Brings()
KEPT = Brings(refresh=None)
NO_END = Brings(expires_in=None)

Meaning = Brings | type[TokenRequestFailed]


@dataclass(frozen=True)
class Odd:
    """One answer to a token request."""

    name: str
    meaning: Meaning
    body: bytes
    status: int = 200
    content_type: str = "application/json"
    provider: str = "custom"


def fields(**changed: Any) -> dict[str, Any]:
    """A good answer, ``changed``; `...` leaves a field out."""
    good = {"access_token": "new-access", "refresh_token": "new-refresh", "token_type": "Bearer", "expires_in": 3600}
    return {name: value for name, value in {**good, **changed}.items() if value is not ...}


def said(**changed: Any) -> bytes:
    return json.dumps(fields(**changed)).encode()


def raw(**literal: str) -> bytes:
    """A good answer with members that are written as they stand."""
    members = [json.dumps(name) + ":" + literal.get(name, json.dumps(value)) for name, value in fields().items()]
    members += [json.dumps(name) + ":" + text for name, text in literal.items() if name not in fields()]
    return ("{" + ",".join(members) + "}").encode()


def refused(**said: Any) -> bytes:
    return json.dumps(said).encode()


def form(**changed: Any) -> bytes:
    return urlencode(fields(**changed)).encode()


LATIN = said(name="x").replace(b'"x"', b'"Ren\xe9"')
PAGE = f"<!doctype html><title>Sign in</title><a href='/?a=1&access_token=x&error=y'>{HOSTILE}</a>".encode()

SPELLINGS = [
    Odd("JSON that calls itself a page", TOKEN, said(), content_type=HTML),
    Odd("JSON that calls itself a form", TOKEN, said(), content_type=FORM),
    Odd("JSON with an unknown charset", TOKEN, said(), content_type="application/json; charset=klingon"),
    Odd("an error in JSON that calls itself a form", GrantDead, refused(error="invalid_grant"), 400, FORM),
    Odd("a form", TOKEN, form(), content_type=FORM),
    Odd("a form with an odd type", TOKEN, form(), content_type="Application/X-WWW-Form-Urlencoded"),
    Odd("a form that calls itself text", TOKEN, form(), content_type="text/plain"),
    Odd("a form that calls itself a page, with a line break", TOKEN, form() + b"\r\n", content_type=HTML),
    Odd("a form that calls itself JSON", TOKEN, form()),
    Odd("an error as a form that calls itself text", GrantDead, b"error=invalid_grant&x=1", 400, "text/plain"),
    Odd("a form with a field twice", Brings("second"), form() + b"&access_token=second", content_type=FORM),
    Odd("a form with 200 fields", OutcomeUnknown, b"a=1&" * 200 + form(), content_type=FORM),
    Odd("a form of something else", OutcomeUnknown, b"status=ok&next=1"),
    Odd("a page that calls itself a form", OutcomeUnknown, PAGE, content_type="text/plain"),
    Odd("a byte order mark", TOKEN, b"\xef\xbb\xbf" + said()),
    Odd("UTF-16 with its mark", TOKEN, said().decode().encode("utf-16")),
    Odd("UTF-16 without", TOKEN, said().decode().encode("utf-16-le")),
    Odd("UTF-32", TOKEN, said().decode().encode("utf-32")),
    Odd("a name in Latin-1", TOKEN, LATIN),
    Odd("a refresh token in Latin-1", KEPT, said().replace(b"new-refresh", b"n\xe9w")),
    Odd("gzip that does not say so", OutcomeUnknown, gzip.compress(said())),
    Odd("bytes of nothing", OutcomeUnknown, bytes(range(256))),
    Odd("NULs", OutcomeUnknown, b"\0" * 64),
    Odd("a NUL at the end", OutcomeUnknown, said() + b"\0"),
    Odd("a line break inside a description", TOKEN, raw(note='"two\nlines\there"')),
    Odd("an error whose description has a line break", GrantDead, b'{"error":"invalid_grant","d":"\n"}', 400),
]

STRUCTURES = [
    Odd("nothing", OutcomeUnknown, b""),
    Odd("white space", OutcomeUnknown, b" \r\n\t"),
    Odd("a page", OutcomeUnknown, PAGE, content_type=HTML),
    Odd("a page in place of JSON", OutcomeUnknown, PAGE),
    Odd("an array", OutcomeUnknown, b"[" + said() + b"]"),
    Odd("arrays in arrays", OutcomeUnknown, b"[[[[]]]]"),
    Odd("null", OutcomeUnknown, b"null"),
    Odd("true", OutcomeUnknown, b"true"),
    Odd("a number", OutcomeUnknown, b"7"),
    Odd("JSON in a JSON string", OutcomeUnknown, json.dumps(said().decode()).encode()),
    Odd("JSONP", OutcomeUnknown, b"callback(" + said() + b");"),
    Odd("a guard before the JSON", OutcomeUnknown, b")]}'\n" + said()),
    Odd("something after the JSON", OutcomeUnknown, said() + b"<!-- 12 ms -->"),
    Odd("two documents", OutcomeUnknown, said() + b"\n" + said(access_token="second")),
    Odd("half a document", OutcomeUnknown, said()[:-9]),
    Odd("a field twice", Brings("second"), raw(x="0")[:-1] + b',"access_token":"second"}'),
    Odd("tokens one level down", OutcomeUnknown, refused(data=fields())),
    Odd("names in capitals", OutcomeUnknown, refused(ACCESS_TOKEN="new-access", REFRESH_TOKEN="new-refresh")),
    Odd("names in camel case", OutcomeUnknown, refused(accessToken="new-access", refreshToken="new-refresh")),
    Odd("a hundred levels beside", TOKEN, raw(x="[" * 100 + "]" * 100)),
    Odd("a hundred thousand levels", OutcomeUnknown, raw(x="[" * 100_000 + "]" * 100_000)),
    Odd("a prototype", TOKEN, said(__proto__={"access_token": "other"}, constructor={"error": "x"})),
    Odd("ten thousand further fields", TOKEN, said(**{f"further_{n}": HOSTILE for n in range(10_000)})),
    Odd("markup everywhere else", TOKEN, said(name=HOSTILE, error_description=HOSTILE, error_uri=HOSTILE)),
]

LIFETIMES = [
    Odd(f"expires_in {literal[:24]}", Brings(expires_in=seconds), raw(expires_in=literal))
    for literal, seconds in (
        ('"3600"', 3600),
        ('" 3600 "', 3600),
        ("3600.7", 3600),
        ("3.6e3", 3600),
        ("0", None),
        ("-1", None),
        ("true", None),
        ("null", None),
        ("[3600]", None),
        ('{"seconds": 3600}', None),
        ('"in an hour"', None),
        ('"PT1H"', None),
        ("1e400", None),
        ("NaN", None),
        ("-Infinity", None),
        ("9" * 5000, None),
        (f'"{"9" * 5000}"', None),
        ("1798761600000", 315_360_000),
    )
]

SCOPES = [
    Odd(f"scope {literal[:24]}", Brings(scopes=scopes), raw(scope=literal))
    for literal, scopes in (
        ("null", None),
        ("7", None),
        ('{"a": true}', None),
        ('""', ()),
        ('"a  b"', ("a", "b")),
        ('"a\\tb\\nc"', ("a", "b", "c")),
        ('"a,b"', ("a,b",)),
        ('"a b a"', ("a", "b")),
        ('["a", "b", "a", 7, null, ["c"]]', ("a", "b")),
        ('"l\\u00e9 \\u30b9"', ("lé", "ス")),
        ('"a \\u0000 \\ud800"', ("a",)),
        (json.dumps(HOSTILE), (HOSTILE,)),
        (json.dumps([f"s{n}" for n in range(10_000)]), tuple(f"s{n}" for n in range(10_000))),
    )
]

TOKENS = [
    *[
        Odd(f"access_token {literal[:24]}", OutcomeUnknown, raw(access_token=literal))
        for literal in (
            "null",
            "7",
            "true",
            "[]",
            '["new-access"]',
            '{"value": "new-access"}',
            '""',
            '" "',
            '"new\\naccess"',
            '"new-access\\u0000"',
            '"new-access\\u007f"',
            '"n\\u00e9w"',
            '"\\ud800"',
        )
    ],
    Odd("access_token with a space", Brings("new access"), said(access_token="new access")),
    Odd("access_token with markup", Brings(HOSTILE), said(access_token=HOSTILE)),
    Odd("access_token of 64 KB", Brings(LONG), said(access_token=LONG)),
    *[
        Odd(f"refresh_token {literal[:24]}", KEPT, raw(refresh_token=literal))
        for literal in (
            "null",
            '""',
            '" "',
            "7",
            "false",
            "[]",
            '["new-refresh"]',
            '{"value": "new-refresh"}',
            '"new\\r\\nrefresh"',
            '"new-refresh\\u0000"',
            '"\\ud83d"',
        )
    ],
    Odd("no refresh_token", KEPT, said(refresh_token=...)),
    Odd("refresh_token with a space", Brings(refresh="new refresh"), said(refresh_token="new refresh")),
    Odd("refresh_token like the access token", Brings(refresh="new-access"), said(refresh_token="new-access")),
    Odd("refresh_token of 64 KB", Brings(refresh=LONG), said(refresh_token=LONG)),
    *[
        Odd(f"token_type {literal[:24]}", Brings(token_type=meant), raw(token_type=literal))
        for literal, meant in (
            ("null", "Bearer"),
            ("7", "Bearer"),
            ('["Bearer"]', "Bearer"),
            ('"bEARER"', "Bearer"),
            ('"urn:x:N_A"', "urn:x:N_A"),
            ('"Bearer\\r\\nX: y"', "Bearer"),
            (f'"{"x" * 51}"', "Bearer"),
            (json.dumps(HOSTILE), HOSTILE),
        )
    ],
    *[
        Odd(f"id_token {literal[:24]}", TOKEN, raw(id_token=literal))
        for literal in (
            "7",
            '"garbage"',
            '"a.b.c"',
            '".."',
            '"\\ud800.\\ud800.\\ud800"',
            '"a.bnVsbA.c"',
            f'"a.{LONG}.c"',
        )
    ],
    *[
        Odd(f"refresh_token_expires_in {literal[:24]}", TOKEN, raw(refresh_token_expires_in=literal))
        for literal in ('"soon"', "-1", "1e400", "true", "9" * 5000)
    ],
]

ERRORS = [
    *[
        Odd(f"error {literal} beside tokens", TOKEN, raw(error=literal))
        for literal in ("null", '""', "false", "0", "[]", "{}")
    ],
    *[
        Odd(f"error {literal[:24]} beside tokens", OutcomeUnknown, raw(error=literal))
        for literal in ('"invalid_grant"', '"invalid_client"', '{"code": 7}', '["invalid_grant"]', "7", '"<script>"')
    ],
    Odd("ok: false beside tokens", OutcomeUnknown, said(ok=False)),
    Odd("ok: true beside tokens", TOKEN, said(ok=True)),
    Odd("an error with 200", GrantDead, refused(error="invalid_grant")),
    Odd("an error that nobody knows with 200", ProviderUnavailable, refused(error=HOSTILE)),
    Odd("an empty error with 200", OutcomeUnknown, refused(error="")),
    Odd("a description alone", OutcomeUnknown, refused(error_description=HOSTILE)),
    Odd("markup in the description", GrantDead, refused(error="invalid_grant", error_description=HOSTILE), 400),
    Odd("markup after the code", GrantDead, refused(error=f"invalid_grant: {HOSTILE}"), 400),
    Odd("markup as the code", ProviderUnavailable, refused(error=HOSTILE), 400),
    Odd("a code of 64 KB", ProviderUnavailable, refused(error=LONG), 400),
    Odd("a code with a NUL", ProviderUnavailable, refused(error="invalid_grant\0"), 400),
    Odd("a code in capitals", ProviderUnavailable, refused(error="INVALID_GRANT"), 400),
    Odd("a list as the code", ProviderUnavailable, refused(error=["invalid_grant"]), 400),
    Odd("an object as the code", OutcomeUnknown, refused(error={"message": HOSTILE}), 500),
    Odd("a null code", ProviderUnavailable, refused(error=None), 400),
    Odd("a code with 401", ClientRefused, refused(error="invalid_client", error_description=HOSTILE), 401),
    Odd("a page with 400", ProviderUnavailable, PAGE, 400, HTML),
    Odd("a page with 502", OutcomeUnknown, PAGE, 502, HTML),
]

STATUSES = [
    *[Odd(f"tokens with {status}", TOKEN, said(), status) for status in (201, 203, 206, 299)],
    # Whoever brings tokens may have used up the old one, whatever else it says.
    *[
        Odd(f"tokens with {status}", OutcomeUnknown, said(), status)
        for status in (300, 302, 307, 400, 401, 403, 404, 408, 429, 500, 503, 599)
    ],
    Odd("a dead grant beside tokens, with 400", OutcomeUnknown, said(error="invalid_grant"), 400),
]

PRESETS = [
    Odd("a user's token only", TOKEN, refused(ok=True, authed_user=fields()), provider="slack"),
    Odd("a user's beside null", TOKEN, refused(ok=True, access_token=None, authed_user=fields()), provider="slack"),
    Odd("the bot's before the user's", TOKEN, said(ok=True, authed_user={"access_token": "u"}), provider="slack"),
    Odd("a user that is text", OutcomeUnknown, refused(ok=True, authed_user="U1"), provider="slack"),
    Odd("a user's token and ok: false", OutcomeUnknown, refused(ok=False, authed_user=fields()), provider="slack"),
    Odd("a dead token", GrantDead, refused(ok=False, error="invalid_refresh_token"), provider="slack"),
    Odd("an error in capitals", ProviderUnavailable, refused(ok=False, error="X", detail=HOSTILE), provider="slack"),
    Odd("scopes with commas", Brings(scopes=("a", "b")), said(scope="a,b,,a"), provider="slack"),
    Odd("a hostile team", TOKEN, said(team={"name": HOSTILE, "id": 7, "\0": "x"}, app_id=[1]), provider="slack"),
    Odd("a huge team", TOKEN, said(team={f"k{n}": LONG for n in range(9)}, enterprise=LONG), provider="slack"),
    Odd("a huge name of a team", TOKEN, said(team={"name": LONG}), provider="slack"),
    Odd("a team of surrogates", TOKEN, said(team={"name": "\ud800", "id": "T\0"}), provider="slack"),
    Odd("a team as a list", TOKEN, said(team=[{"name": HOSTILE}]), provider="slack"),
    Odd("a dead token with 200", GrantDead, refused(error="bad_refresh_token"), provider="github"),
    Odd("wrong credentials as a form", ClientRefused, b"error=incorrect_client_credentials", provider="github"),
    Odd("a message and no error", ProviderUnavailable, refused(message="Not Found"), 404, provider="github"),
    Odd("scopes with commas", Brings(scopes=("repo", "gist")), said(scope="repo,gist"), provider="github"),
    Odd("no lifetime", TOKEN, said(expires_in=..., issued_at="1798761600000"), provider="salesforce"),
    Odd("a hostile instance", TOKEN, said(instance_url=f"javascript:{HOSTILE}", id=HOSTILE), provider="salesforce"),
    Odd("an instance with NULs", TOKEN, said(instance_url="https://x\0", id={"a": "b"}), provider="salesforce"),
    Odd("a lifetime as text", TOKEN, said(expires_in="3600", ext_expires_in="0"), provider="microsoft"),
    Odd(
        "an error with a code list", GrantDead, refused(error="invalid_grant", error_codes=[7]), 400, provider="google"
    ),
]

ODD = [*SPELLINGS, *STRUCTURES, *LIFETIMES, *SCOPES, *TOKENS, *ERRORS, *STATUSES, *PRESETS]
