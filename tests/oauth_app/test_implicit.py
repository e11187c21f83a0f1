"""The implicit grant: a page of ours hands over what only the browser sees, and nothing else is believed or kept."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.db import OperationalError
from django.db.models.functions import Now

from oauth_app import authorize
from oauth_app.claim import claim_due
from oauth_app.clients import registrations_of
from oauth_app.models import AuthorizationRequest, Connection, ConnectionEvent
from oauth_app.refresh import refresh
from oauth_app.return_origins import allow_origin
from secrets_app.audit import Actor
from secrets_app.models import AuditEvent
from tests.factories import Caller, a_client, an_oauth2_secret
from tests.support.person import Person, query_of, text_of

Status = Connection.Status
OURS = "http://localhost:8000"


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.fixture
def connection(caller, provider) -> Connection:
    return an_oauth2_secret(caller, a_client(provider, grant_type="implicit", client_secret=None, token_url=""))


def begin(person: Person, connection: Connection) -> str:
    """Do what the page's script does without a fragment, and consent; returns where the provider sends the browser back to."""
    started = person.client.get(f"/auth/oauth2/callback/{connection.secret_id}?start=1")
    assert started.status_code == 302
    return person.at_provider(started)


def state_in(back: str) -> str:
    return parse_qs(urlsplit(back).fragment)["state"][0]


def fragment_of(back: str, **fields: str | None) -> str:
    """The fragment of ``back`` with other fields; without those that are ``None``."""
    kept = {name: values[0] for name, values in parse_qs(urlsplit(back).fragment).items()} | fields
    return urlencode({name: value for name, value in kept.items() if value is not None})


def shown_after(person: Person, answer: Any) -> Any:
    """The page where the script goes next."""
    assert answer.status_code == 200, answer.content
    return person.open(answer.json()["next"])


def current(connection: Connection) -> Connection:
    return Connection.objects.get(pk=connection.pk)


# Creation


def test_a_secret_needs_neither_client_secret_nor_token_url(caller, provider):
    body = {
        "name": "old",
        "provider": "custom",
        "grant_type": "implicit",
        "client_id": provider.client_id,
        "auth_url": provider.authorize_url,
    }
    answer = caller.post("/v1/secrets/oauth2", body)
    assert answer.status_code == 201, answer.content
    data = answer.json()["data"]
    assert (data["grant_type"], data["connection_status"]) == ("implicit", "not_connected")
    assert data["redirect_uri"] == f"{OURS}/auth/oauth2/callback/{data['id']}"
    missing = caller.post("/v1/secrets/oauth2", {**body, "name": "other", "auth_url": None})
    assert list(missing.json()["fields"]) == ["auth_url"]


@pytest.mark.parametrize(
    ("body", "scopes", "offline"),
    [
        ({"provider": "google"}, ["openid", "email", "profile"], "access_type"),
        ({"provider": "microsoft", "tenant": "common"}, None, "offline_access"),
    ],
)
def test_nothing_offline_is_asked_for(caller, person, body, scopes, offline):
    answer = caller.post("/v1/secrets/oauth2", {"name": "old", "grant_type": "implicit", "client_id": "id", **body})
    assert answer.status_code == 201, answer.content
    started = person.client.get(f"/auth/oauth2/callback/{answer.json()['data']['id']}?start=1")
    assert offline not in started["Location"]
    asked = query_of(started["Location"])
    assert asked["response_type"] == "token"
    assert scopes is None or asked["scope"].split() == scopes


# The page


