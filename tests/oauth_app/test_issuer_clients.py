"""Clients whose addresses an issuer names: created by its URL alone, and following it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db.models.functions import Now

from oauth_app.authorize import start_bare
from oauth_app.clients import open_client
from oauth_app.discovery import refetch_stale
from oauth_app.fake_provider import FakeProvider
from oauth_app.models import ClientRegistration, Connection, Issuer
from oauth_app.protocol.client import OAuthClient
from secrets_app.crypto.cipher import Ciphertext
from secrets_app.models import Secret
from tests.factories import Caller, an_account, consent
from tests.oauth_app.test_change_client import change, path_of, refused_with, renew
from tests.oauth_app.test_create_api import preset
from tests.support.tls import Peer, ok

PATH = "/v1/secrets/oauth2"


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.fixture
def body(provider) -> dict[str, Any]:
    return {
        "name": "by-issuer",
        "provider": "custom",
        "client_id": provider.client_id,
        "client_secret": provider.client_secret,
        "issuer_url": provider.issuer,
    }


def create(caller: Caller, body: dict[str, Any], **further: Any) -> Connection:
    answer = caller.post(PATH, {**body, **further})
    assert answer.status_code == 201, answer.content
    return Connection.objects.get(secret_id=answer.json()["data"]["id"])


def refused(caller: Caller, body: dict[str, Any]) -> dict[str, list[str]]:
    answer = caller.post(PATH, body)
    assert answer.status_code == 400, answer.content
    assert not Secret.objects.exists()
    fields: dict[str, list[str]] = answer.json()["fields"]
    return fields


def client_of(connection: Connection) -> OAuthClient:
    return open_client(ClientRegistration.objects.get(pk=connection.secret_id))


def follow(provider: FakeProvider, **says: Any) -> None:
    """Let the issuer say something else, and let it be asked as it is every day."""
    provider.metadata = says
    Issuer.objects.update(fetched_at=Now() - timedelta(hours=25))
    refetch_stale()


def test_the_issuer_says_all_the_rest(caller, body, provider, http):
    provider.iss = "{base_url}"
    connection = create(caller, body)
    client = client_of(connection)
    assert (client.auth_url, client.token_url) == (provider.authorize_url, provider.token_url)
    assert client.revocation_url == provider.revoke_url
    assert (client.issuer, client.issuer_url, client.requires_iss) == (provider.issuer, provider.issuer, True)
    assert (client.token_auth_method, client.pkce) == ("client_secret_basic", True)
    assert consent(connection, http).status == "connected"
    assert caller.get(path_of(connection)).json()["data"]["issuer_url"] == provider.issuer
    assert ClientRegistration.objects.get().issuer.url == provider.issuer


@pytest.mark.parametrize(
    ("says", "given", "expected"),
    [
        ({"token_endpoint_auth_methods_supported": ["client_secret_post"]}, {}, {"token_auth_method": "post"}),
        ({}, {"token_auth_method": "client_secret_post"}, {"token_auth_method": "post"}),
        ({"code_challenge_methods_supported": ["plain"]}, {}, {"pkce": False}),
        ({"code_challenge_methods_supported": ["plain"]}, {"pkce": True}, {"pkce": True}),
        ({"code_challenge_methods_supported": None}, {}, {"pkce": True}),
    ],
)
def test_the_request_goes_before_the_issuer_and_still_does_after_a_change(
    caller, body, provider, http, says, given, expected
):
    provider.metadata = says
    connection = create(caller, body, **given)
    # Twice: as it was made, and after a change of something else.
    for _ in range(2):
        started = start_bare(connection.secret_id, actor=caller.scope.actor)
        assert ("code_challenge" in parse_qs(urlsplit(started.url).query)) is expected.get("pkce", True)
        change(caller, connection, default_expires_in=60)
    consent(connection, http)
    assert provider.requests[0].auth_method == expected.get("token_auth_method", "basic")


@pytest.mark.parametrize("given", [{}, {"client_secret": None, "token_auth_method": "none"}])
def test_an_issuer_that_offers_no_way_of_ours_is_refused_unless_one_is_chosen(caller, body, provider, given):
    provider.metadata = {"token_endpoint_auth_methods_supported": ["private_key_jwt"]}
    body |= given
    if given:
        assert client_of(create(caller, body)).token_auth_method == "none"
    else:
        assert list(refused(caller, body)) == ["token_auth_method"]


def test_a_browser_grant_needs_an_issuer_with_a_page(caller, body, provider):
    provider.metadata = {"authorization_endpoint": None}
    assert list(refused(caller, body)) == ["issuer_url"]
    assert create(caller, body, grant_type="client_credentials").status == "connected"


def test_an_issuer_that_is_another_is_refused_with_the_reason(caller, body, provider):
    provider.metadata = {"issuer": "https://another.example"}
    (message,) = refused(caller, body)["issuer_url"]
    assert "another.example" in message
    assert not Issuer.objects.exists()


def test_an_address_in_the_metadata_passes_the_checks_of_one_that_was_typed(caller, body, provider):
    for url in ("https://10.0.0.1/token", "http://example.com/token", "https://user:x@example.com/"):
        provider.metadata = {"token_endpoint": url}
        (message,) = refused(caller, body)["issuer_url"]
        assert message.startswith("token_endpoint: ")


def test_an_issuer_that_cannot_be_asked_is_refused_with_the_reason(caller, body, provider):
    provider.stop()
    (message,) = refused(caller, body)["issuer_url"]
    assert "could not be asked" in message


@pytest.mark.parametrize("name", ["auth_url", "token_url", "revocation_url"])
def test_an_address_beside_the_issuer_is_refused(caller, body, name):
    assert list(refused(caller, {**body, name: "https://example.com/x"})) == [name]


@pytest.mark.parametrize("url", ["http://example.com", "https://example.com/?x", "https://10.0.0.1", "issuer", "", 7])
def test_an_issuer_url_that_is_none_is_refused(caller, body, url):
    assert list(refused(caller, {**body, "issuer_url": url})) == ["issuer_url"]


@pytest.fixture
def counted():
    with Peer(ok(b"{}", "Content-Type: application/json")).listening() as peer:
        yield peer


def test_a_preset_has_no_issuer_and_none_is_asked(caller, counted):
    url = f"http://127.0.0.1:{counted.port}"
    assert list(refused(caller, preset("google", issuer_url=url))) == ["issuer_url"]
    made = caller.post(PATH, preset("google")).json()["data"]["id"]
    assert refused_with(caller, Connection.objects.get(secret_id=made), issuer_url=url) == ["issuer_url"]
    assert counted.requests == []


def test_a_plan_without_oauth2_asks_no_issuer(db, body, counted):
    answer = Caller(an_account(plan="free")).post(PATH, {**body, "issuer_url": f"http://127.0.0.1:{counted.port}"})
    assert answer.status_code == 403
    assert counted.requests == []


# Following


def test_clients_follow_what_their_issuer_says_later(caller, body, provider):
    connection = create(caller, body, grant_type="client_credentials", scopes=["x"], token_params={"a": "b"})
    with FakeProvider() as other:
        follow(provider, token_endpoint=other.token_url, revocation_endpoint=None)
        client = client_of(connection)
        assert (client.token_url, client.revocation_url) == (other.token_url, None)
        assert (client.scopes, client.token_params) == (("x",), {"a": "b"})
        assert ClientRegistration.objects.get().token_host == urlsplit(other.base_url).netloc
        assert renew(caller, connection).status_code == 200
        assert other.count("client_credentials") == 1


def test_what_failed_at_the_old_address_is_tried_at_the_new_one(caller, body, provider):
    connection = create(caller, body, grant_type="client_credentials")
    Connection.objects.update(status="refresh_failing", refresh_due_at=Now() + timedelta(hours=23))
    with FakeProvider() as other:
        follow(provider, token_endpoint=other.token_url)
        Connection.objects.update(expires_at=Now())
        assert caller.get(f"{path_of(connection)}/token").status_code == 200
        assert other.count("client_credentials") == 1


def test_what_was_chosen_stays_chosen(caller, body, provider):
    chosen = create(caller, body, token_auth_method="client_secret_post", pkce=True)
    left = create(caller, body, name="left")
    follow(provider, code_challenge_methods_supported=["plain"], token_endpoint_auth_methods_supported=["none"])
    assert (client_of(chosen).token_auth_method, client_of(chosen).pkce) == ("client_secret_post", True)
    assert (client_of(left).token_auth_method, client_of(left).pkce) == ("none", False)


def test_one_that_cannot_follow_stops_no_other(caller, body, provider, caplog):
    broken = create(caller, body, name="a-broken")
    unfit = create(caller, body, name="b-unfit")
    robot = create(caller, body, name="c-robot", grant_type="client_credentials")
    ClientRegistration.objects.filter(pk=broken.secret_id).update(document=Ciphertext(b"\x01" + b"x" * 60))
    follow(provider, token_endpoint="https://new.example/token", authorization_endpoint=None)
    assert client_of(robot).token_url == "https://new.example/token"
    assert client_of(unfit).token_url == provider.token_url
    for connection in (broken, unfit):
        assert str(connection.secret_id) in caplog.text
    assert Issuer.objects.get().metadata["token_endpoint"] == "https://new.example/token"


# Changing


def test_a_typed_client_takes_up_an_issuer(caller, body, provider):
    del body["issuer_url"]
    connection = create(caller, body, auth_url="https://old.example/a", token_url="https://old.example/t")
    state = change(caller, connection, issuer_url=provider.issuer, client_secret="x")
    assert state["issuer_url"] == provider.issuer
    assert client_of(connection).token_url == provider.token_url


def test_an_issuer_gives_way_to_typed_addresses_as_a_whole(caller, body, provider):
    connection = create(caller, body)
    assert refused_with(caller, connection, token_url="https://new.example/t") == ["token_url"]
    assert set(refused_with(caller, connection, issuer_url=None)) == {"auth_url", "token_url"}
    typed = {"auth_url": "https://new.example/a", "token_url": "https://new.example/t"}
    assert change(caller, connection, issuer_url=None, client_secret="x", **typed)["issuer_url"] is None
    client = client_of(connection)
    assert (client.token_url, client.revocation_url, client.issuer) == ("https://new.example/t", None, None)


def test_another_issuer_takes_the_place_of_one(caller, body, provider):
    connection = create(caller, body)
    with FakeProvider(iss="{base_url}") as other:
        change(caller, connection, issuer_url=other.issuer, client_secret="x")
    client = client_of(connection)
    assert (client.token_url, client.issuer, client.requires_iss) == (other.token_url, other.issuer, True)


def test_an_issuer_that_is_refused_changes_nothing(caller, body, provider):
    connection = create(caller, body)
    before = client_of(connection)
    with FakeProvider(metadata={"issuer": "https://another.example"}) as other:
        assert refused_with(caller, connection, issuer_url=other.issuer, client_secret="x") == ["issuer_url"]
    assert client_of(connection) == before


def test_an_outage_of_the_issuer_stops_no_change(caller, body, provider):
    connection = create(caller, body)
    provider.stop()
    Issuer.objects.update(fetched_at=Now() - timedelta(days=30))
    change(caller, connection, client_secret="another")
    change(caller, connection, keep_previous=False)
    client = client_of(connection)
    assert (client.client_secret, client.token_url) == ("another", provider.token_url)
