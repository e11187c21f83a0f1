"""The shapes of the fake provider: what each provider's token endpoint does, and that the vault gets on with it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from django.test import Client

from oauth_app.fake_provider import FakeProvider
from oauth_app.fake_provider.guide import secret_for
from oauth_app.fake_provider.shapes import SHAPES
from tests.factories import Caller
from tests.support.fake_client import REDIRECT_URI, ask, consent, refresh


def shaped(name: str, **switches: Any) -> FakeProvider:
    return FakeProvider(**{**SHAPES[name].switches, **switches})


def first_answer(http: requests.Session, provider: FakeProvider, scope: str, **parameters: str) -> dict[str, Any]:
    back = consent(http, provider, scope=scope, **parameters)
    exchange = {"grant_type": "authorization_code", "code": back["code"], "redirect_uri": REDIRECT_URI}
    answer = ask(http, provider, **exchange)
    assert answer.status_code == 200
    if "form-urlencoded" in answer.headers["Content-Type"]:
        return dict(parse_qsl(answer.text))
    fields: dict[str, Any] = answer.json()
    return fields


def test_google_keeps_its_refresh_token_and_ends_the_grant_when_one_is_revoked(http: requests.Session) -> None:
    with shaped("google") as provider:
        first = first_answer(http, provider, "openid email profile")
        second = refresh(http, provider, first).json()
        revoked = http.post(provider.revoke_url, data={"token": second["access_token"]}, timeout=5)
        after = refresh(http, provider, first).json()

    assert set(first) == {"access_token", "expires_in", "scope", "token_type", "refresh_token", "id_token"}
    assert set(second) == set(first) - {"refresh_token"}
    assert (first["expires_in"], revoked.status_code, after["error"]) == (3599, 200, "invalid_grant")


def test_github_answers_form_encoded_and_reports_errors_with_200(http: requests.Session) -> None:
    with shaped("github") as provider:
        first = first_answer(http, provider, "read:user user:email")
        http.headers["Accept"] = "application/json"
        second = refresh(http, provider, first)
        replay = refresh(http, provider, first)
        unknown = ask(http, provider, grant_type="authorization_code", code="x", redirect_uri=REDIRECT_URI)
        lives = [provider.is_live(token) for token in (first["access_token"], second.json()["access_token"])]

    assert first["scope"] == "read:user,user:email"
    assert (first["expires_in"], first["refresh_token_expires_in"]) == ("28800", "15897600")
    assert second.json()["expires_in"] == 28_800
    assert (replay.status_code, replay.json()["error"]) == (200, "bad_refresh_token")
    assert (unknown.status_code, unknown.json()["error"]) == (200, "bad_verification_code")
    assert lives == [False, True]


def test_salesforce_names_no_lifetime_and_ends_the_grant_at_a_replay(http: requests.Session) -> None:
    with shaped("salesforce") as provider:
        first = first_answer(http, provider, "api refresh_token")
        second = refresh(http, provider, first).json()
        errors = [refresh(http, provider, tokens).json()["error"] for tokens in (first, second)]

    assert "expires_in" not in first
    assert first["instance_url"] == provider.base_url
    assert first["id"].startswith(f"{provider.base_url}/id/")
    assert re.fullmatch(r"\d{13}", first["issued_at"])
    assert second["refresh_token"] != first["refresh_token"]
    assert errors == ["invalid_grant", "invalid_grant"]


def test_microsoft_renews_and_never_names_offline_access(http: requests.Session) -> None:
    with shaped("microsoft") as provider:
        online = first_answer(http, provider, "openid User.Read")
        first = first_answer(http, provider, "openid offline_access User.Read")
        second = refresh(http, provider, first).json()
        again = refresh(http, provider, first)

    assert "refresh_token" not in online
    assert (first["scope"], first["ext_expires_in"]) == ("openid User.Read", 3599)
    assert second["refresh_token"] != first["refresh_token"]
    assert again.status_code == 200


@pytest.mark.parametrize(
    ("parameters", "bot", "user"),
    [
        ({"scope": "chat:write,users:read"}, "chat:write,users:read", None),
        ({"scope": "chat:write", "user_scope": "search:read"}, "chat:write", "search:read"),
        ({"scope": "", "user_scope": "search:read"}, None, "search:read"),
    ],
)
def test_slack_has_a_bot_and_a_user(
    http: requests.Session, parameters: dict[str, str], bot: str | None, user: str | None
) -> None:
    with shaped("slack") as provider:
        first = first_answer(http, provider, **parameters)

    nested = first["authed_user"]
    assert (first.get("scope"), nested.get("scope")) == (bot, user)
    assert ("access_token" in first, "access_token" in nested) == (bot is not None, user is not None)
    assert (first["ok"], first["team"]["name"], nested["id"]) == (True, "Rehearsal", "U000000002")
    assert (first if bot else nested)["expires_in"] == 43_200


def test_slack_reports_errors_with_ok_false(http: requests.Session) -> None:
    with shaped("slack") as provider:
        first = first_answer(http, provider, "chat:write")
        second = refresh(http, provider, first).json()
        replay = refresh(http, provider, first)
        after = refresh(http, provider, second).json()

    assert second["ok"] is True
    assert "authed_user" not in second
    assert (replay.status_code, replay.json()) == (
        200,
        {"ok": False, "error": "invalid_refresh_token", "error_description": "The refresh token was used before."},
    )
    assert after["ok"] is True


@pytest.mark.parametrize("name", [None, *SHAPES])
@pytest.mark.django_db
def test_the_vault_connects_to_every_shape_by_the_secret_that_is_printed(
    http: requests.Session, name: str | None
) -> None:
    caller, browser = Caller(), Client()
    with FakeProvider(**(SHAPES[name].switches if name else {})) as provider:
        created = caller.post("/v1/secrets/oauth2", secret_for(provider, name))
        assert created.status_code == 201, created.content
        secret = created.json()["data"]
        started = browser.get(urlsplit(secret["redirect_uri"]).path)
        back = urlsplit(http.get(started["Location"], allow_redirects=False, timeout=5).headers["Location"])
        assert browser.get(f"{back.path}?{back.query}").status_code == 200
        first = caller.get(f"/v1/secrets/{secret['id']}/oauth2/token").json()["data"]
        assert first["connection_status"] == "connected"
        assert provider.is_live(first["access_token"])
