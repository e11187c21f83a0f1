"""`GET /v1/providers`: the presets as data."""

from __future__ import annotations

from typing import Any

import pytest

from knoxcall.api.errors import ValidationFailed
from oauth_app.configure import Configuration
from oauth_app.models import ClientRegistration, GrantType
from oauth_app.protocol.client import OAuthClient
from oauth_app.providers import PROVIDERS
from tests.factories import Caller
from tests.oauth_app.test_change_client import given_for

FIELDS = {
    "name",
    "label",
    "documentation",
    "note",
    "grant_types",
    "variables",
    "auth_url",
    "token_url",
    "scopes",
    "offline_scopes",
    "client_credentials_scopes",
    "scope_separator",
    "authorize_params",
    "token_params",
    "token_auth_method",
    "pkce",
    "replay_policy",
    "default_expires_in",
    "refresh_token_idle",
    "refresh_token_lifetime",
    "revocation",
}


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.fixture
def rows(caller) -> list[dict[str, Any]]:
    answer = caller.get("/v1/providers")
    assert answer.status_code == 200
    assert set(answer.json()["meta"]) == {"request_id"}
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


def test_every_preset_is_listed_without_pages(caller, rows):
    names = [row["name"] for row in rows]
    assert names == list(PROVIDERS)
    assert {"google", "github", "salesforce", "microsoft", "slack", "custom"} <= set(names)
    assert all(set(row) == FIELDS for row in rows)
    assert all(row["documentation"].startswith(("https://", "RFC ")) for row in rows)
    assert all(row["label"] for row in rows)
    assert caller.get("/v1/providers?page=2").json()["data"] == rows


def test_a_create_call_that_says_nothing_else_uses_what_is_listed(caller, rows):
    for row in rows:
        name = row["name"]
        given = given_for(name, "authorization_code")
        answer = caller.post("/v1/secrets/oauth2", {"name": name, "provider": name, **given})
        assert answer.status_code == 201, answer.content
        registration = ClientRegistration.objects.get(pk=answer.json()["data"]["id"])
        client = OAuthClient.from_document(registration.document.open())
        assert (list(client.scopes), client.scope_separator) == (row["scopes"], row["scope_separator"])
        assert (client.authorize_params, client.token_params) == (row["authorize_params"], row["token_params"])
        assert (client.token_auth_method, client.pkce) == (row["token_auth_method"], row["pkce"])
        assert (client.replay_policy, client.default_expires_in) == (row["replay_policy"], row["default_expires_in"])
        variables = {v["name"]: given.get(v["name"], v["default"]) for v in row["variables"]}
        assert client.variables == variables
        if name != "custom":
            assert client.auth_url == row["auth_url"].format(**variables)
            assert client.token_url == row["token_url"].format(**variables)


def test_a_variable_without_a_default_is_required(caller, rows):
    for row in rows:
        required = {variable["name"] for variable in row["variables"] if variable["default"] is None}
        if not required:
            continue
        given = {name: v for name, v in given_for(row["name"], "authorization_code").items() if name not in required}
        body = {"name": row["name"], "provider": row["name"], **given}
        answer = caller.post("/v1/secrets/oauth2", body)
        assert set(answer.json()["fields"]) == required


def test_only_the_grants_that_are_listed_are_offered(caller, rows):
    for row in rows:
        for grant in GrantType:
            configuration = Configuration(
                provider=PROVIDERS[row["name"]], grant=grant, given=given_for(row["name"], grant)
            )
            if grant in row["grant_types"]:
                assert configuration.client(caller.account.pk).grant_type == grant
                continue
            with pytest.raises(ValidationFailed) as refusal:
                configuration.client(caller.account.pk)
            assert "grant_type" in refusal.value.fields


def test_an_unknown_provider_is_told_the_known_ones(caller):
    body = {"name": "x", "provider": "myspace", "client_id": "id", "client_secret": "secret"}
    for answer in (caller.post("/v1/secrets/oauth2", body), caller.get("/v1/secrets?provider=myspace")):
        assert answer.status_code == 400
        assert all(name in answer.json()["fields"]["provider"][0] for name in PROVIDERS)


def test_a_key_is_needed(caller):
    assert Caller(caller.account, role="read_only").get("/v1/providers").status_code == 200
    assert caller.client.get("/v1/providers").status_code == 401
    assert caller.post("/v1/providers", {}).status_code == 405
