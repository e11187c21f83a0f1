"""`PATCH /v1/secrets/:id/oauth2`: what changes, what it is checked against, and what becomes of the connections."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db.models.functions import Now

from oauth_app.authorize import start_bare
from oauth_app.claim import claim_one
from oauth_app.clients import open_client
from oauth_app.configure import Configuration, given_of
from oauth_app.fake_provider import Answer, FakeProvider
from oauth_app.models import ClientRegistration, Connection, ConnectionEvent, GrantType, ReturnOrigin, RevocationJob
from oauth_app.protocol.client import OAuthClient
from oauth_app.providers import PROVIDERS
from oauth_app.refresh import refresh
from oauth_app.revocation import revoke_due
from secrets_app.audit import Actor
from secrets_app.models import AuditEvent
from tests.factories import Caller, a_client, a_string, age, an_oauth2_secret, consent
from tests.oauth_app.test_create_api import NO_TEXT, preset
from tests.support.crowd import all_at_once

Status = Connection.Status
BY_POST = {"token_auth_method": "client_secret_post", "chosen": ("token_auth_method",)}


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.fixture
def robot(caller, provider) -> Connection:
    """Connected by client credentials."""
    return an_oauth2_secret(caller, a_client(provider, grant_type="client_credentials", scopes=("a", "b")))


def path_of(connection: Connection) -> str:
    return f"/v1/secrets/{connection.secret_id}/oauth2"


def change(caller: Caller, connection: Connection, **body: Any) -> Any:
    """Change the client; returns the state that is answered."""
    answer = caller.patch(path_of(connection), body)
    assert answer.status_code == 200, answer.content
    return answer.json()["data"]


def refused(caller: Caller, connection: Connection, **body: Any) -> list[str]:
    """Try to, and see that nothing has changed; returns the fields that were named."""
    before = ClientRegistration.objects.values().get(pk=connection.secret_id)
    answer = caller.patch(path_of(connection), body)
    assert answer.status_code == 400, answer.content
    assert answer.json()["error"]["type"] == "validation_error"
    assert ClientRegistration.objects.values().get(pk=connection.secret_id) == before
    assert not AuditEvent.objects.filter(action="client.changed").exists()
    return list(answer.json().get("fields", {}))


def client_of(connection: Connection) -> OAuthClient:
    return open_client(ClientRegistration.objects.get(pk=connection.secret_id))


def renew(caller: Caller, connection: Connection) -> Any:
    return caller.post(f"{path_of(connection)}/refresh", {})


def version_of(caller: Caller, connection: Connection) -> int:
    (entry,) = caller.get(f"/v1/secrets/{connection.secret_id}").json()["data"]["environments"]
    version: int = entry["value_version"]
    return version


# What takes effect


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"client_id": "another-client"}, {"client_id": "another-client"}),
        ({"client_secret": "another-secret"}, {"client_secret": "another-secret"}),
        ({"token_auth_method": "client_secret_post"}, {"auth_method": "post"}),
        ({"scopes": ["c"]}, {"scope": "c"}),
        ({"scope_separator": ","}, {"scope": "a,b"}),
        ({"token_params": {"audience": "x"}}, {"audience": "x"}),
    ],
)
def test_the_next_token_request_is_made_as_it_was_changed(caller, robot, provider, body, shown):
    change(caller, robot, **body)
    renew(caller, robot)
    seen = {**provider.requests[1].form, **vars(provider.requests[1])}
    assert {name: seen[name] for name in shown} == shown


def test_the_next_token_request_goes_to_another_address(caller, robot):
    with FakeProvider() as other:
        change(caller, robot, token_url=other.token_url, client_secret=other.client_secret)
        assert renew(caller, robot).status_code == 200
        assert other.count("client_credentials") == 1
    assert ClientRegistration.objects.get().token_host == urlsplit(other.token_url).netloc


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"client_id": "another-client"}, {"client_id": "another-client"}),
        ({"scopes": ["c", "d"]}, {"scope": "c d"}),
        ({"authorize_params": {"prompt": "login"}}, {"prompt": "login"}),
        ({"pkce": False}, {"code_challenge": None}),
    ],
)
def test_the_next_consent_is_asked_for_as_it_was_changed(caller, provider, body, shown):
    connection = an_oauth2_secret(caller, a_client(provider))
    change(caller, connection, **body)
    started = start_bare(connection.secret_id, actor=Actor("browser"))
    query = parse_qs(urlsplit(started.url).query)
    assert {name: query.get(name, [None])[0] for name in shown} == shown


@pytest.mark.parametrize("field", ["token_url", "revocation_url"])
def test_a_client_secret_does_not_follow_to_another_host(caller, robot, field):
    before = client_of(robot)
    assert refused(caller, robot, **{field: "https://elsewhere.example/x"}) == ["client_secret"]
    assert client_of(robot) == before
    change(caller, robot, **{field: before.token_url + "/other"})


def test_a_password_does_not_follow_to_another_host(caller, provider):
    connection = an_oauth2_secret(caller, a_client(provider, grant_type="password"))
    elsewhere = {"token_url": "https://elsewhere.example/t", "client_secret": "x"}
    assert refused(caller, connection, **elsewhere) == ["password"]


def test_refresh_tokens_do_not_follow_to_another_host(caller, provider, http):
    connection = consent(an_oauth2_secret(caller, a_client(provider)), http)
    change(caller, connection, token_url="https://elsewhere.example/t", client_secret="x")
    connection.refresh_from_db()
    assert connection.refresh_token is None
    assert connection.refresh_due_at == connection.expires_at
    # What is valid is served to its end.
    assert caller.get(path_of(connection) + "/token").status_code == 200


def test_the_next_consent_is_asked_for_at_another_address(caller, provider):
    connection = an_oauth2_secret(caller, a_client(provider))
    change(caller, connection, auth_url="https://bücher.example/authorize")
    started = start_bare(connection.secret_id, actor=Actor("browser"))
    assert started.url.startswith("https://xn--bcher-kva.example/authorize?")


@pytest.mark.django_db(transaction=True)
def test_tokens_are_revoked_at_an_address_that_came_later(caller, robot, provider):
    change(caller, robot, revocation_url=provider.revoke_url)
    token = robot.access_token.open().reveal()
    caller.post(f"{path_of(robot)}/disconnect", {})
    revoke_due()
    assert RevocationJob.objects.get().outcome == "revoked"
    assert not provider.is_live(token)


def test_a_lifetime_is_assumed_from_the_change_on(caller, robot, provider):
    provider.omit = {"expires_in"}
    change(caller, robot, default_expires_in=120)
    assert 110 < renew(caller, robot).json()["data"]["expires_in"] <= 120


def test_the_rest_stays_as_it_was(caller, provider):
    connection = an_oauth2_secret(caller, a_client(provider, pkce=False, chosen=("pkce",), default_expires_in=60))
    before = client_of(connection)
    change(caller, connection, replay_policy="never")
    after = client_of(connection)
    assert after.replay_policy == "never"
    assert given_of(after) == {**given_of(before), "replay_policy": "never"}


def test_a_null_takes_a_value_away_and_the_presets_own_comes_back(caller):
    given = {
        "scopes": ["a"],
        "authorize_params": {"prompt": "none", "login_hint": "x"},
        "token_params": {"audience": "x"},
        "token_auth_method": "client_secret_basic",
        "pkce": False,
        "replay_policy": "never",
        "scope_separator": ",",
        "default_expires_in": 60,
        "tenant": "contoso.example",
        "revocation_url": "https://example.com/revoke",
    }
    first = caller.post("/v1/secrets/oauth2", preset("microsoft", name="first", **given)).json()["data"]["id"]
    second = caller.post("/v1/secrets/oauth2", preset("microsoft", name="second")).json()["data"]["id"]
    assert caller.patch(f"/v1/secrets/{first}/oauth2", dict.fromkeys(given)).status_code == 200
    assert client_of(Connection.objects.get(secret_id=first)) == client_of(Connection.objects.get(secret_id=second))


def test_an_orgs_short_name_takes_the_place_of_its_host(caller):
    body = preset("salesforce", login_host="test.salesforce.com")
    made = caller.post("/v1/secrets/oauth2", body).json()["data"]["id"]
    connection = Connection.objects.get(secret_id=made)
    change(caller, connection, instance="acme")
    assert client_of(connection).token_url == "https://acme.my.salesforce.com/services/oauth2/token"
    change(caller, connection, instance=None)
    assert client_of(connection).token_url == "https://login.salesforce.com/services/oauth2/token"
    assert refused_with(caller, connection, instance="acme", login_host="test.salesforce.com") == ["instance"]


def refused_with(caller: Caller, connection: Connection, **body: Any) -> list[str]:
    answer = caller.patch(path_of(connection), body)
    assert answer.status_code == 400
    return list(answer.json()["fields"])


def grants() -> list[tuple[str, str]]:
    return [(provider.name, grant) for provider in PROVIDERS.values() for grant in provider.grants]


def given_for(provider: str, grant: str) -> dict[str, Any]:
    """The least that configures a client, with a value for every variable."""
    hosts = {"tenant": "contoso.example", "login_host": "acme.my.salesforce.com", "shop": "acme"}
    variables = PROVIDERS[provider].variables
    given = {v.name: hosts.get(v.name, "acme") for v in variables if v.default is None or v.name in hosts}
    if provider == "custom":
        given |= {"auth_url": "https://example.com/a", "token_url": "https://example.com/t"}
    if grant == "password":
        given |= {"username": "u", "password": "p"}
    return {"client_id": "id", "client_secret": "secret", **given}


CHOICES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "everything": {
        "token_auth_method": "client_secret_basic",
        "pkce": True,
        "replay_policy": "safe",
        "scope_separator": "+",
        "default_expires_in": 7,
        "scopes": [],
        "token_params": {"audience": "x"},
        "revocation_url": "https://example.com/r",
    },
    "a public client": {"client_secret": None, "token_auth_method": "none", "pkce": False},
}


@pytest.mark.parametrize("choice", CHOICES)
def test_what_a_client_was_configured_with_configures_it_again(caller, choice):
    for provider, grant in grants():
        given = {name: v for name, v in {**given_for(provider, grant), **CHOICES[choice]}.items() if v is not None}
        if choice == "a public client" and grant == "client_credentials":
            continue
        if choice == "everything" and grant == "authorization_code":
            given["authorize_params"] = {"prompt": "select_account"}
        configuration = Configuration(provider=PROVIDERS[provider], grant=GrantType(grant), given=given)
        client = configuration.client(caller.account.pk)
        again = Configuration(provider=PROVIDERS[provider], grant=GrantType(grant), given=given_of(client))
        assert again.client(caller.account.pk) == client, (provider, grant)
        assert OAuthClient.from_document(client.to_document()) == client


# What is refused


@pytest.mark.parametrize("name", ["provider", "grant_type", "name", "redirect_uri", "clientsecret"])
def test_what_cannot_be_changed_is_named(caller, robot, name):
    assert refused(caller, robot, **{name: "google", "client_id": "x"}) == [name]


@pytest.mark.parametrize("body", [{}, {"keep_previous": True}])
def test_a_change_of_nothing_is_refused(caller, robot, body):
    refused(caller, robot, **body)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"client_secret": None}, "client_secret"),
        ({"token_auth_method": "none"}, "token_auth_method"),
        ({"token_url": None}, "token_url"),
        ({"client_id": None}, "client_id"),
        ({"client_id": ""}, "client_id"),
        ({"username": "u"}, "username"),
        ({"authorize_params": {"prompt": "login"}}, "authorize_params"),
        ({"tenant": "contoso"}, "tenant"),
        ({"mtls_certificate_id": "00000000-0000-4000-8000-000000000000"}, "mtls_certificate_id"),
        ({"return_url": "https://app.example/"}, "return_url"),
        ({"token_params": {"grant_type": "password"}}, "token_params"),
        ({"scopes": ["a b"]}, "scopes"),
        ({"keep_previous": None, "client_secret": "x"}, "keep_previous"),
    ],
)
def test_a_change_that_does_not_fit_changes_nothing(caller, robot, body, named):
    assert refused(caller, robot, **{"scope_separator": ",", **body}) == [named]


def test_a_password_grant_keeps_its_password(caller, provider):
    connection = an_oauth2_secret(caller, a_client(provider, grant_type="password"))
    assert refused(caller, connection, password=None) == ["password"]


def test_a_presets_addresses_stay_its_own(caller):
    made = caller.post("/v1/secrets/oauth2", preset("google")).json()["data"]["id"]
    connection = Connection.objects.get(secret_id=made)
    for name in ("auth_url", "token_url", "issuer_url"):
        assert refused(caller, connection, **{name: "https://evil.example"}) == [name]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/token",
        "https://169.254.169.254/latest",
        "https://10.0.0.1/token",
        "https://[::ffff:10.0.0.1]/",
        "https://user:sesame@example.com/token",
        "https://example.com/token#x",
        "javascript:alert(1)",
        "",
        *NO_TEXT,
    ],
)
def test_a_hostile_address_is_refused(caller, robot, url):
    names = ("auth_url", "token_url", "revocation_url")
    assert set(refused(caller, robot, **dict.fromkeys(names, url))) == set(names)


def test_nothing_that_was_sent_comes_back_in_an_error(caller, robot):
    body = {"client_secret": "sesame-secret", "password": "sesame-word", "username": "sesame-user"}
    answer = caller.patch(path_of(robot), body)
    assert answer.status_code == 400
    assert "sesame" not in answer.content.decode()


def test_only_those_who_may_write_change_it_and_nobody_else_sees_it(caller, robot):
    body = {"client_id": "x"}
    assert Caller(caller.account, role="read_only").patch(path_of(robot), body).status_code == 403
    for stranger in (Caller(), Caller(caller.account, mode="test")):
        assert stranger.patch(path_of(robot), body).status_code == 404
    string = a_string(caller)
    assert caller.patch(f"/v1/secrets/{string.pk}/oauth2", body).json()["error"]["type"] == "invalid_type"


# What becomes of it


def test_the_answer_is_the_state_and_holds_no_credential(caller, robot):
    answer = caller.patch(path_of(robot), {"client_secret": "sesame", "token_params": {"x": "sesame"}})
    assert answer.json()["data"] == caller.get(path_of(robot)).json()["data"]
    assert "sesame" not in answer.content.decode()


def test_the_version_counts_changes_of_the_client_and_nothing_else(caller, robot):
    assert version_of(caller, robot) == 1
    change(caller, robot, scopes=["a"])
    change(caller, robot, client_secret="x", keep_previous=False)
    assert version_of(caller, robot) == 3
    change(caller, robot, keep_previous=False)
    renew(caller, robot)
    assert version_of(caller, robot) == 3


def test_a_change_is_audited_by_the_names_of_its_fields(caller, robot):
    change(caller, robot, client_secret="sesame", client_id="sesame-id", scopes=["sesame-scope"])
    event = AuditEvent.objects.get(action="client.changed")
    assert event.details["changed"] == "client_id, client_secret, scopes"
    assert "sesame" not in str(event.details)
    assert (event.resource_id, event.actor) == (str(robot.secret_id), caller.row.key_id)


def test_connections_stay_connected_and_are_not_called(caller, robot, provider):
    assert change(caller, robot, scopes=["x"])["connection_status"] == "connected"
    robot.refresh_from_db()
    assert robot.generation == 1
    assert provider.count("client_credentials") == 1


@pytest.mark.parametrize("body", [{"client_secret": "fake-client-secret"}, {"scopes": ["x"]}])
def test_what_failed_is_due_at_once_and_works(caller, robot, provider, body):
    age(robot, expires_in=-1)
    provider.next(Answer.error("invalid_client", status=401))
    assert caller.get(f"{path_of(robot)}/token").status_code == 500
    assert caller.get(f"{path_of(robot)}/token").status_code == 500
    assert provider.count("client_credentials") == 2
    change(caller, robot, **body)
    assert caller.get(f"{path_of(robot)}/token").json()["data"]["connection_status"] == "connected"


@pytest.fixture
def turned_down(caller, provider) -> Connection:
    """A password that the provider refused."""
    return an_oauth2_secret(caller, a_client(provider, grant_type="password", password="wrong"))


def test_a_refused_password_is_not_tried_again_until_it_has_changed(caller, turned_down, provider):
    assert turned_down.status == Status.REAUTHORIZATION_REQUIRED
    change(caller, turned_down, scopes=["x"])
    assert caller.get(f"{path_of(turned_down)}/token?force_refresh=true").status_code == 500
    assert provider.count("password") == 1
    change(caller, turned_down, password=provider.password)
    assert caller.get(f"{path_of(turned_down)}/token").status_code == 200
    (changed, _) = list(ConnectionEvent.objects.filter(connection=turned_down).order_by("-pk"))[1::-1]
    assert (changed.status, changed.code) == (Status.REFRESH_FAILING, "credentials_changed")


def test_a_refused_password_is_not_tried_by_force_while_the_token_lives(caller, provider):
    connection = an_oauth2_secret(caller, a_client(provider, grant_type="password"))
    provider.password = "changed"
    provider.revoke_grants()
    for _ in range(3):
        answer = caller.get(f"{path_of(connection)}/token?force_refresh=true")
        assert answer.json()["data"]["connection_status"] == Status.REAUTHORIZATION_REQUIRED
    assert provider.count("password") == 2


def test_what_is_refused_while_it_changes_is_tried_again_as_changed(caller, robot, provider):
    """The refusal is stored after the change, and is that of the client before it."""
    age(robot, expires_in=-1)
    seen = ClientRegistration.objects.get()
    claimed = claim_one(robot)
    assert claimed
    provider.client_secret = "another-secret"
    change(caller, robot, client_secret="another-secret")
    refresh(claimed, seen)
    assert Connection.objects.get().status == Status.REFRESH_FAILING
    assert caller.get(f"{path_of(robot)}/token").status_code == 200


def test_an_address_to_return_to_that_is_no_longer_allowed_stops_no_change(caller, provider):
    origin = ReturnOrigin.objects.create(account=caller.account, origin="https://app.example")
    connection = an_oauth2_secret(caller, a_client(provider))
    change(caller, connection, return_url="https://app.example/done")
    assert client_of(connection).return_url == "https://app.example/done"
    origin.delete()
    change(caller, connection, client_secret="x")
    assert refused_with(caller, connection, return_url="https://app.example/again") == ["return_url"]


def test_a_repeated_key_changes_once(caller, robot):
    first = caller.patch(path_of(robot), {"scopes": ["x"]}, X_Idempotency_Key="once")
    again = caller.patch(path_of(robot), {"scopes": ["x"]}, X_Idempotency_Key="once")
    assert again["Idempotent-Replayed"] == "true"
    assert again.json() == first.json()
    assert version_of(caller, robot) == 2
    other = caller.patch(path_of(robot), {"scopes": ["y"]}, X_Idempotency_Key="once")
    assert (other.status_code, other.json()["error"]["type"]) == (409, "idempotency_key_reuse")


@pytest.mark.django_db(transaction=True)
def test_changes_at_once_all_count(provider):
    caller = Caller()
    connection = an_oauth2_secret(caller, a_client(provider))
    bodies: list[dict[str, Any]] = [
        {"scopes": ["x"]},
        {"client_secret": "another"},
        {"default_expires_in": 60},
        {"token_params": {"a": "b"}},
    ]
    all_at_once(*[lambda body=body: change(caller, connection, **body) for body in bodies])
    client = client_of(connection)
    assert (client.scopes, client.client_secret, client.default_expires_in) == (("x",), "another", 60)
    assert client.token_params == {"a": "b"}
    assert version_of(caller, connection) == 5


def test_a_consent_after_the_change_uses_it(caller, provider, http):
    connection = an_oauth2_secret(caller, a_client(provider, client_secret="wrong", **BY_POST))
    change(caller, connection, client_secret=provider.client_secret)
    assert consent(connection, http).status == Status.CONNECTED
    assert (provider.requests[0].auth_method, len(provider.requests)) == ("post", 1)


def test_a_due_time_moves_with_failing_connections_only(caller, robot):
    Connection.objects.update(refresh_due_at=Now() + timedelta(hours=1))
    before = Connection.objects.get().refresh_due_at
    change(caller, robot, scopes=["x"])
    assert Connection.objects.get().refresh_due_at == before