def test_the_bare_address_is_a_page_with_one_script_of_ours(connection, person):
    page = person.start(connection)
    assert page.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in page["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert (page["Cache-Control"], page["Referrer-Policy"]) == ("no-store", "no-referrer")
    html = page.content.decode()
    assert html.count("<script") == 1
    assert '<script src="/static/knoxcall/implicit' in html
    assert not re.search(r"\son[a-z]+=|\sstyle=|<style|javascript:", html)
    assert not page.cookies
    assert not AuthorizationRequest.objects.exists()


@pytest.mark.parametrize("query", ["", "?", "?foo=bar", "?access_token=x", "?session_state=x"])
def test_the_bare_address_never_redirects(connection, person, query):
    # A browser would carry the fragment, with the token in it, along to the next site.
    Connection.objects.update(connected_at=Now())
    assert person.client.get(f"/auth/oauth2/callback/{connection.secret_id}{query}").status_code == 200


def test_no_other_page_runs_a_script(connection, person, caller, provider):
    other = an_oauth2_secret(caller, a_client(provider), name="code")
    for page in (person.consent(other), person.open("/auth/oauth2/connect?link=x")):
        assert "script" not in page["Content-Security-Policy"]
        assert "<script" not in page.content.decode()


def test_the_start_asks_for_a_token_without_pkce(connection, person, provider):
    started = person.client.get(f"/auth/oauth2/callback/{connection.secret_id}?start=1")
    asked = query_of(started["Location"])
    assert asked["response_type"] == "token"
    assert asked["redirect_uri"] == authorize.redirect_uri(connection.secret_id)
    assert not any(name.startswith("code_challenge") for name in asked)
    (cookie,) = started.cookies.values()
    assert cookie.key == authorize.cookie_name(asked["state"])


def test_the_start_is_for_the_first_connection_only(connection, person):
    person.hand_over(begin(person, connection))
    assert person.client.get(f"/auth/oauth2/callback/{connection.secret_id}?start=1").status_code == 410


# Handing over


def test_what_the_fragment_holds_connects(connection, person, provider):
    answer = person.hand_over(begin(person, connection))
    assert list(answer.json()) == ["next"]
    assert answer["Cache-Control"] == "no-store"
    page = shown_after(person, answer)
    assert page.status_code == 200
    assert "is connected" in text_of(page)
    stored = current(connection)
    assert (stored.status, stored.generation, stored.token_type) == (Status.CONNECTED, 1, "Bearer")
    assert provider.is_live(stored.access_token.open().reveal())
    assert stored.refresh_token is None
    assert stored.refresh_due_at == stored.expires_at
    # Nobody expects to renew it, so it is no warning.
    assert AuthorizationRequest.objects.get().outcome == "connected"
    assert provider.requests == []


def test_a_link_reconnects_it(connection, caller, person):
    person.hand_over(begin(person, connection))
    link = caller.post(f"/v1/secrets/{connection.secret_id}/oauth2/authorize", {}).json()["data"]["authorize_url"]
    page = shown_after(person, person.hand_over(person.at_provider(person.open(link))))
    assert page.status_code == 200
    assert current(connection).generation == 2


def test_the_script_is_told_the_return_address(caller, provider, person):
    allow_origin(caller.account, "https://app.example.com", actor=Actor("test"))
    client = a_client(provider, grant_type="implicit", return_url="https://app.example.com/done")
    back = begin(person, an_oauth2_secret(caller, client))
    goes_to = person.hand_over(back).json()["next"]
    assert goes_to.startswith("https://app.example.com/done?secret_id=")
    assert query_of(goes_to)["result"] == "connected"
    # A page loaded again goes there, too.
    assert person.hand_over(back).json()["next"] == goes_to


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        None,
        "",
        "http://localhost",
        "https://localhost:8000",
        "http://localhost:8000.evil.example",
    ],
)
def test_another_origin_uses_nothing_up(connection, person, origin):
    back = begin(person, connection)
    assert person.hand_over(back, Origin=origin).status_code == 403
    assert AuthorizationRequest.objects.get().used_at is None
    assert shown_after(person, person.hand_over(back)).status_code == 200


def test_another_browser_uses_nothing_up(connection, person, http):
    back = begin(person, connection)
    stranger = Person(http)
    page = shown_after(stranger, stranger.hand_over(back))
    assert page.status_code == 403
    assert "Please finish in the browser you started in" in text_of(page)
    assert shown_after(person, person.hand_over(back)).status_code == 200


def test_handing_it_over_twice_changes_nothing(connection, person):
    back = begin(person, connection)
    person.hand_over(back)
    before = current(connection)
    again = person.hand_over(back, fragment=fragment_of(back, access_token="another"))
    assert "is connected" in text_of(shown_after(person, again))
    after = current(connection)
    assert (after.generation, after.refreshed_at) == (before.generation, before.refreshed_at)
    assert after.access_token.open().reveal() == before.access_token.open().reveal()


