"""Consent links: who may make one, what uses it up, what it does to a connection that is there, and other environments."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db.models.functions import Now

from oauth_app import authorize
from oauth_app.models import AuthorizationRequest, Connection, ConnectionEvent, ConsentLink, RevocationJob
from secrets_app.crypto.cipher import Ciphertext
from secrets_app.models import ApiKey, AuditEvent
from tests.factories import Caller, a_client, a_string, an_oauth2_secret
from tests.support.crowd import all_at_once
from tests.support.person import Person, changed, query_of, text_of

Status = Connection.Status


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.fixture
def connection(caller, provider) -> Connection:
    return an_oauth2_secret(caller, a_client(provider, revocation_url=provider.revoke_url))


def ask(caller: Caller, connection: Connection, body: Any = None, **headers: str) -> Any:
    return caller.post(f"/v1/secrets/{connection.secret_id}/oauth2/authorize", body or {}, **headers)


def link_for(caller: Caller, connection: Connection, **body: Any) -> str:
    answer = ask(caller, connection, body)
    assert answer.status_code == 200, answer.content
    url: str = answer.json()["data"]["authorize_url"]
    return url


def row_of(caller: Caller, connection: Connection) -> dict[str, Any]:
    row: dict[str, Any] = caller.get(f"/v1/secrets/{connection.secret_id}").json()["data"]
    return row


# Making one


def test_a_link_is_an_address_of_ours_for_a_quarter_of_an_hour(caller, connection):
    answer = ask(caller, connection)
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert sorted(data) == ["authorize_url", "expires_at"]
    assert data["authorize_url"].startswith(f"{settings.KNOXCALL_BASE_URL}/auth/oauth2/connect?link=")
    made = ConsentLink.objects.get()
    assert datetime.fromisoformat(data["expires_at"]) == pytest.approx(made.expires_at, abs=timedelta(milliseconds=1))
    assert timedelta(minutes=14) < made.expires_at - made.created_at <= timedelta(minutes=15, seconds=1)


def test_a_retried_call_answers_with_the_same_link(caller, connection, person):
    first, again = (ask(caller, connection, X_Idempotency_Key="k").json()["data"] for _ in range(2))
    assert first == again
    assert person.consent_by(first["authorize_url"]).status_code == 200


def test_a_grant_that_needs_nobody_has_no_link(caller, provider):
    connection = an_oauth2_secret(caller, a_client(provider, grant_type="client_credentials"))
    answer = ask(caller, connection)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "validation_error")


def test_others_see_nothing_to_make_a_link_for(connection):
    assert ask(Caller(), connection).status_code == 404


def test_a_key_of_the_other_mode_sees_nothing_either(caller, connection):
    assert ask(Caller(caller.account, mode="test"), connection).status_code == 404


def test_a_string_has_no_link(caller):
    answer = caller.post(f"/v1/secrets/{a_string(caller).pk}/oauth2/authorize", {})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_type")


def test_a_key_that_only_reads_makes_no_link(caller, connection):
    answer = ask(Caller(caller.account, role=ApiKey.Role.READ_ONLY), connection)
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "forbidden")
    assert not ConsentLink.objects.exists()


@pytest.mark.parametrize(
    "body", [{"environment": "nowhere"}, {"return_url": "https://unlisted.example/"}, {"return_url": ""}, {"more": 1}]
)
def test_a_field_that_cannot_be_is_named(caller, connection, body):
    answer = ask(caller, connection, body)
    assert answer.status_code == 400
    assert list(answer.json()["fields"]) == list(body)
    assert not ConsentLink.objects.exists()


# Opening one


def test_opening_it_goes_to_the_provider_with_a_cookie(caller, connection, person, provider):
    opened = person.open(link_for(caller, connection))
    assert opened.status_code == 302
    assert opened["Location"].startswith(provider.authorize_url)
    assert opened["Referrer-Policy"] == "no-referrer"
    assert opened["Cache-Control"] == "no-store"
    asked = query_of(opened["Location"])
    assert asked["redirect_uri"] == authorize.redirect_uri(connection.secret_id)
    assert asked["code_challenge_method"] == "S256"
    (cookie,) = opened.cookies.values()
    assert cookie.key == authorize.cookie_name(asked["state"])
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/auth/oauth2/")


def test_opening_it_uses_nothing_up(caller, connection, person, http):
    link = link_for(caller, connection)
    for _ in range(19):
        assert Person(http).open(link).status_code == 302
    assert person.consent_by(link).status_code == 200


def test_a_new_link_works_at_once_however_often_the_old_one_was_opened(caller, connection, person):
    link = link_for(caller, connection)
    for _ in range(20):
        person.open(link)
    assert person.open(link).status_code == 429
    assert person.consent_by(link_for(caller, connection)).status_code == 200


@pytest.mark.parametrize("link", ["", "x" * 43, "%00", "%ff", "x" * 5000, "' OR 1=1 --"])
def test_an_unknown_link_is_a_page_of_its_own(person, db, link):
    page = person.open(f"/auth/oauth2/connect?link={link}")
    assert page.status_code == 404
    assert "There is nothing at this address" in text_of(page)


def test_only_get_opens_a_link(caller, connection, person):
    link = link_for(caller, connection)
    assert person.client.post(link).status_code == 405
    assert person.client.head(link).status_code == 405
    assert not AuthorizationRequest.objects.exists()


def test_an_expired_link_starts_nothing(caller, connection, person):
    link = link_for(caller, connection)
    ConsentLink.objects.update(expires_at=Now())
    page = person.open(link)
    assert page.status_code == 410
    assert "This link is too old" in text_of(page)
    assert not AuthorizationRequest.objects.exists()


def test_a_consent_that_began_in_time_may_end_after_its_link(caller, connection, person):
    back = person.at_provider(person.open(link_for(caller, connection)))
    ConsentLink.objects.update(expires_at=Now())
    assert person.open(back).status_code == 200


def test_a_completed_consent_uses_it_up(caller, connection, person):
    link = link_for(caller, connection)
    assert person.consent_by(link).status_code == 200
    page = person.open(link)
    assert page.status_code == 410
    assert "This link has done its job" in text_of(page)


def test_a_consent_that_was_denied_leaves_it_open(caller, connection, person, provider):
    link = link_for(caller, connection)
    provider.authorize_error = "access_denied"
    person.consent_by(link)
    provider.authorize_error = None
    person.consent_by(link)
    connection.refresh_from_db()
    assert connection.status == Status.CONNECTED


def test_a_newer_link_voids_the_older_one_and_what_it_started(caller, connection, person, provider):
    older = link_for(caller, connection)
    back = person.at_provider(person.open(older))
    newer = link_for(caller, connection)
    assert "There is a newer link" in text_of(person.open(older))
    assert person.open(back).status_code == 409
    assert provider.requests == []
    assert person.consent_by(newer).status_code == 200


def test_of_two_starts_of_one_link_one_connects(caller, connection, person, provider, http):
    link = link_for(caller, connection)
    other = Person(http)
    first, second = person.at_provider(person.open(link)), other.at_provider(other.open(link))
    assert person.open(first).status_code == 200
    assert other.open(second).status_code == 409
    connection.refresh_from_db()
    assert connection.generation == 1
    assert provider.count("authorization_code") == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_people_who_finish_at_once_one_connects_and_nothing_is_revoked(provider, http):
    caller = Caller()
    connection = an_oauth2_secret(caller, a_client(provider, revocation_url=provider.revoke_url))
    link = link_for(caller, connection)
    people = [Person(http), Person(http)]
    backs = [one.at_provider(one.open(link)) for one in people]
    provider.delay = 0.2
    pages = all_at_once(lambda: people[0].open(backs[0]), lambda: people[1].open(backs[1]))
    assert sorted(page.status_code for page in pages) == [200, 409]
    connection.refresh_from_db()
    assert connection.generation == 1
    assert provider.is_live(connection.access_token.open().reveal())
    # It could be the same account, and then the provider would end the grant that was kept.
    assert not RevocationJob.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_two_callbacks_of_one_state_at_once_one_exchanges_and_both_show_its_outcome(provider, http):
    caller = Caller()
    connection = an_oauth2_secret(caller, a_client(provider))
    person, twin = Person(http), Person(http)
    back = person.at_provider(person.open(link_for(caller, connection)))
    twin.client.cookies.update(person.client.cookies)
    provider.delay = 0.3
    pages = all_at_once(lambda: person.open(back), lambda: twin.open(back))
    assert [page.status_code for page in pages] == [200, 200]
    assert provider.count("authorization_code") == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_links_made_at_once_one_is_open(provider):
    caller = Caller()
    connection = an_oauth2_secret(caller, a_client(provider))
    all_at_once(*[lambda: link_for(caller, connection)] * 4)
    assert ConsentLink.objects.filter(voided_at=None).count() == 1
    assert ConsentLink.objects.count() == 4


# What it does to a connection


def test_a_reconnect_keeps_the_secret_and_revokes_nothing(caller, connection, person, provider):
    person.consent(connection)
    before = row_of(caller, connection)
    first = Connection.objects.get(pk=connection.pk)
    assert person.consent_by(link_for(caller, connection)).status_code == 200
    connection.refresh_from_db()
    assert row_of(caller, connection) == before
    assert connection.generation == 2
    assert connection.connected_at == first.connected_at
    assert connection.access_token.open().reveal() != first.access_token.open().reveal()
    assert provider.is_live(first.access_token.open().reveal())
    assert not RevocationJob.objects.exists()


def test_the_old_token_is_served_until_somebody_consented_anew(caller, connection, person):
    person.consent(connection)
    person.open(link_for(caller, connection))
    token = caller.get(f"/v1/secrets/{connection.secret_id}/oauth2/token").json()["data"]
    assert (token["connection_status"], token["generation"]) == ("connected", 1)


def test_a_link_brings_a_dead_grant_back(caller, connection, person):
    person.consent(connection)
    Connection.objects.update(
        status=Status.REAUTHORIZATION_REQUIRED, failure_count=3, failure_code="invalid_grant", refresh_due_at=None
    )
    assert person.consent_by(link_for(caller, connection)).status_code == 200
    connection.refresh_from_db()
    assert (connection.status, connection.failure_count, connection.failure_code) == (Status.CONNECTED, 0, "")
    assert connection.refresh_due_at is not None
    assert ConnectionEvent.objects.latest("pk").code == "consent"


def test_a_link_connects_again_what_was_disconnected_and_a_start_from_before_does_not(caller, connection, person):
    person.consent(connection)
    begun = person.at_provider(person.open(link_for(caller, connection)))
    assert caller.post(f"/v1/secrets/{connection.secret_id}/oauth2/disconnect", {}).status_code == 200
    assert person.open(begun).status_code == 409
    assert person.start(connection).status_code == 410
    assert person.consent_by(link_for(caller, connection)).status_code == 200
    connection.refresh_from_db()
    assert connection.status == Status.CONNECTED


def test_a_link_works_where_the_bare_start_is_off(caller, connection, person):
    caller.account.bare_start_enabled = False
    caller.account.save()
    assert person.start(connection).status_code == 403
    assert person.consent_by(link_for(caller, connection)).status_code == 200


def test_a_bare_start_that_a_link_overtook_changes_nothing(caller, connection, person, provider):
    back = person.at_provider(person.start(connection))
    person.consent_by(link_for(caller, connection))
    assert person.open(back).status_code == 409
    assert provider.count("authorization_code") == 1


def test_a_secret_that_was_deleted_takes_its_links_along(caller, connection, person):
    link = link_for(caller, connection)
    back = person.at_provider(person.open(link))
    assert caller.delete(f"/v1/secrets/{connection.secret_id}").status_code == 200
    assert person.open(link).status_code == 404
    assert person.open(back).status_code == 400


# Other environments


@pytest.fixture
def staging(caller) -> str:
    assert caller.post("/v1/environments", {"name": "staging", "display_name": "Staging"}).status_code == 201
    return "staging"


def test_each_environment_has_a_connection_of_its_own(caller, connection, person, staging):
    person.consent(connection)
    assert row_of(caller, connection)["environment_count"] == 1
    page = person.consent_by(link_for(caller, connection, environment=staging))
    assert page.status_code == 200
    assert staging in text_of(page)
    row = row_of(caller, connection)
    assert row["environment_count"] == 2
    assert [entry["environment_name"] for entry in row["environments"]] == ["production", "staging"]
    path = f"/v1/secrets/{connection.secret_id}/oauth2/token"
    base, other = caller.get(path).json()["data"], caller.get(f"{path}?environment=staging").json()["data"]
    assert base["access_token"] != other["access_token"]
    assert (base["generation"], other["generation"]) == (1, 1)


def test_an_environment_that_was_only_asked_for_has_no_token(caller, connection, person, staging):
    person.consent(connection)
    link_for(caller, connection, environment=staging)
    answer = caller.get(f"/v1/secrets/{connection.secret_id}/oauth2/token?environment=staging")
    assert (answer.status_code, answer.json()["error"]["reason"]) == (500, "not_connected")


def test_links_of_two_environments_do_not_void_each_other(caller, connection, person, staging):
    first, second = link_for(caller, connection), link_for(caller, connection, environment=staging)
    assert person.consent_by(first).status_code == 200
    assert person.consent_by(second).status_code == 200


# The issuer that the answer names (RFC 9207)


@pytest.mark.parametrize(
    ("named", "requires", "status"),
    [
        ("https://right.example", True, 200),
        ("https://right.example", False, 200),
        ("https://wrong.example", False, 400),
        ("https://right.example/", True, 400),
        (None, True, 400),
        (None, False, 200),
    ],
)
def test_an_issuer_that_is_known_is_compared(caller, person, provider, named, requires, status):
    client = a_client(provider, issuer="https://right.example", requires_iss=requires)
    connection = an_oauth2_secret(caller, client)
    back = person.at_provider(person.open(link_for(caller, connection)))
    assert person.open(changed(back, iss=named)).status_code == status
    assert provider.count("authorization_code") == (1 if status == 200 else 0)


def test_an_error_of_another_issuer_is_not_believed_either(caller, person, provider):
    connection = an_oauth2_secret(caller, a_client(provider, issuer="https://right.example"))
    back = person.at_provider(person.open(link_for(caller, connection)))
    page = person.open(changed(back, code=None, error="access_denied", iss="https://wrong.example"))
    assert "We stopped this to be safe" in text_of(page)


@pytest.mark.parametrize("named", ["https://new.example", "https://new.example\0\r\n"])
def test_an_issuer_of_whom_nothing_is_known_is_recorded(caller, connection, person, named):
    back = person.at_provider(person.open(link_for(caller, connection)))
    assert person.open(changed(back, iss=named)).status_code == 200
    assert AuditEvent.objects.get(action="consent.completed").details["iss"] == "https://new.example"


# What is left of it


def test_everything_about_it_is_audited(caller, connection, person, provider):
    link = link_for(caller, connection)
    provider.authorize_error = "access_denied"
    person.consent_by(link)
    provider.authorize_error = None
    person.consent_by(link)
    events = AuditEvent.objects.filter(action__startswith="consent.", resource_id=str(connection.secret_id))
    assert [(event.action, event.actor, event.ip_address) for event in events.order_by("created_at", "pk")] == [
        ("consent.link_created", caller.row.key_id, "127.0.0.1"),
        ("consent.started", "browser", "127.0.0.1"),
        ("consent.failed", "browser", "127.0.0.1"),
        ("consent.started", "browser", "127.0.0.1"),
        ("consent.completed", "browser", "127.0.0.1"),
    ]
    assert {event.details["environment"] for event in events} == {"production"}


def test_its_token_is_in_no_log_and_not_in_the_database(caller, connection, person, caplog):
    caplog.set_level("DEBUG")
    link = link_for(caller, connection)
    person.consent_by(link)
    person.open(link)
    token = query_of(link)["link"]
    assert caplog.records
    for record in caplog.records:
        assert token not in record.getMessage() + repr(record.__dict__)
    for model in (ConsentLink, AuthorizationRequest, AuditEvent, ConnectionEvent):
        for row in model.objects.values():
            assert not any(token.encode() in stored_bytes(value) for value in row.values())


def stored_bytes(value: Any) -> bytes:
    if isinstance(value, Ciphertext):
        return b""
    return bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
