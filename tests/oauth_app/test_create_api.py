"""`POST /v1/secrets/oauth2`: what it takes, what it refuses and how, and what it leaves behind."""

from __future__ import annotations

from typing import Any

import pytest

from oauth_app.fake_provider import Answer
from oauth_app.models import ClientRegistration, Connection
from oauth_app.protocol.client import OAuthClient
from secrets_app.models import Secret
from tests.factories import Caller, an_account

PATH = "/v1/secrets/oauth2"


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.fixture
def body(provider) -> dict[str, Any]:
    """A custom provider with a browser grant: the smallest body of that kind."""
    return {
        "name": "crm",
        "provider": "custom",
        "client_id": provider.client_id,
        "client_secret": provider.client_secret,
        "auth_url": provider.authorize_url,
        "token_url": provider.token_url,
    }


def preset(provider: str, **further: Any) -> dict[str, Any]:
    return {"name": provider, "provider": provider, "client_id": "id", "client_secret": "secret", **further}


def client_of(answer: Any) -> OAuthClient:
    registration = ClientRegistration.objects.get(pk=answer.json()["data"]["id"])
    return OAuthClient.from_document(registration.document.open())


def refused(caller: Caller, body: Any) -> dict[str, list[str]]:
    """Post ``body``, see that it is refused and leaves nothing; returns the fields that were named."""
    answer = caller.post(PATH, body)
    assert answer.status_code == 400, answer.content
    assert answer.json()["error"]["type"] == "validation_error"
    assert not Secret.objects.exists()
    fields: dict[str, list[str]] = answer.json()["fields"]
    return fields


def test_a_browser_grant_is_created_unconnected(caller, body, provider):
    answer = caller.post(PATH, body)
    assert answer.status_code == 201
    data = answer.json()["data"]
    expected = {
        "name": "crm",
        "shortcode_name": "crm",
        "secret_type": "oauth2",
        "provider": "custom",
        "grant_type": "authorization_code",
        "redirect_uri": f"http://localhost:8000/auth/oauth2/callback/{data['id']}",
        "connection_status": "not_connected",
        "base_environment": "production",
        "collection_id": None,
        "mtls_certificate_id": None,
    }
    assert expected.items() <= data.items()
    assert "connection_error" not in data
    assert provider.requests == []


def test_the_common_create_call_takes_the_same_body(caller, body):
    answer = caller.post("/v1/secrets", {**body, "secret_type": "oauth2"})
    assert answer.status_code == 201
    assert answer.json()["data"]["secret_type"] == "oauth2"


@pytest.mark.parametrize("grant", ["client_credentials", "password"])
def test_a_grant_without_browser_is_connected_inside_the_call(caller, body, provider, grant):
    person = {"username": provider.username, "password": provider.password} if grant == "password" else {}
    answer = caller.post(PATH, {**body, "grant_type": grant, **person})
    assert answer.status_code == 201
    assert answer.json()["data"]["connection_status"] == "connected"
    assert provider.count(grant) == 1


@pytest.mark.parametrize(
    ("fault", "status", "retryable"),
    [
        (Answer.error("invalid_client", status=401), "refresh_failing", False),
        (Answer.busy(503), "refresh_failing", True),
        (Answer.html(502), "refresh_failing", True),
        (Answer.error("invalid_grant"), "reauthorization_required", False),
    ],
)
def test_a_first_fetch_that_fails_keeps_the_secret_and_says_why(caller, body, provider, fault, status, retryable):
    provider.answer = fault
    body |= {"grant_type": "password", "username": "u", "password": "p"}
    answer = caller.post(PATH, body, X_Idempotency_Key="once")
    assert answer.status_code == 201
    data = answer.json()["data"]
    assert data["connection_status"] == status
    assert set(data["connection_error"]) == {"code", "message", "retryable"}
    assert data["connection_error"]["retryable"] is retryable
    again = caller.post(PATH, body, X_Idempotency_Key="once")
    assert again.json()["data"]["id"] == data["id"]
    assert Secret.objects.count() == 1


def test_a_wrong_password_is_called_that(caller, body, provider):
    body |= {"grant_type": "password", "username": provider.username, "password": "wrong"}
    error = caller.post(PATH, body).json()["data"]["connection_error"]
    assert error["code"] == "invalid_grant"
    assert "password" in error["message"]


def test_a_plan_without_oauth2_is_403(db, body):
    for plan in ("free", "starter"):
        answer = Caller(an_account(plan=plan)).post(PATH, body)
        assert answer.status_code == 403
        assert answer.json()["error"]["type"] == "plan_limit"
        assert answer.json()["error"]["limit"]["plan"] == plan
    assert not Secret.objects.exists()