def test_a_no_arrives_in_the_fragment(connection, person, provider):
    provider.authorize_error = "access_denied"
    page = shown_after(person, person.hand_over(begin(person, connection)))
    assert "Nothing was connected" in text_of(page)
    assert AuditEvent.objects.get(action="consent.failed").details["outcome"] == "denied"


def test_a_no_arrives_in_the_query_of_some(connection, person):
    back = begin(person, connection)
    page = person.open(f"{urlsplit(back).path}?error=access_denied&state={state_in(back)}")
    assert (page.status_code, AuthorizationRequest.objects.get().outcome) == (200, "denied")


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"access_token": None}, "exchange_failed"),
        ({"access_token": ""}, "exchange_failed"),
        ({"access_token": "a\0b"}, "exchange_failed"),
        ({"access_token": "a\r\nb"}, "exchange_failed"),
        ({"access_token": "tökén"}, "exchange_failed"),
        ({"error": "server_error"}, "provider_error"),
        ({"error": "<script>"}, "provider_error"),
        ({"iss": "https://other.example"}, "wrong_issuer"),
    ],
)
def test_what_is_no_token_ends_the_consent(caller, provider, person, fields, outcome):
    connection = an_oauth2_secret(caller, a_client(provider, grant_type="implicit", issuer="https://right.example"))
    back = begin(person, connection)
    page = shown_after(person, person.hand_over(back, fragment=fragment_of(back, **fields)))
    assert page.status_code == 400
    assert "<script" not in page.content.decode()
    assert AuthorizationRequest.objects.get().outcome == outcome
    stored = current(connection)
    assert (stored.status, stored.access_token) == (Status.NOT_CONNECTED, None)


@pytest.mark.parametrize(
    "fragment",
    ["", "=", "&&&", "_=_", "state", "state=%ff%00", "state=" + "x" * 100_000, "a=b&" * 3000, "%", "{}", "token"],
)
def test_garbage_is_never_a_fault_of_ours(connection, person, fragment):
    answer = person.hand_over(authorize.redirect_uri(connection.secret_id), fragment=fragment)
    assert answer.status_code in (200, 400)
    assert answer.status_code == 400 or shown_after(person, answer).status_code == 400


@pytest.mark.parametrize("name", ["access_token", "state"])
def test_a_parameter_that_comes_twice_uses_nothing_up(connection, person, name):
    back = begin(person, connection)
    page = shown_after(person, person.hand_over(back, fragment=f"{fragment_of(back)}&{name}=x"))
    assert page.status_code == 400
    assert AuthorizationRequest.objects.get().used_at is None
    assert shown_after(person, person.hand_over(back)).status_code == 200


def test_a_code_is_not_exchanged_where_a_token_was_asked_for(connection, person, provider):
    back = begin(person, connection)
    page = person.open(f"{urlsplit(back).path}?code=x&state={state_in(back)}")
    assert page.status_code == 400
    assert provider.requests == []
    assert current(connection).status == Status.NOT_CONNECTED


def test_a_token_is_not_taken_where_a_code_was_asked_for(caller, person, provider):
    connection = an_oauth2_secret(caller, a_client(provider))
    back = person.at_provider(person.start(connection))
    brought = {"access_token": "slipped-in", "state": query_of(back)["state"], "code": query_of(back)["code"]}
    page = shown_after(person, person.hand_over(back, fragment=urlencode(brought)))
    assert page.status_code == 400
    assert provider.requests == []
    assert current(connection).access_token is None


def test_a_refresh_token_is_left_where_it_is(connection, person):
    back = begin(person, connection)
    sent = fragment_of(back, refresh_token="slipped-in", refresh_token_expires_in="99999")
    shown_after(person, person.hand_over(back, fragment=sent))
    stored = current(connection)
    assert (stored.status, stored.refresh_token, stored.refresh_token_expires_at) == (Status.CONNECTED, None, None)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("120", 120), ("120.9", 120), (None, None), ("0", None), ("-5", None), ("soon", None), ("9" * 400, None)],
)
def test_the_lifetime_is_what_the_fragment_says(connection, person, said, seconds):
    back = begin(person, connection)
    person.hand_over(back, fragment=fragment_of(back, expires_in=said))
    stored = current(connection)
    assert stored.status == Status.CONNECTED
    assert (stored.expires_at and stored.expires_at - stored.issued_at) == (seconds and timedelta(seconds=seconds))


