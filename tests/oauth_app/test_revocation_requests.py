"""Revocation as it goes over the wire: what each provider is sent, and what its answer means."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoxcall.client_certificates import ClientCertificate
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.revocation import (
    RevocationFailed,
    RevocationRequest,
    read_revocation,
    revocation_of,
    revocation_requests,
)
from oauth_app.providers import PROVIDERS, TokenAuthMethod
from secrets_app.crypto.cipher import Plaintext

ACCESS, REFRESH = Plaintext("the access"), Plaintext("the+refresh")
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
JSON = {"Content-Type": "application/json", "Accept": "application/json"}
BEARER = {"Authorization": "Bearer the access", "Accept": "application/json"}


def basic(pair: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


# RFC 6749 §2.3.1 form-encodes both before they are joined; GitHub wants them as they are.
BASIC, PLAIN_BASIC = basic("id%2F1:s+1%26"), basic("id/1:s 1&")
OF_ACCESS, OF_REFRESH = b"token=the+access", b"token=the%2Brefresh"
ACCESS_HINT, REFRESH_HINT = b"&token_type_hint=access_token", b"&token_type_hint=refresh_token"
POSTED = b"&client_id=id%2F1&client_secret=s+1%26"
BY_BASIC = [(FORM | BASIC, OF_REFRESH + REFRESH_HINT), (FORM | BASIC, OF_ACCESS + ACCESS_HINT)]
BY_POST = [(FORM, OF_REFRESH + REFRESH_HINT + POSTED), (FORM, OF_ACCESS + ACCESS_HINT + POSTED)]
BY_TOKEN = [(FORM, OF_REFRESH), (FORM, OF_ACCESS)]

# Provider: address, and headers and body of every request; POST unless it is GitHub.
EXPECTED: dict[str, tuple[str, list[tuple[dict[str, str], bytes]]]] = {
    "google": ("https://oauth2.googleapis.com/revoke", BY_TOKEN[:1]),
    "github": (
        "https://api.github.com/applications/id%2F1/token",
        [
            (
                PLAIN_BASIC | {"Content-Type": "application/json", "Accept": "application/vnd.github+json"},
                b'{"access_token": "the access"}',
            )
        ],
    ),
    "salesforce": ("https://ours.my.salesforce.com/services/oauth2/revoke", BY_TOKEN),
    "slack": ("https://slack.com/api/auth.revoke", [(BEARER, b"")]),
    "asana": ("https://app.asana.com/-/oauth_revoke", BY_POST),
    "box": ("https://api.box.com/oauth2/revoke", BY_POST),
    "calendly": ("https://auth.calendly.com/oauth/revoke", BY_BASIC),
    "discord": ("https://discord.com/api/oauth2/token/revoke", BY_BASIC[:1]),
    "dropbox": ("https://api.dropboxapi.com/2/auth/token/revoke", [(BEARER, b"")]),
    "gitlab": ("https://gitlab.com/oauth/revoke", BY_POST),
    "hubspot": ("https://api.hubapi.com/oauth/2026-03/token/revoke", BY_POST),
    "intercom": ("https://api.intercom.io/auth/uninstall", [(BEARER, b"")]),
    "linear": ("https://api.linear.app/oauth/revoke", BY_TOKEN),
    "notion": (
        "https://api.notion.com/v1/oauth/revoke",
        [(JSON | BASIC | {"Notion-Version": "2025-09-03"}, b'{"token": "the access"}')],
    ),
    "quickbooks": (
        "https://developer.api.intuit.com/v2/oauth2/tokens/revoke",
        [(JSON | BASIC, b'{"token": "the+refresh"}'), (JSON | BASIC, b'{"token": "the access"}')],
    ),
    "reddit": ("https://www.reddit.com/api/v1/revoke_token", BY_BASIC),
    "stripe": (
        "https://connect.stripe.com/oauth/deauthorize",
        [(FORM | {"Authorization": "Bearer s 1&"}, b"client_id=id%2F1&stripe_user_id=acct_1")],
    ),
    "twitch": ("https://id.twitch.tv/oauth2/revoke", BY_POST),
    "xero": ("https://identity.xero.com/connect/revocation", BY_BASIC[:1]),
    "zoom": ("https://zoom.us/oauth/revoke", [(FORM | BASIC, OF_ACCESS + ACCESS_HINT)]),
}


def a_client(provider: str = "custom", **further: Any) -> OAuthClient:
    values = {
        "grant_type": "authorization_code",
        "client_id": "id/1",
        "client_secret": "s 1&",
        "token_auth_method": PROVIDERS[provider].token_auth_method,
        **further,
    }
    return OAuthClient(provider=provider, **values)


def requests_of(client: OAuthClient, facts: dict[str, Any] | None = None, **tokens: Any) -> list[RevocationRequest]:
    tokens = {"access_token": ACCESS, "refresh_token": REFRESH} | tokens
    return revocation_requests(client, facts=facts or {}, **tokens)


def in_wire_form(requests: list[RevocationRequest]) -> list[tuple[str, str, dict[str, str], bytes]]:
    return [(request.method, request.url, dict(request.headers), request.body) for request in requests]


def test_the_table_names_every_preset_that_can_revoke():
    assert EXPECTED.keys() == {name for name, preset in PROVIDERS.items() if preset.revocation}


@pytest.mark.parametrize("provider", EXPECTED)
def test_each_provider_is_told_in_its_own_way(provider):
    facts = {"instance_url": "https://ours.my.salesforce.com", "stripe_user_id": "acct_1"}
    url, expected = EXPECTED[provider]
    method = "DELETE" if provider == "github" else "POST"
    sent = in_wire_form(requests_of(a_client(provider), facts))
    assert sent == [(method, url, headers, body) for headers, body in expected]


@pytest.mark.parametrize(
    ("method", "secret", "expected"),
    [
        (TokenAuthMethod.BASIC, "s 1&", BY_BASIC),
        (TokenAuthMethod.POST, "s 1&", BY_POST),
        (
            TokenAuthMethod.NONE,
            None,
            [
                (FORM, OF_REFRESH + REFRESH_HINT + b"&client_id=id%2F1"),
                (FORM, OF_ACCESS + ACCESS_HINT + b"&client_id=id%2F1"),
            ],
        ),
    ],
)
def test_a_custom_client_says_who_it_is_as_at_the_token_endpoint(method, secret, expected):
    url = "https://idp.example/revoke?{as}=it-stands"
    client = a_client(token_auth_method=method, client_secret=secret, revocation_url=url)
    assert in_wire_form(requests_of(client)) == [("POST", url, headers, body) for headers, body in expected]


def test_who_shows_a_certificate_names_itself_at_the_address_for_that():
    client = a_client(
        revocation_url="https://idp.example/revoke",
        mtls_revocation_url="https://mtls.idp.example/revoke",
        certificate=ClientCertificate(owner="o", chain=b"c", private_key=b"k", passphrase=None),
    )
    first, _ = requests_of(client)
    assert first.url == "https://mtls.idp.example/revoke"
    assert first.body == OF_REFRESH + REFRESH_HINT + b"&client_id=id%2F1"


@pytest.mark.parametrize(
    ("tokens", "bodies"),
    [
        ({"refresh_token": None}, [OF_ACCESS + ACCESS_HINT + POSTED]),
        ({"access_token": None}, [OF_REFRESH + REFRESH_HINT + POSTED]),
    ],
)
def test_one_token_is_one_request_that_must_succeed(tokens, bodies):
    requests = requests_of(a_client("gitlab"), **tokens)
    assert [request.body for request in requests] == bodies
    assert not requests[0].is_optional


def test_of_two_tokens_only_the_refresh_token_must_be_ended():
    assert [request.is_optional for request in requests_of(a_client("gitlab"))] == [False, True]


@pytest.mark.parametrize("provider", ["github", "slack", "zoom"])
def test_where_the_access_token_is_what_counts_and_there_is_none_nothing_is_sent(provider):
    assert requests_of(a_client(provider), access_token=None) == []


@pytest.mark.parametrize("provider", ["microsoft", "airtable", "custom"])
def test_a_provider_without_a_way_is_sent_nothing(provider):
    assert revocation_of(a_client(provider)) is None
    assert requests_of(a_client(provider)) == []


@pytest.mark.parametrize(
    "named",
    [
        "https://ours.my.salesforce.com.evil.example",
        "https://evil.example/.salesforce.com",
        "https://evil.example#.salesforce.com",
        "https://evil.example?.salesforce.com",
        "https://evil@ours.my.salesforce.com",
        "https://evilsalesforce.com",
        "https://ours.ſalesforce.com",
        "https://ours.salesforce.com:8443",
        "https://ours.salesforce.com\n",
        "http://ours.my.salesforce.com",
        "https://127.0.0.1",
        "{client_id}",
        "",
        7,
        {"a": "b"},
    ],
)
def test_an_instance_that_is_not_salesforces_is_not_called(named):
    client = a_client("salesforce", variables={"login_host": "test.salesforce.com"})
    urls = {request.url for request in requests_of(client, {"instance_url": named})}
    assert urls == {"https://test.salesforce.com/services/oauth2/revoke"}


def test_a_fact_cannot_stand_in_for_a_variable():
    facts = {"instance_url": "https://nowhere.example", "login_host": "evil.example", "client_id": "x"}
    client = a_client("salesforce", variables={"login_host": "login.salesforce.com"})
    assert requests_of(client, facts)[0].url == "https://login.salesforce.com/services/oauth2/revoke"


@pytest.mark.parametrize("facts", [{}, {"stripe_user_id": 7}])
def test_without_the_account_stripe_cannot_be_told(facts):
    with pytest.raises(RevocationFailed) as failed:
        requests_of(a_client("stripe"), facts)
    assert (failed.value.code, failed.value.retryable) == ("no_stripe_user_id", False)


def test_an_address_that_may_not_be_called_fails_for_good():
    with pytest.raises(RevocationFailed) as failed:
        requests_of(a_client(revocation_url="ftp://idp.example/revoke"))
    assert (failed.value.code, failed.value.retryable) == ("no_revocation_address", False)


def test_a_request_prints_nothing():
    for request in requests_of(a_client("github")) + requests_of(a_client("gitlab")):
        assert repr(request) == str(request) == "RevocationRequest(****)"


def read(provider: str, status: int, body: Any = b"", **headers: str) -> None:
    revocation = revocation_of(
        a_client(provider, revocation_url="https://idp.example" if provider == "custom" else None)
    )
    assert revocation is not None
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    read_revocation(revocation, status=status, headers={n.replace("_", "-"): v for n, v in headers.items()}, body=raw)


@pytest.mark.parametrize(
    ("provider", "status", "body"),
    [
        ("custom", 200, b""),
        ("custom", 204, b""),
        ("custom", 200, {}),
        ("custom", 200, b"<html>thanks</html>"),
        ("custom", 200, b"null"),
        ("custom", 200, [1]),
        # Dead already, which is as good.
        ("google", 400, {"error": "invalid_token", "error_description": "Token expired or revoked"}),
        ("custom", 400, {"error": "invalid_grant"}),
        ("github", 204, b""),
        ("github", 404, {"message": "Not Found"}),
        ("github", 422, {"message": "Validation Failed"}),
        ("slack", 200, {"ok": True, "revoked": True}),
        ("slack", 200, {"ok": False, "error": "token_revoked"}),
        ("slack", 200, {"ok": False, "error": "invalid_auth"}),
        ("dropbox", 200, b"null"),
        ("dropbox", 401, {"error_summary": "invalid_access_token/..", "error": {".tag": "invalid_access_token"}}),
        ("stripe", 200, {"stripe_user_id": "acct_1"}),
    ],
)
def test_a_token_that_is_over_is_a_success(provider, status, body):
    read(provider, status, body)


@pytest.mark.parametrize(
    ("provider", "status", "body", "code", "retryable"),
    [
        ("custom", 400, {"error": "invalid_request"}, "invalid_request", False),
        ("custom", 401, {"error": "invalid_client"}, "invalid_client", False),
        ("custom", 400, {"error": "unsupported_token_type"}, "unsupported_token_type", False),
        ("custom", 400, {"error": "temporarily_unavailable"}, "temporarily_unavailable", True),
        ("custom", 200, {"error": "invalid_client"}, "invalid_client", False),
        ("custom", 400, {"error": "the token abc123 is unknown"}, "unrecognised_error", False),
        ("custom", 400, {"error": ["a"]}, "unrecognised_error", False),
        ("custom", 400, {"error": {".tag": 7}}, "unrecognised_error", False),
        ("custom", 302, b"", "http_302", False),
        ("custom", 404, b"<html>", "http_404", False),
        ("custom", 408, b"", "http_408", True),
        ("custom", 425, b"", "http_425", True),
        ("custom", 429, b"", "http_429", True),
        ("custom", 500, b"", "http_500", True),
        ("custom", 502, b"<html>", "http_502", True),
        # A gateway's JSON says nothing about the token.
        ("custom", 503, {"error": "invalid_token"}, "invalid_token", True),
        ("github", 401, {"message": "Bad credentials"}, "http_401", False),
        ("github", 403, {"message": "API rate limit exceeded"}, "http_403", False),
        ("slack", 200, {"ok": False}, "http_200", False),
        ("slack", 200, {"ok": False, "error": "not_authed"}, "not_authed", False),
        ("slack", 200, {"ok": False, "error": "fatal_error"}, "fatal_error", True),
        ("slack", 200, {"ok": False, "error": "ratelimited"}, "ratelimited", True),
        ("dropbox", 401, {"error": {".tag": "expired_access_token"}}, "expired_access_token", False),
        ("stripe", 401, {"error": "invalid_client"}, "invalid_client", False),
    ],
)
def test_a_token_that_is_not_over_fails_with_a_code(provider, status, body, code, retryable):
    with pytest.raises(RevocationFailed) as failed:
        read(provider, status, body)
    assert (failed.value.code, failed.value.retryable) == (code, retryable)


def test_a_pause_that_the_provider_asks_for_is_told():
    with pytest.raises(RevocationFailed) as failed:
        read("custom", 503, Retry_After="120")
    assert failed.value.retry_after == 120


bodies = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["error", "ok", ".tag", "x"]), inner, max_size=3)
        ),
        max_leaves=6,
    ).map(lambda document: json.dumps(document).encode()),
    st.just(b"[" * 100_000),
)


@given(provider=st.sampled_from(["custom", "github", "slack", "dropbox"]), status=st.integers(100, 599), body=bodies)
def test_whatever_is_answered_is_a_success_or_a_failure(provider, status, body):
    with suppress(RevocationFailed):
        read(provider, status, body)
        assert status < 500