def test_a_name_that_is_taken_is_409(caller, body):
    caller.post(PATH, body)
    answer = caller.post(PATH, body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (409, "conflict")
    assert Connection.objects.count() == 1


def test_what_was_typed_is_sealed(caller, body):
    answer = caller.post(PATH, {**body, "authorize_params": {"audience": "planted-audience"}})
    row = ClientRegistration.objects.values().get(pk=answer.json()["data"]["id"])
    stored = repr({k: bytes(v) if isinstance(v, bytes | memoryview) else v for k, v in row.items()})
    for planted in ("fake-client", "planted-audience", "/authorize"):
        assert planted not in stored
    assert client_of(answer).authorize_params == {"audience": "planted-audience"}


@pytest.mark.parametrize("missing", ["name", "provider", "client_id", "client_secret", "auth_url", "token_url"])
def test_a_missing_field_is_named(caller, body, missing):
    del body[missing]
    assert list(refused(caller, body)) == [missing]


def test_every_missing_field_is_named_at_once(caller):
    assert set(refused(caller, {})) >= {"name", "provider", "client_id"}


TEXTS = [
    "name",
    "provider",
    "client_id",
    "client_secret",
    "grant_type",
    "auth_url",
    "token_url",
    "username",
    "password",
    "description",
    "environment",
    "token_auth_method",
    "replay_policy",
    "scope_separator",
    "revocation_url",
    "tenant",
    "login_host",
    "instance",
    "mtls_certificate_id",
    "collection_id",
    "expires_at",
    "secret_type",
]
NO_TEXT = (7, True, ["x"], {"x": "y"}, 1.5)
WRONG: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(TEXTS, NO_TEXT),
    "scopes": ("openid", {"a": 1}, [1], [["a"]], [None], [""], ["a b"], ["a\u0000"], True),
    **dict.fromkeys(("authorize_params", "token_params"), ("x", [], {"a": 1}, {"a": {}}, {"": "x"}, 3)),
    "pkce": ("true", 1, 0, [], "yes"),
    "strict_expiry_enforcement": ("true", 1, 0, None, [], "yes"),
    "default_expires_in": ("60", 0, -1, 1.5, True, [], 10**12),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_type_is_named_and_nothing_is_stored(caller, body, name):
    for value in WRONG[name]:
        assert name in refused(caller, {**body, name: value}), value


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/token",
        "ftp://example.com/token",
        "javascript:alert(1)",
        "https://user:pw@example.com/token",
        "https://example.com/token#fragment",
        "https://example.com/to ken",
        " https://example.com/token",
        "https://example.com/token\n",
        "https:///token",
        "https://",
        "//example.com/token",
        "example.com/token",
        "",
        "https://example.com:0/token",
        "https://example.com:99999/token",
        "https://10.0.0.1/token",
        "https://169.254.169.254/latest",
        "https://[::ffff:10.0.0.1]/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://ex\u0000ample.com/",
        "https://example.com/" + "x" * 3000,
        "https://example.com\\@evil.example/",
    ],
)
def test_an_address_that_is_none_is_refused(caller, body, url):
    fields = ("auth_url", "token_url", "revocation_url")
    assert set(refused(caller, {**body, **dict.fromkeys(fields, url)})) == set(fields)


def test_an_international_host_is_kept_in_its_ascii_form(caller, body):
    client = client_of(caller.post(PATH, {**body, "auth_url": "https://b\u00fccher.example:8443/auth?x=1"}))
    assert client.auth_url == "https://xn--bcher-kva.example:8443/auth?x=1"


def test_an_address_is_not_repeated_with_its_userinfo(caller, body):
    answer = caller.post(PATH, {**body, "token_url": "https://user:sesame@example.com/token"})
    assert "sesame" not in answer.content.decode()


def test_secrets_are_not_repeated_in_errors(caller, body):
    answer = caller.post(
        PATH, {**body, "client_secret": "sesame-secret", "password": "sesame-word", "provider": "nope"}
    )
    assert answer.status_code == 400
    assert "sesame" not in answer.content.decode()


def test_an_unknown_provider_is_400_and_names_the_known_ones(caller, body):
    (message,) = refused(caller, {**body, "provider": "myspace"})["provider"]
    for known in ("google", "github", "salesforce", "microsoft", "slack", "custom"):
        assert known in message


def test_a_certificate_that_is_not_there_is_refused(caller, body):
    body["mtls_certificate_id"] = "00000000-0000-4000-8000-000000000000"
    assert list(refused(caller, body)) == ["mtls_certificate_id"]


@pytest.mark.parametrize(
    "name",
    [
        "state",
        "redirect_uri",
        "client_id",
        "response_mode",
        "code_challenge",
        "code_challenge_method",
        "scope",
        "nonce",
    ],
)
def test_parameters_that_the_protocol_sets_cannot_be_given(caller, body, name):
    assert list(refused(caller, {**body, "authorize_params": {name: "x"}})) == ["authorize_params"]
    assert list(refused(caller, {**body, "token_params": {name: "x"}})) == ["token_params"]


def test_password_needs_both_and_no_other_grant_takes_them(caller, body):
    assert set(refused(caller, {**body, "grant_type": "password"})) == {"username", "password"}
    assert set(refused(caller, {**body, "username": "u"})) == {"username"}


