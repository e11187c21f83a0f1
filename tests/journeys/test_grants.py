"""The main job, end to end, against an OAuth2 server that is not ours: create, connect, read, and watch it stay fresh."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.support.browser import Browser
from tests.support.dot_provider import DotProvider
from tests.support.vaults import Vault


@pytest.fixture
def ada(dot: DotProvider) -> tuple[str, str]:
    """Somebody with an account at the provider."""
    name, password = f"ada-{secrets.token_hex(4)}", secrets.token_urlsafe(12)
    dot.create_user(name, password)
    return name, password


def body_for(dot: DotProvider, client: tuple[str, str], **further: Any) -> dict[str, Any]:
    return {
        "name": f"journey {secrets.token_hex(4)}",
        "provider": "custom",
        "client_id": client[0],
        "client_secret": client[1],
        "auth_url": dot.authorize_url,
        "token_url": dot.token_url,
        **further,
    }


def connected_by_consent(
    vault: Vault, dot: DotProvider, browser: Browser, ada: tuple[str, str], **application: Any
) -> str:
    """Create a secret, open its redirect URI as a person would, sign in and say yes; returns the secret's id."""
    client = dot.create_application("authorization-code", **application)
    secret = vault.create_oauth2(**body_for(dot, client, scopes=["read"]))
    assert secret["connection_status"] == "not_connected"
    dot.set_redirect_uri(client[0], secret["redirect_uri"])
    page = browser.open(secret["redirect_uri"])
    page = browser.submit(page, "login", username=ada[0], password=ada[1])
    page = browser.submit(page, "authorizationForm", click="allow")
    assert page.status == 200, page.text
    assert page.url.startswith(secret["redirect_uri"])
    return str(secret["id"])


def eventually(look: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)
    return seen


def status_of(vault: Vault, secret_id: str) -> str:
    row = vault.call("GET", f"/v1/secrets/{secret_id}").json()["data"]
    return str(row["connection_status"])


def test_authorization_code_with_pkce(vault, dot, browser, ada):
    secret_id = connected_by_consent(vault, dot, browser, ada, pkce_required=True)
    token = vault.token(secret_id)
    assert dot.is_live(token["access_token"])
    assert token["connection_status"] == "connected"
    assert token["scopes"] == ["read"]
    row = vault.call("GET", f"/v1/secrets/{secret_id}").json()["data"]
    assert row["connection_status"] == "connected"


def test_a_person_who_cancels_connects_nothing(vault, dot, browser, ada):
    client = dot.create_application("authorization-code")
    secret = vault.create_oauth2(**body_for(dot, client))
    dot.set_redirect_uri(client[0], secret["redirect_uri"])
    page = browser.open(secret["redirect_uri"])
    page = browser.submit(page, "login", username=ada[0], password=ada[1])
    page = browser.submit(page, "authorizationForm", click="Cancel")
    assert page.url.startswith(secret["redirect_uri"])
    answer = vault.call("GET", f"/v1/secrets/{secret['id']}/oauth2/token")
    assert answer.json()["error"]["reason"] == "not_connected"


def test_client_credentials(vault, dot):
    client = dot.create_application("client-credentials")
    secret = vault.create_oauth2(**body_for(dot, client, grant_type="client_credentials"))
    assert secret["connection_status"] == "connected"
    assert dot.is_live(vault.token(secret["id"])["access_token"])


def test_password(vault, dot, ada):
    client = dot.create_application("password")
    person = {"username": ada[0], "password": ada[1]}
    secret = vault.create_oauth2(**body_for(dot, client, grant_type="password", **person))
    assert secret["connection_status"] == "connected"
    assert dot.is_live(vault.token(secret["id"])["access_token"])


def test_a_wrong_password_is_said_at_once(vault, dot, ada):
    client = dot.create_application("password")
    person = {"username": ada[0], "password": "wrong"}
    secret = vault.create_oauth2(**body_for(dot, client, grant_type="password", **person))
    assert secret["connection_status"] != "connected"
    assert secret["connection_error"]["code"] == "invalid_grant"


def test_the_worker_keeps_a_rotating_token_fresh_for_five_generations(vault, dot, browser, ada):
    secret_id = connected_by_consent(vault, dot, browser, ada, access_token_seconds=3)
    started = time.monotonic()
    seen = {}

    def generations() -> bool:
        # Only looks: the token is valid at every look, so no read of ours renews it.
        token = vault.token(secret_id)
        assert token["expires_in"] >= 0
        assert "refresh_error" not in token
        seen[token["generation"]] = token["access_token"]
        return token["generation"] >= 6

    eventually(generations, seconds=45)
    assert len(seen) >= 5
    assert dot.is_live(seen[max(seen)])
    # Reuse protection is on: one reuse would have ended the grant.
    assert time.monotonic() - started > 5


def test_a_grant_that_the_provider_revoked_asks_for_a_person(vault, dot, browser, ada):
    secret_id = connected_by_consent(vault, dot, browser, ada, access_token_seconds=3)
    dot.revoke_refresh_tokens()

    eventually(lambda: status_of(vault, secret_id) == "reauthorization_required")
    # The access token is served to its end, then the reason is said.
    eventually(lambda: vault.call("GET", f"/v1/secrets/{secret_id}/oauth2/token").status_code == 500)
    answer = vault.call("GET", f"/v1/secrets/{secret_id}/oauth2/token")
    assert answer.json()["error"]["reason"] == "reauthorization_required"


def test_implicit(vault, dot, browser, ada):
    client = dot.create_application("implicit", confidential=False, access_token_seconds=5)
    body = body_for(dot, client, grant_type="implicit", scopes=["read"])
    del body["client_secret"], body["token_url"]
    secret = vault.create_oauth2(**body)
    dot.set_redirect_uri(client[0], secret["redirect_uri"])
    address = secret["redirect_uri"]
    page = browser.open(address)
    assert (page.status, page.url) == (200, address)
    # What the page's script does: without a fragment it starts, with one it posts it and goes where it is told.
    page = browser.open(f"{address}?start=1")
    page = browser.submit(page, "login", username=ada[0], password=ada[1])
    page = browser.submit(page, "authorizationForm", click="allow")
    assert page.url.startswith(f"{address}#")
    handed = browser.fetch(page, address, body=dict(parse_qsl(urlsplit(page.url).fragment)))
    page = browser.open(json.loads(handed.html)["next"])
    assert (page.status, urlsplit(page.url).fragment) == (200, ""), page.text
    token = vault.token(secret["id"])
    assert dot.is_live(token["access_token"])
    assert token["access_token"] not in page.html + page.url + handed.html + vault.house.output
    # Nothing can renew it: at its end the worker says so, without being asked.
    eventually(lambda: status_of(vault, secret["id"]) == "reauthorization_required")


def test_a_consent_link_brings_back_a_grant_that_was_revoked(vault, dot, browser, ada):
    secret_id = connected_by_consent(vault, dot, browser, ada, access_token_seconds=3)
    before = vault.call("GET", f"/v1/secrets/{secret_id}").json()["data"]
    dot.revoke_refresh_tokens()
    eventually(lambda: status_of(vault, secret_id) == "reauthorization_required")
    link = vault.call("POST", f"/v1/secrets/{secret_id}/oauth2/authorize", {}).json()["data"]["authorize_url"]
    # The same person, who is still signed in there.
    page = browser.submit(browser.open(link), "authorizationForm", click="allow")
    assert page.status == 200, page.text
    assert dot.is_live(vault.token(secret_id)["access_token"])
    assert vault.call("GET", f"/v1/secrets/{secret_id}").json()["data"] == before
    assert browser.open(link).status == 410
