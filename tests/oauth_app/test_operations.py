"""What operators can do to a connection, and what they are told of it beyond its status."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.sessions.models import Session
from django.db.models.functions import Now
from django.test import Client

from oauth_app.fake_provider import Answer
from oauth_app.models import Connection, ConsentLink, ReturnOrigin
from oauth_app.operations import OPERATIONS
from secrets_app.models import AuditEvent
from tests.factories import Caller, a_client, age, an_oauth2_secret, consent

pytestmark = pytest.mark.django_db
LIST = "/admin/oauth_app/connection/"
Status = Connection.Status


def staff(name: str, *permissions: str) -> Client:
    user = get_user_model().objects.create_user(name, password="-", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def operator() -> Client:
    return staff("operator", "view_connection", "change_connection")


@pytest.fixture
def caller() -> Caller:
    return Caller()


@pytest.fixture
def connected(caller, provider, http) -> Connection:
    return consent(an_oauth2_secret(caller, a_client(provider)), http)


def path_of(connection: Connection, operation: str = "change") -> str:
    return f"{LIST}{connection.pk}/{operation}/"


def text_of(answer: Any) -> str:
    assert answer.status_code == 200, answer.status_code
    text: str = html.unescape(answer.content.decode())
    return text


def test_list_and_detail_tell_what_there_is_to_know_and_whose_account_it_is(operator, connected):
    before = text_of(operator.get(LIST)) + text_of(operator.get(path_of(connected)))
    assert "refresh_outcome_unknown" not in before
    Connection.objects.update(outcome_unknown_at=Now(), connected_as="ada@example.com")
    for page in (LIST, path_of(connected)):
        shown = text_of(operator.get(page))
        assert "refresh_outcome_unknown" in shown
        assert "nobody knows whether the provider used up the refresh token" in shown
        assert "ada@example.com" in shown


def test_what_the_provider_says_is_not_markup(operator, connected):
    Connection.objects.update(connected_as="<script>alert(1)</script>", failure_code="x", failure_message="<b>'\">")
    for page in (LIST, path_of(connected)):
        shown = operator.get(page).content.decode()
        assert "<script>alert(1)" not in shown
        assert "<b>'" not in shown


@pytest.mark.parametrize("operation", OPERATIONS)
def test_who_may_only_look_is_offered_nothing_and_does_nothing(connected, provider, operation):
    viewer = staff("viewer", "view_connection")
    assert f"/{operation}/" not in text_of(viewer.get(path_of(connected)))
    for answer in (viewer.get(path_of(connected, operation)), viewer.post(path_of(connected, operation))):
        assert answer.status_code == 403
    assert Client().post(path_of(connected, operation)).status_code == 302
    connected.refresh_from_db()
    assert (connected.status, provider.refreshes, ConsentLink.objects.count()) == (Status.CONNECTED, 0, 0)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_asks_before_it_acts(operator, connected, provider, operation):
    assert f'href="{path_of(connected, operation)}"' in text_of(operator.get(path_of(connected)))
    assert '<form method="post">' in text_of(operator.get(path_of(connected, operation)))
    connected.refresh_from_db()
    assert (connected.status, provider.refreshes, ConsentLink.objects.count()) == (Status.CONNECTED, 0, 0)
    assert operator.get(f"{LIST}{connected.secret_id}/{operation}/").status_code == 404


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_wants_its_token_against_forgery(connected, operation):
    user = get_user_model().objects.create_superuser("root", password="-")
    forged = Client(enforce_csrf_checks=True)
    forged.force_login(user)
    assert forged.post(path_of(connected, operation)).status_code == 403


def test_a_consent_link_is_shown_once_and_nowhere_else(operator, connected, caplog):
    caplog.set_level("DEBUG")
    answer = operator.post(path_of(connected, "consent-link"))
    match = re.search(r"http://localhost:8000/auth/oauth2/connect\?link=([\w-]{43})<", answer.content.decode())
    assert match
    token = match[1]
    assert "no-store" in answer["Cache-Control"]
    assert token not in caplog.text
    assert not any(token in str(session.get_decoded()) for session in Session.objects.all())
    assert "messages" not in operator.cookies
    for page in (path_of(connected, "consent-link"), path_of(connected), LIST):
        assert token not in text_of(operator.get(page))
    event = AuditEvent.objects.get(action="consent.link_created")
    assert "operator" in event.actor
    assert token not in str(event.details)


def test_an_address_to_return_to_must_be_allowed(operator, connected, caller):
    body = {"return_url": " https://app.example/done "}
    refused = text_of(operator.post(path_of(connected, "consent-link"), body))
    assert 'role="alert"' in refused
    assert not ConsentLink.objects.exists()
    ReturnOrigin.objects.create(account=caller.account, origin="https://app.example")
    operator.post(path_of(connected, "consent-link"), body)
    assert ConsentLink.objects.get().return_url == "https://app.example/done"


def test_a_refresh_says_what_came_of_it(operator, connected, provider):
    assert "The token was refreshed." in text_of(operator.post(path_of(connected, "refresh")))
    assert provider.refreshes == 1
    provider.answer = Answer.busy(503, retry_after=60)
    assert "The present token is still valid." in text_of(operator.post(path_of(connected, "refresh")))
    age(connected, expires_in=-1)
    assert 'role="alert"' in text_of(operator.post(path_of(connected, "refresh")))


def test_a_connection_is_ended_and_the_operator_is_named(operator, connected):
    assert "The connection has ended." in text_of(operator.post(path_of(connected, "disconnect")))
    connected.refresh_from_db()
    assert (connected.status, connected.access_token) == (Status.DISCONNECTED, None)
    event = AuditEvent.objects.get(action="connection.ended")
    assert "operator" in event.actor


def test_no_link_is_offered_where_nobody_can_consent(operator, caller, provider):
    robot = an_oauth2_secret(caller, a_client(provider, grant_type="client_credentials"))
    assert "consent-link" not in text_of(operator.get(path_of(robot)))
    assert 'role="alert"' in text_of(operator.post(path_of(robot, "consent-link")))