def test_a_public_client_needs_no_secret(caller, body):
    del body["client_secret"]
    assert caller.post(PATH, {**body, "token_auth_method": "none"}).status_code == 201


def test_client_credentials_need_a_client_that_authenticates(caller, body):
    body |= {"grant_type": "client_credentials", "token_auth_method": "none"}
    assert list(refused(caller, body)) == ["token_auth_method"]


def test_client_credentials_need_no_authorization_address(caller, body):
    del body["auth_url"]
    assert caller.post(PATH, {**body, "grant_type": "client_credentials"}).status_code == 201


def test_a_grant_that_the_preset_does_not_offer_is_400_and_says_which_there_are(caller):
    (message,) = refused(caller, preset("slack", grant_type="client_credentials"))["grant_type"]
    assert "authorization_code" in message


def test_a_presets_addresses_are_its_own(caller):
    assert list(refused(caller, preset("google", token_url="https://evil.example/token"))) == ["token_url"]


@pytest.mark.parametrize(
    ("name", "auth_url", "scopes"),
    [
        ("google", "https://accounts.google.com/o/oauth2/v2/auth", ("openid", "email", "profile")),
        ("github", "https://github.com/login/oauth/authorize", ("read:user", "user:email")),
        ("salesforce", "https://login.salesforce.com/services/oauth2/authorize", ("api", "refresh_token")),
        (
            "microsoft",
            "https://login.microsoftonline.com/common/oauth2/v2.0/authorize",
            ("openid", "profile", "email", "offline_access", "User.Read"),
        ),
        ("slack", "https://slack.com/oauth/v2/authorize", ("chat:write",)),
    ],
)
def test_presets_fill_what_the_request_leaves_out(caller, name, auth_url, scopes):
    client = client_of(caller.post(PATH, preset(name)))
    assert (client.auth_url, client.scopes) == (auth_url, scopes)


def test_the_request_goes_before_the_preset(caller):
    client = client_of(
        caller.post(
            PATH,
            preset(
                "google",
                scopes=["a"],
                authorize_params={"prompt": "none"},
                replay_policy="never",
                default_expires_in=60,
            ),
        )
    )
    assert client.scopes == ("a",)
    assert client.authorize_params == {"access_type": "offline", "prompt": "none"}
    assert (client.replay_policy, client.default_expires_in) == ("never", 60)


def test_variables_name_the_intended_host_only(caller):
    assert "contoso" in client_of(caller.post(PATH, preset("microsoft", tenant="contoso.onmicrosoft.com"))).token_url
    client = client_of(caller.post(PATH, preset("salesforce", instance="acme")))
    assert client.token_url == "https://acme.my.salesforce.com/services/oauth2/token"


@pytest.mark.parametrize(
    ("name", "variable", "value"),
    [
        ("microsoft", "tenant", "../evil"),
        ("microsoft", "tenant", "a/b"),
        ("microsoft", "tenant", "a?b"),
        ("microsoft", "tenant", "contoso\n"),
        ("salesforce", "login_host", "evil.example"),
        ("salesforce", "login_host", "login.salesforce.com.evil.example"),
        ("salesforce", "login_host", "login.salesforce.com@evil.example"),
        ("google", "tenant", "common"),
        ("custom", "login_host", "x"),
    ],
)
def test_variables_that_could_name_another_host_are_refused(caller, body, name, variable, value):
    given = body if name == "custom" else preset(name)
    assert list(refused(caller, {**given, variable: value})) == [variable]


def test_microsofts_client_credentials_need_a_tenant_of_their_own(caller):
    assert list(refused(caller, preset("microsoft", grant_type="client_credentials"))) == ["tenant"]


def test_an_unknown_field_is_an_error(caller, body):
    assert list(refused(caller, {**body, "scope": "openid"})) == ["scope"]


def test_rows_lists_and_filters_show_the_connection(caller, body, provider):
    made = caller.post(PATH, {**body, "grant_type": "client_credentials"}).json()["data"]
    caller.post(PATH, {**body, "name": "second"})
    rows = caller.get("/v1/secrets?connection_status=connected").json()["data"]
    assert [(row["id"], row["provider"], row["grant_type"]) for row in rows] == [
        (made["id"], "custom", "client_credentials")
    ]
    assert len(caller.get("/v1/secrets?provider=custom").json()["data"]) == 2
    assert caller.get("/v1/secrets?provider=github").json()["data"] == []
    for query in ("provider=nope", "connection_status=nope"):
        assert caller.get(f"/v1/secrets?{query}").status_code == 400
    detail = caller.get(f"/v1/secrets/{made['id']}").json()["data"]
    assert [(e["environment_name"], e["value_version"]) for e in detail["environments"]] == [("production", 1)]


def test_deleting_takes_the_connection_with_it(caller, body):
    made = caller.post(PATH, body).json()["data"]
    assert caller.delete(f"/v1/secrets/{made['id']}").json()["data"] == {"deleted": True}
    assert not Connection.objects.exists()
    assert caller.get(f"/v1/secrets/{made['id']}/oauth2/token").status_code == 404
