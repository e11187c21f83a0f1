"""The real provider does what the vault is tried against: PKCE, rotation, and an end to grants that are replayed."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from oauthlib.oauth2 import MobileApplicationClient, WebApplicationClient

from tests.support.browser import Browser
from tests.support.dot_provider import DotProvider

# Nobody listens there: the browser's last step is read from its redirect.
REDIRECT_URI = "http://127.0.0.1:1/callback"


@pytest.fixture(autouse=True)
def plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    # The client refuses to build an http URL; on loopback it is all there is.
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


def ask(http: requests.Session, dot: DotProvider, credentials: tuple[str, str], **form: str) -> requests.Response:
    return http.post(dot.token_url, data=form, auth=credentials, timeout=10)


def person(dot: DotProvider) -> tuple[str, str]:
    """Username and password of somebody new."""
    username, password = f"ada-{secrets.token_hex(4)}", secrets.token_urlsafe(12)
    dot.create_user(username, password)
    return username, password


def tokens_of_somebody(http: requests.Session, dot: DotProvider, **terms: object) -> tuple[tuple[str, str], dict]:
    """The credentials of an application, and the first tokens it got for a person's password."""
    credentials = dot.create_application("password", **terms)
    username, password = person(dot)
    answer = ask(http, dot, credentials, grant_type="password", username=username, password=password)
    assert answer.status_code == 200
    return credentials, answer.json()


def consent(dot: DotProvider, url: str, *, allow: bool = True) -> str:
    """Sign in, decide, and return the URL that the provider redirects to."""
    browser = Browser()
    login = browser.open(url)
    assert login.title == "Sign in to the provider"
    username, password = person(dot)
    page = browser.submit(login, "login", username=username, password=password)
    with pytest.raises(ConnectionRefusedError):
        browser.submit(page, "authorizationForm", click="allow" if allow else "Cancel")
    return browser.address


def test_a_code_is_had_with_consent_and_exchanged_with_its_verifier(http: requests.Session, dot: DotProvider) -> None:
    credentials = dot.create_application(redirect_uri=REDIRECT_URI)
    client = WebApplicationClient(credentials[0])
    verifier = client.create_code_verifier(64)
    challenge = client.create_code_challenge(verifier, "S256")
    url = client.prepare_request_uri(
        dot.authorize_url, REDIRECT_URI, ["read"], "state", code_challenge=challenge, code_challenge_method="S256"
    )

    back = {name: value for name, [value] in parse_qs(urlsplit(consent(dot, url)).query).items()}
    exchange = {"grant_type": "authorization_code", "code": back["code"], "redirect_uri": REDIRECT_URI}
    unproven = ask(http, dot, credentials, **exchange, code_verifier="another" * 10)
    tokens = ask(http, dot, credentials, **exchange, code_verifier=verifier).json()

    assert (back["state"], back["iss"]) == ("state", dot.issuer)
    assert unproven.json()["error"] == "invalid_grant"
    assert (tokens["token_type"], tokens["expires_in"], tokens["scope"]) == ("Bearer", 3600, "read")
    assert dot.is_live(tokens["access_token"])
    assert (dot.issued(credentials[0]), dot.access_tokens(credentials[0])) == (1, 1)


def test_consent_that_is_refused_comes_back_as_an_error(dot: DotProvider) -> None:
    client_id, _ = dot.create_application(redirect_uri=REDIRECT_URI, pkce_required=False)
    url = WebApplicationClient(client_id).prepare_request_uri(dot.authorize_url, REDIRECT_URI, state="s")
    back = parse_qs(urlsplit(consent(dot, url, allow=False)).query)
    assert (back["error"], back["state"]) == (["access_denied"], ["s"])