def test_at_its_end_a_person_is_needed(connection, caller, person, provider):
    person.hand_over(begin(person, connection))
    Connection.objects.update(
        issued_at=Now() - timedelta(hours=1), expires_at=Now() - timedelta(seconds=1), refresh_due_at=Now()
    )
    (claimed,) = claim_due(5)
    refresh(claimed, registrations_of([claimed.secret_id])[claimed.secret_id])
    assert current(connection).status == Status.REAUTHORIZATION_REQUIRED
    assert ConnectionEvent.objects.latest("pk").status == Status.REAUTHORIZATION_REQUIRED
    answer = caller.get(f"/v1/secrets/{connection.secret_id}/oauth2/token")
    assert (answer.status_code, answer.json()["error"]["reason"]) == (500, "reauthorization_required")
    assert provider.requests == []


def test_whoever_reads_it_at_its_end_is_told_so_before_the_sweep(connection, caller, person):
    person.hand_over(begin(person, connection))
    Connection.objects.update(
        issued_at=Now() - timedelta(hours=1), expires_at=Now() - timedelta(seconds=1), refresh_due_at=Now()
    )
    answer = caller.get(f"/v1/secrets/{connection.secret_id}/oauth2/token")
    assert (answer.status_code, answer.json()["error"]["reason"]) == (500, "reauthorization_required")


def test_a_forced_refresh_leaves_a_valid_token_as_it_is(connection, caller, person):
    person.hand_over(begin(person, connection))
    answer = caller.get(f"/v1/secrets/{connection.secret_id}/oauth2/token?force_refresh=true")
    assert answer.status_code == 200, answer.content
    assert answer.json()["data"]["generation"] == 1


def test_a_token_of_100_kb_is_a_token(connection, caller, person):
    back, token = begin(person, connection), "t" * 100_000
    shown_after(person, person.hand_over(back, fragment=fragment_of(back, access_token=token)))
    assert caller.get(f"/v1/secrets/{connection.secret_id}/oauth2/token").json()["data"]["access_token"] == token


def test_more_than_a_mebibyte_is_refused_and_uses_nothing_up(connection, person):
    back = begin(person, connection)
    sent = fragment_of(back, access_token="t" * 1024 * 1024)
    assert person.hand_over(back, fragment=sent).status_code == 413
    assert AuthorizationRequest.objects.get().used_at is None


def test_a_database_that_is_away_lets_the_script_try_again(connection, person, monkeypatch):
    def away(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("away")

    back = begin(person, connection)
    with monkeypatch.context() as patched:
        patched.setattr("oauth_app.views.complete", away)
        answer = person.hand_over(back)
    assert (answer.status_code, answer["Content-Type"], answer["Retry-After"]) == (503, "application/json", "2")
    assert answer["Cache-Control"] == "no-store"
    assert shown_after(person, person.hand_over(back)).status_code == 200


def test_a_database_that_is_away_for_the_page_is_a_page(connection, person, monkeypatch):
    def away(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("away")

    monkeypatch.setattr("oauth_app.views.find_connection", away)
    page = person.start(connection)
    assert (page.status_code, page["Content-Type"]) == (503, "text/html; charset=utf-8")


def test_the_token_is_on_no_page_in_no_log_and_in_no_address(connection, person, caplog):
    caplog.set_level("DEBUG")
    back = begin(person, connection)
    token = parse_qs(urlsplit(back).fragment)["access_token"][0]
    answers = [person.hand_over(back), person.hand_over(back, Origin="null"), person.start(connection)]
    answers.append(shown_after(person, answers[0]))
    for answer in answers:
        assert token not in answer.content.decode()
        assert not any(token in value for value in answer.headers.values())
    assert token not in answers[0].json()["next"]
    ours = [record for record in caplog.records if not record.name.startswith("urllib3")]
    assert ours
    assert not any(token in record.getMessage() + repr(record.__dict__) for record in ours)
