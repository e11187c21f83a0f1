"""The client secret that was replaced: for a day it is tried where the provider does not know the new one yet."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db.models.functions import Now

from oauth_app import calls
from oauth_app.clients import erase_previous_secrets, open_client
from oauth_app.fake_provider import Answer, FakeProvider
from oauth_app.models import ClientRegistration, Connection, ConnectionEvent
from oauth_app.protocol.requests import grant_request
from tests.factories import Caller, a_certificate, a_client, age, an_oauth2_secret, consent, consent_by_link
from tests.oauth_app.test_change_client import change, path_of, renew

NEW = "sesame-new-secret"
CODE = "previous_client_secret_in_use"


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.fixture(params=["authorization_code", "client_credentials", "password"])
def connected(request, caller, provider, http) -> Connection:
    """Connected by every grant that has a token endpoint."""
    connection = an_oauth2_secret(caller, a_client(provider, grant_type=request.param))
    return consent(connection, http) if request.param == "authorization_code" else connection


@pytest.fixture
def robot(caller, provider) -> Connection:
    return an_oauth2_secret(caller, a_client(provider, grant_type="client_credentials"))


def secrets_shown(provider: FakeProvider) -> list[str | None]:
    return [request.client_secret for request in provider.requests]


def codes(state: dict[str, Any]) -> list[str]:
    return [item["code"] for item in state["attention"]]


def state_of(caller: Caller, connection: Connection) -> dict[str, Any]:
    state: dict[str, Any] = caller.get(path_of(connection)).json()["data"]
    return state


def previous_of(connection: Connection) -> str | None:
    return open_client(ClientRegistration.objects.get(pk=connection.secret_id)).previous_client_secret


def test_it_is_tried_once_where_the_new_one_is_not_known(caller, connected, provider, caplog):
    caplog.set_level("DEBUG")
    old = provider.client_secret
    change(caller, connected, client_secret=NEW)
    answer = renew(caller, connected)
    assert answer.json()["data"]["generation"] == 2
    assert secrets_shown(provider)[1:] == [NEW, old]
    (item,) = state_of(caller, connected)["attention"]
    assert (item["code"], item["since"] is not None) == (CODE, True)
    (event,) = ConnectionEvent.objects.filter(code=CODE)
    assert (event.previous_status, event.status) == ("connected", "connected")
    for text in (caplog.text, str(event.message), str(state_of(caller, connected))):
        assert NEW not in text
        assert old not in text


def test_it_is_told_once_and_forgotten_when_the_new_one_works(caller, robot, provider):
    change(caller, robot, client_secret=NEW)
    for _ in range(2):
        renew(caller, robot)
    since = state_of(caller, robot)["attention"][0]["since"]
    assert ConnectionEvent.objects.filter(code=CODE).count() == 1
    renew(caller, robot)
    assert state_of(caller, robot)["attention"][0]["since"] == since
    provider.client_secret = NEW
    renew(caller, robot)
    assert secrets_shown(provider)[-1] == NEW
    assert state_of(caller, robot)["attention"] == []


@pytest.mark.parametrize("link", [False, True])
def test_it_lets_a_code_be_exchanged(caller, provider, http, link):
    connection = an_oauth2_secret(caller, a_client(provider))
    change(caller, connection, client_secret=NEW)
    after = consent_by_link(caller, connection, http) if link else consent(connection, http)
    assert after.status == "connected"
    assert secrets_shown(provider) == [NEW, provider.client_secret]
    assert codes(state_of(caller, connection)) == [CODE]


@pytest.mark.parametrize(
    "word", ["invalid_client", "incorrect_client_credentials", "bad_client_secret", "access_denied"]
)
def test_it_is_tried_on_the_providers_own_words_too(caller, robot, provider, word):
    change(caller, robot, client_secret=NEW)
    provider.client_error = word
    assert renew(caller, robot).json()["data"]["generation"] == 2


@pytest.mark.parametrize(
    "answer",
    [
        Answer.error("invalid_grant"),
        Answer.error("unauthorized_client"),
        Answer.error("invalid_scope"),
        Answer.error("access_denied", status=403),
        Answer.error("invalid_client", status=503),
        Answer.busy(429),
        Answer.busy(503),
        Answer.html(502),
        Answer(drop="closed"),
        Answer(drop="mid-answer"),
    ],
    ids=lambda answer: f"{answer.status} {answer.body or answer.drop}"[:50],
)
def test_it_is_tried_on_nothing_else(caller, provider, http, answer):
    connection = consent(an_oauth2_secret(caller, a_client(provider)), http)
    change(caller, connection, client_secret=NEW)
    provider.next(answer)
    renew(caller, connection)
    assert secrets_shown(provider) == [provider.client_secret, NEW]


def test_where_neither_is_known_it_is_the_new_one_that_is_refused(caller, robot, provider):
    change(caller, robot, client_secret=NEW)
    provider.client_secret = "a third"
    renew(caller, robot)
    assert len(provider.requests) == 3
    state = state_of(caller, robot)
    assert state["last_error"]["code"] == "invalid_client"
    assert state["attention"] == []


def test_a_grant_that_is_found_dead_with_it_is_dead(caller, provider, http):
    connection = consent(an_oauth2_secret(caller, a_client(provider)), http)
    change(caller, connection, client_secret=NEW)
    provider.revoke_grants()
    renew(caller, connection)
    assert state_of(caller, connection)["connection_status"] == "reauthorization_required"


def test_an_outcome_that_gets_lost_with_it_is_unknown(caller, provider, http):
    connection = consent(an_oauth2_secret(caller, a_client(provider)), http)
    change(caller, connection, client_secret=NEW)
    provider.next(Answer.error("invalid_client", status=401))
    provider.next(Answer(drop="closed", takes_effect=True))
    renew(caller, connection)
    assert codes(state_of(caller, connection)) == ["refresh_outcome_unknown"]


def test_both_calls_share_one_deadline(caller, robot, monkeypatch):
    given: list[float] = []
    clock = iter([100.0, 100.5, 107.5])
    send = calls.http.send

    def note(*args: Any, deadline: float, **kwargs: Any) -> Any:
        given.append(deadline)
        return send(*args, deadline=deadline, **kwargs)

    change(caller, robot, client_secret=NEW)
    client = open_client(ClientRegistration.objects.get())
    monkeypatch.setattr(calls.http, "send", note)
    monkeypatch.setattr(calls, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    calls.fetch_token(client, grant_request)
    assert given == [19.5, 12.5]


# How long it is kept


def test_it_is_kept_for_a_day_and_then_erased(caller, robot):
    change(caller, robot, client_secret=NEW)
    row = ClientRegistration.objects.annotate(now=Now()).get()
    assert timedelta(hours=23, minutes=59) < row.previous_client_secret_expires_at - row.now <= timedelta(hours=24)
    assert erase_previous_secrets() == 0
    ClientRegistration.objects.update(previous_client_secret_expires_at=Now())
    assert erase_previous_secrets() == 1
    row.refresh_from_db()
    assert (row.previous_client_secret, row.previous_client_secret_expires_at) == (None, None)


def test_after_a_day_it_is_not_tried_although_it_is_still_there(caller, robot, provider):
    change(caller, robot, client_secret=NEW)
    renew(caller, robot)
    ClientRegistration.objects.update(previous_client_secret_expires_at=Now())
    renew(caller, robot)
    assert secrets_shown(provider)[-1] == NEW
    assert codes(state_of(caller, robot)) == []


@pytest.mark.parametrize("together", [True, False])
def test_a_secret_that_leaked_is_dropped_at_once(caller, robot, provider, together):
    if together:
        change(caller, robot, client_secret=NEW, keep_previous=False)
    else:
        change(caller, robot, client_secret=NEW)
        renew(caller, robot)
        assert codes(change(caller, robot, keep_previous=False)) == []
    assert ClientRegistration.objects.get().previous_client_secret is None
    renew(caller, robot)
    assert secrets_shown(provider)[-1] == NEW


def test_a_second_change_takes_its_place(caller, robot, provider):
    change(caller, robot, client_secret="between")
    renew(caller, robot)
    assert codes(change(caller, robot, client_secret=NEW)) == []
    assert previous_of(robot) == "between"
    renew(caller, robot)
    assert secrets_shown(provider)[-2:] == [NEW, "between"]


def test_the_same_secret_again_replaces_nothing(caller, robot, provider):
    change(caller, robot, client_secret=NEW)
    change(caller, robot, client_secret=NEW, scopes=["x"])
    assert previous_of(robot) == provider.client_secret


@pytest.mark.parametrize("further", [{"client_id": "another"}, {"token_url": "https://another.example/token"}])
@pytest.mark.parametrize("together", [True, False])
def test_another_client_is_never_shown_it(caller, robot, further, together):
    if together:
        change(caller, robot, client_secret=NEW, **further)
    else:
        change(caller, robot, client_secret=NEW)
        change(caller, robot, client_secret="newer", **further)
    assert ClientRegistration.objects.get().previous_client_secret is None


def test_a_client_that_shows_no_secret_any_more_keeps_none(caller, robot):
    certificate = a_certificate(caller)
    change(caller, robot, client_secret=None, mtls_certificate_id=str(certificate.pk))
    assert ClientRegistration.objects.get().previous_client_secret is None


def test_it_helps_after_the_token_has_expired(caller, robot):
    change(caller, robot, client_secret=NEW)
    age(robot, expires_in=-1)
    assert caller.get(f"{path_of(robot)}/token").status_code == 200
