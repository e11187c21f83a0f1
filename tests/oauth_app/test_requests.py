"""What is sent to providers, looked at as the bytes that leave."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.requests import (
    authorization_url,
    code_request,
    grant_request,
    new_code_verifier,
    refresh_request,
)
from oauth_app.providers import PROVIDERS, TokenAuthMethod
from secrets_app.crypto.cipher import Plaintext


def a_client(**further) -> OAuthClient:
    values = {
        "provider": "custom",
        "grant_type": "authorization_code",
        "client_id": "the id",
        "client_secret": "s:e/c&r=et",
        "auth_url": "https://p.example/authorize",
        "token_url": "https://p.example/token",
        "scopes": ("a", "b"),
        **further,
    }
    return OAuthClient(**values)


def form(request) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode()))


def test_the_authorization_address_carries_state_challenge_and_redirect_uri():
    verifier = new_code_verifier()
    url = authorization_url(a_client(), redirect_uri="https://v/cb", state="st", code_verifier=verifier)
    query = parse_qs(urlsplit(url).query)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    assert query == {
        "response_type": ["code"],
        "client_id": ["the id"],
        "redirect_uri": ["https://v/cb"],
        "scope": ["a b"],
        "state": ["st"],
        "code_challenge": [challenge],
        "code_challenge_method": ["S256"],
    }


def test_a_code_verifier_has_43_to_128_unreserved_characters():
    verifier = new_code_verifier()
    assert 43 <= len(verifier) <= 128
    assert verifier != new_code_verifier()


def test_a_query_of_the_configured_address_survives_with_its_repeated_parameters():
    client = a_client(auth_url="https://p.example/authorize?resource=a&resource=b&x=")
    url = authorization_url(client, redirect_uri="https://v/cb", state="st", code_verifier=None)
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    assert [pair for pair in pairs if pair[0] == "resource"] == [("resource", "a"), ("resource", "b")]
    assert ("x", "") in pairs


def test_extra_authorize_params_are_sent():
    client = a_client(authorize_params={"access_type": "offline"})
    url = authorization_url(client, redirect_uri="https://v/cb", state="st", code_verifier=None)
    assert parse_qs(urlsplit(url).query)["access_type"] == ["offline"]


def test_slack_separates_scopes_with_commas():
    client = a_client(provider="slack", scope_separator=",")
    url = authorization_url(client, redirect_uri="https://v/cb", state="st", code_verifier=None)
    assert parse_qs(urlsplit(url).query)["scope"] == ["a,b"]


def test_basic_authentication_encodes_both_parts_before_it_joins_them():
    request = refresh_request(a_client(), Plaintext("r"))
    decoded = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
    assert decoded == "the+id:s%3Ae%2Fc%26r%3Det"
    assert "client_secret" not in form(request)
    assert "client_id" not in form(request)


def test_post_authentication_puts_both_in_the_body():
    request = refresh_request(a_client(token_auth_method=TokenAuthMethod.POST), Plaintext("r"))
    assert "Authorization" not in request.headers
    assert form(request)["client_id"] == "the id"
    assert form(request)["client_secret"] == "s:e/c&r=et"


def test_a_public_client_says_only_who_it_is():
    client = a_client(token_auth_method=TokenAuthMethod.NONE, client_secret=None)
    request = code_request(client, code="c", redirect_uri="https://v/cb", code_verifier="v")
    assert form(request) == {
        "grant_type": "authorization_code",
        "client_id": "the id",
        "code": "c",
        "redirect_uri": "https://v/cb",
        "code_verifier": "v",
    }


def test_a_refresh_sends_the_scope_only_where_the_preset_wants_it():
    assert "scope" not in form(refresh_request(a_client(), Plaintext("r")))
    assert form(refresh_request(a_client(provider="microsoft"), Plaintext("r")))["scope"] == "a b"


@pytest.mark.parametrize(
    ("granted", "sent"),
    [
        (["a", "b"], "a b"),
        (["https://graph.microsoft.com/a"], "a"),
        (["c"], None),
        (None, "a b"),
    ],
)
def test_a_refresh_asks_for_nothing_that_was_not_granted(granted, sent):
    request = refresh_request(a_client(provider="microsoft"), Plaintext("r"), granted=granted)
    assert form(request).get("scope") == sent


def test_token_params_go_with_every_token_request():
    client = a_client(token_params={"audience": "api"})
    assert form(refresh_request(client, Plaintext("r")))["audience"] == "api"
    assert form(code_request(client, code="c", redirect_uri="u", code_verifier=None))["audience"] == "api"
    assert (
        form(grant_request(a_client(grant_type="client_credentials", token_params={"audience": "api"})))["audience"]
        == "api"
    )


def test_the_two_repeatable_grants():
    assert form(grant_request(a_client(grant_type="client_credentials"))) == {
        "grant_type": "client_credentials",
        "scope": "a b",
    }
    client = a_client(grant_type="password", username="ada", password="pw&=")
    assert form(grant_request(client)) == {
        "grant_type": "password",
        "username": "ada",
        "password": "pw&=",
        "scope": "a b",
    }


def test_a_grant_that_needs_a_person_is_not_repeated():
    with pytest.raises(ValueError, match="person"):
        grant_request(a_client())


def test_nothing_secret_prints():
    client = a_client(password="pw-sesame", username="u-sesame")
    for thing in (client, refresh_request(client, Plaintext("r-sesame"))):
        assert "sesame" not in repr(thing)
        assert "s:e/c" not in repr(thing)


def test_a_client_survives_its_document():
    client = a_client(
        grant_type="password", username="u", password="p", authorize_params={"x": "y"}, default_expires_in=60
    )
    assert OAuthClient.from_document(client.to_document()) == client


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://P.example/token", "p.example"),
        ("https://p.example:443/token", "p.example"),
        ("https://p.example:8443/token", "p.example:8443"),
        ("http://127.0.0.1:9000/token", "127.0.0.1:9000"),
    ],
)
def test_the_token_host_names_an_unusual_port(url, host):
    assert a_client(token_url=url).token_host == host


def test_presets_are_what_the_providers_document():
    documented = {
        "google": ("client_secret_post", True, "safe", " ", None),
        "github": ("client_secret_post", True, "safe", " ", None),
        "salesforce": ("client_secret_post", True, "never", " ", 3600),
        "microsoft": ("client_secret_post", True, "safe", " ", None),
        "slack": ("client_secret_basic", False, "one_try", ",", None),
        "airtable": ("client_secret_basic", True, "never", " ", None),
        "asana": ("client_secret_post", True, "safe", " ", None),
        "calendly": ("client_secret_basic", True, "one_try", " ", None),
        "discord": ("client_secret_basic", True, "one_try", " ", None),
        "docusign": ("client_secret_basic", True, "one_try", " ", None),
        "figma": ("client_secret_basic", True, "safe", " ", None),
        "intercom": ("client_secret_post", False, "one_try", " ", None),
        "linkedin": ("client_secret_post", False, "safe", " ", None),
        "reddit": ("client_secret_basic", False, "safe", " ", None),
        "spotify": ("client_secret_basic", False, "safe", " ", None),
        "twitch": ("client_secret_post", False, "safe", " ", None),
        "zendesk": ("client_secret_post", True, "safe", " ", None),
        "custom": ("client_secret_basic", True, "one_try", " ", None),
    }
    for name, facts in documented.items():
        preset = PROVIDERS[name]
        said = (preset.token_auth_method, preset.pkce, preset.replay_policy, preset.scope_separator)
        assert (*said, preset.default_expires_in) == facts, name