def test_a_code_needs_a_challenge_unless_the_application_is_let_off(dot: DotProvider) -> None:
    client_id, _ = dot.create_application(redirect_uri="")
    dot.set_redirect_uri(client_id, REDIRECT_URI)
    url = WebApplicationClient(client_id).prepare_request_uri(dot.authorize_url, REDIRECT_URI)
    username, password = person(dot)
    browser = Browser()
    login = browser.open(url)

    with pytest.raises(ConnectionRefusedError):
        browser.submit(login, username=username, password=password)

    assert "error=invalid_request" in browser.address


def test_an_implicit_token_comes_in_the_fragment(dot: DotProvider) -> None:
    client_id, _ = dot.create_application("implicit", redirect_uri=REDIRECT_URI, confidential=False)
    back = consent(dot, MobileApplicationClient(client_id).prepare_request_uri(dot.authorize_url, REDIRECT_URI))
    assert dot.is_live(parse_qs(urlsplit(back).fragment)["access_token"][0])


def test_client_credentials_bring_a_token(http: requests.Session, dot: DotProvider) -> None:
    credentials = dot.create_application("client-credentials", access_token_seconds=8)
    answer = ask(http, dot, credentials, grant_type="client_credentials", scope="read write").json()
    assert (answer["expires_in"], answer["scope"]) == (8, "read write")
    assert dot.is_live(answer["access_token"])
    assert "refresh_token" not in answer


def test_wrong_credentials_are_refused(http: requests.Session, dot: DotProvider) -> None:
    client_id, _ = dot.create_application("client-credentials")
    answer = ask(http, dot, (client_id, "wrong"), grant_type="client_credentials")
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_a_refresh_rotates_both_tokens(http: requests.Session, dot: DotProvider) -> None:
    credentials, first = tokens_of_somebody(http, dot)

    second = ask(http, dot, credentials, grant_type="refresh_token", refresh_token=first["refresh_token"]).json()

    assert second["refresh_token"] != first["refresh_token"]
    assert dot.is_live(second["access_token"])
    assert not dot.is_live(first["access_token"])
    assert (dot.issued(credentials[0]), dot.access_tokens(credentials[0])) == (2, 1)


def test_a_refresh_token_that_comes_twice_ends_the_grant(http: requests.Session, dot: DotProvider) -> None:
    credentials, first = tokens_of_somebody(http, dot)
    spent = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    second = ask(http, dot, credentials, **spent).json()

    assert ask(http, dot, credentials, **spent).json()["error"] == "invalid_grant"

    latest = ask(http, dot, credentials, grant_type="refresh_token", refresh_token=second["refresh_token"])
    assert latest.json()["error"] == "invalid_grant"
    assert not dot.is_live(second["access_token"])


def test_of_concurrent_uses_of_a_refresh_token_one_is_served(dot: DotProvider) -> None:
    with requests.Session() as http:
        http.trust_env = False
        credentials, first = tokens_of_somebody(http, dot)
        spent = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}

        with ThreadPoolExecutor(6) as pool:
            statuses = list(pool.map(lambda _: ask(http, dot, credentials, **spent).status_code, range(6)))

    assert sorted(statuses) == [200] + [400] * 5
    assert dot.issued(credentials[0]) == 2


def test_grants_can_be_ended_by_the_provider(http: requests.Session, dot: DotProvider) -> None:
    credentials, tokens = tokens_of_somebody(http, dot)
    others, of_others = tokens_of_somebody(http, dot)

    assert dot.revoke_refresh_tokens(credentials[0]) == 1

    form = {"grant_type": "refresh_token"}
    dead = ask(http, dot, credentials, **form, refresh_token=tokens["refresh_token"])
    alive = ask(http, dot, others, **form, refresh_token=of_others["refresh_token"])
    assert (dead.json()["error"], alive.status_code) == ("invalid_grant", 200)
    assert not dot.is_live(tokens["access_token"])


def test_tokens_expire_when_the_server_says(http: requests.Session) -> None:
    with DotProvider(access_token_seconds=1) as short_lived:
        _, tokens = tokens_of_somebody(http, short_lived)
        assert tokens["expires_in"] == 1
        deadline = time.monotonic() + 5
        while short_lived.is_live(tokens["access_token"]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
