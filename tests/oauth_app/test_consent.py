"""The consent, through its pages: what a person sees, and everything a callback must prove before a code is exchanged."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import OperationalError
from django.db.models.functions import Now

from oauth_app import authorize, complete
from oauth_app.fake_provider import Answer
from oauth_app.models import AuthorizationRequest, Connection
from secrets_app.models import AuditEvent
from tests.factories import Caller, a_client, an_oauth2_secret
from tests.support.crowd import all_at_once
from tests.support.person import Person, changed, text_of

Status = Connection.Status


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.fixture
def connection(caller, provider) -> Connection:
    return an_oauth2_secret(caller, a_client(provider))


def test_a_consent_connects(person, connection, provider):
    page = person.consent(connection)
    assert page.status_code == 200
    connection.refresh_from_db()
    assert connection.status == Status.CONNECTED
    assert connection.generation == 1
    assert provider.is_live(connection.access_token.open().reveal())
    assert connection.refresh_due_at is not None
    assert connection.connected_at is not None


def test_the_start_sets_a_cookie_that_only_the_callback_sees(person, connection):
    started = person.start(connection)
    assert started.status_code == 302
    (cookie,) = started.cookies.values()
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert cookie["path"] == "/auth/oauth2/"
    assert cookie["max-age"] == 900
    assert not cookie["secure"]


def test_over_https_the_cookie_is_secure(person, connection, settings):
    settings.PLAIN_HTTP = False
    (cookie,) = person.start(connection).cookies.values()
    assert cookie["secure"]


def test_pages_and_redirects_are_never_cached_and_give_no_referrer(person, connection):
    for answer in (person.start(connection), person.consent(connection)):
        assert answer["Cache-Control"] == "no-store"
        assert answer["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in answer["Content-Security-Policy"]


def test_a_start_asks_with_pkce_and_an_own_state(person, connection):
    queries = [parse_qs(urlsplit(person.start(connection)["Location"]).query) for _ in range(2)]
    assert queries[0]["code_challenge_method"] == ["S256"]
    assert queries[0]["state"] != queries[1]["state"]
    assert queries[0]["code_challenge"] != queries[1]["code_challenge"]
    assert len(queries[0]["state"][0]) >= 43


def test_state_cookie_and_verifier_are_stored_as_digests_or_sealed(person, connection):
    started = person.start(connection)
    state = parse_qs(urlsplit(started["Location"]).query)["state"][0]
    (cookie,) = started.cookies.values()
    row = AuthorizationRequest.objects.values().get()
    stored = repr({k: bytes(v) if isinstance(v, bytes | memoryview) else v for k, v in row.items()})
    assert state not in stored
    assert cookie.value not in stored


def test_two_tabs_do_not_undo_each_other(person, connection):
    first, second = person.start(connection), person.start(connection)
    back_first, back_second = person.at_provider(first), person.at_provider(second)
    assert person.open(back_first).status_code == 200
    assert "superseded" not in back_second
    # The bare start makes the first connection only: whoever finishes second is told so.
    assert person.open(back_second).status_code == 409
    connection.refresh_from_db()
    assert connection.generation == 1


def test_a_callback_reached_twice_shows_its_outcome_and_exchanges_nothing(person, connection, provider):
    back = person.at_provider(person.start(connection))
    first, again = person.open(back), person.open(back)
    assert (first.status_code, again.status_code) == (200, 200)
    assert re.sub(r"[0-9a-f-]{36}", "", text_of(again)) == re.sub(r"[0-9a-f-]{36}", "", text_of(first))
    assert provider.count("authorization_code") == 1


def test_a_cookie_that_was_made_up_proves_nothing(person, connection, provider, http):
    back = person.at_provider(person.start(connection))
    forger = Person(http)
    forger.client.cookies[authorize.cookie_name(parse_qs(urlsplit(back).query)["state"][0])] = "made-up"
    assert forger.open(back).status_code == 403
    assert provider.requests == []


def test_another_browser_exchanges_nothing(person, connection, provider, http):
    back = person.at_provider(person.start(connection))
    page = Person(http).open(back)
    assert page.status_code == 403
    assert provider.requests == []
    # And it used nothing up: the right browser still can.
    assert person.open(back).status_code == 200


def test_an_unknown_state_exchanges_nothing(person, connection, provider):
    back = person.at_provider(person.start(connection))
    assert person.open(changed(back, state="x" * 43)).status_code == 400
    assert person.open(changed(back, state=None)).status_code == 400
    assert provider.requests == []


def test_another_secrets_state_exchanges_nothing(person, connection, caller, provider):
    other = an_oauth2_secret(caller, a_client(provider), name="other")
    back = person.at_provider(person.start(connection))
    assert person.open(back.replace(str(connection.secret_id), str(other.secret_id))).status_code == 400
    assert provider.requests == []


def test_an_expired_state_exchanges_nothing(person, connection, provider):
    back = person.at_provider(person.start(connection))
    AuthorizationRequest.objects.update(
        created_at=Now() - timedelta(minutes=20), expires_at=Now() - timedelta(minutes=5)
    )
    assert person.open(back).status_code == 410
    assert provider.requests == []


def test_parameters_that_come_twice_exchange_nothing(person, connection, provider):
    back = person.at_provider(person.start(connection))
    assert person.open(back + "&code=another").status_code == 400
    assert provider.requests == []


def test_an_answer_of_another_issuer_exchanges_nothing(person, caller, provider):
    connection = an_oauth2_secret(caller, a_client(provider, issuer="https://right.example"))
    back = person.at_provider(person.start(connection))
    assert person.open(changed(back, iss="https://wrong.example")).status_code == 400
    assert provider.requests == []


def test_a_person_who_says_no_sees_that_nothing_happened(person, connection, provider):
    provider.authorize_error = "access_denied"
    page = person.consent(connection)
    assert page.status_code == 200
    connection.refresh_from_db()
    assert connection.status == Status.NOT_CONNECTED
    assert AuditEvent.objects.filter(action="consent.failed").get().details["outcome"] == "denied"


def test_a_providers_words_are_shown_escaped_and_only_to_the_browser_that_asked(person, connection, provider, http):
    back = changed(
        person.at_provider(person.start(connection)),
        code=None,
        error="server_error",
        error_description="<script>alert(1)</script>",
    )
    stranger = Person(http).open(back)
    assert "alert(1)" not in stranger.content.decode()
    page = person.open(back)
    assert page.status_code == 400
    assert "alert(1)" in page.content.decode()
    assert "<script>" not in page.content.decode()


def test_a_code_that_the_provider_refuses_says_what_to_check(person, connection, provider):
    provider.next(Answer.error("invalid_grant"), endpoint="token")
    page = person.consent(connection)
    assert page.status_code == 400
    connection.refresh_from_db()
    assert connection.status == Status.NOT_CONNECTED


@pytest.mark.parametrize("answer", [Answer.html(502), Answer.empty(200), Answer.busy(503)])
def test_a_provider_that_answers_nonsense_is_a_page_too(person, connection, provider, answer):
    provider.next(answer, endpoint="token")
    assert person.consent(connection).status_code == 503


def test_no_refresh_token_is_connected_with_a_warning(person, connection, provider):
    provider.omit = {"refresh_token"}
    page = person.consent(connection)
    assert page.status_code == 200
    connection.refresh_from_db()
    assert connection.status == Status.CONNECTED
    assert connection.refresh_due_at == connection.expires_at
    assert AuthorizationRequest.objects.get().outcome == "connected_without_refresh_token"


def test_what_was_granted_is_stored_as_the_provider_says_it(person, connection, provider):
    provider.scope = "read write"
    person.consent(connection)
    connection.refresh_from_db()
    assert connection.granted_scopes == ["read", "write"]


def test_a_database_that_is_away_when_the_token_came_loses_no_consent(person, connection, monkeypatch):
    failures = iter([OperationalError("away"), OperationalError("away")])
    store = complete._store

    def flaky(*args: Any) -> Any:
        for failure in failures:
            raise failure
        return store(*args)

    monkeypatch.setattr(complete, "_store", flaky)
    assert person.consent(connection).status_code == 200


def test_a_fault_of_ours_in_the_exchange_ends_the_consent(person, connection, monkeypatch):
    def broken(*args: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(complete, "_exchange", broken)
    person.client.raise_request_exception = False
    back = person.at_provider(person.start(connection))
    assert person.open(back).status_code == 500
    assert AuthorizationRequest.objects.get().outcome == "interrupted"
    assert person.open(back).status_code == 503
    assert person.start(connection).status_code == 302


def test_a_consent_whose_process_died_says_so_at_once(person, connection):
    back = person.at_provider(person.start(connection))
    AuthorizationRequest.objects.update(used_at=Now() - timedelta(seconds=31))
    assert person.open(back).status_code == 503


def test_neither_a_refresh_token_nor_an_expiry_needs_no_warning(person, connection, provider):
    provider.omit = {"refresh_token", "expires_in"}
    person.consent(connection)
    assert AuthorizationRequest.objects.get().outcome == "connected"


class TestBareStart:
    """The redirect URI as a start: for the first connection, for a day, and not where the account said no."""

    def test_it_is_closed_after_the_first_connection(self, person, connection):
        person.consent(connection)
        assert person.start(connection).status_code == 410

    def test_it_is_closed_after_24_hours(self, person, connection):
        Connection.objects.update(created_at=Now() - timedelta(hours=25))
        assert person.start(connection).status_code == 410

    def test_it_is_closed_where_the_account_turned_it_off(self, person, connection):
        connection.account.bare_start_enabled = False
        connection.account.save()
        assert person.start(connection).status_code == 403

    def test_at_most_twenty_are_open_at_a_time(self, person, connection):
        for _ in range(20):
            assert person.start(connection).status_code == 302
        assert person.start(connection).status_code == 429
        AuthorizationRequest.objects.update(
            created_at=Now() - timedelta(minutes=20), expires_at=Now() - timedelta(minutes=5)
        )
        assert person.start(connection).status_code == 302

    def test_a_grant_without_browser_has_nothing_to_start(self, person, caller, provider):
        connection = an_oauth2_secret(caller, a_client(provider, grant_type="client_credentials"))
        assert person.start(connection).status_code == 400

    def test_an_unknown_secret_is_404(self, person, db):
        assert person.client.get("/auth/oauth2/callback/00000000-0000-4000-8000-000000000000").status_code == 404
        assert person.client.get("/auth/oauth2/callback/no-uuid").status_code == 404

    def test_other_methods_are_405(self, person, connection):
        assert person.client.put(f"/auth/oauth2/callback/{connection.secret_id}").status_code == 405
        assert person.client.head(f"/auth/oauth2/callback/{connection.secret_id}").status_code == 405
        assert not AuthorizationRequest.objects.exists()


def test_every_start_and_outcome_is_audited_with_its_address(person, connection):
    person.consent(connection)
    events = AuditEvent.objects.filter(resource_id=str(connection.secret_id), action__startswith="consent.")
    assert sorted(events.values_list("action", "ip_address")) == [
        ("consent.completed", "127.0.0.1"),
        ("consent.started", "127.0.0.1"),
    ]


def test_a_database_that_is_away_is_a_page_that_says_nothing_was_lost(person, connection, monkeypatch):
    def away(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("away")

    monkeypatch.setattr("oauth_app.views.start_bare", away)
    assert person.start(connection).status_code == 503


def test_codes_and_states_reach_no_log(person, connection, caplog):
    caplog.set_level("DEBUG")
    started = person.start(connection)
    (cookie,) = started.cookies.values()
    back = person.at_provider(started)
    person.open(back)
    query = parse_qs(urlsplit(back).query)
    ours = "\n".join(record.getMessage() for record in caplog.records)
    for planted in (query["code"][0], query["state"][0], cookie.value, "fake-access", "fake-refresh"):
        assert planted not in ours


def test_no_page_shows_a_token_a_code_or_a_state(person, connection):
    back = person.at_provider(person.start(connection))
    page = person.open(back).content.decode()
    query = parse_qs(urlsplit(back).query)
    for planted in (query["code"][0], query["state"][0], "fake-access", "fake-refresh", "fake-client-secret"):
        assert planted not in page


@pytest.mark.django_db(transaction=True)
def test_of_two_callbacks_at_once_one_exchanges_and_both_show_its_outcome(provider, http):
    connection = an_oauth2_secret(Caller(), a_client(provider))
    person = Person(http)
    back = person.at_provider(person.start(connection))
    provider.delay = 0.5

    def arrive() -> Any:
        twin = Person(http)
        twin.client.cookies.update(person.client.cookies)
        return twin.open(back)

    pages = all_at_once(arrive, arrive)
    assert [page.status_code for page in pages] == [200, 200]
    assert provider.count("authorization_code") == 1


def test_ended_consents_are_pruned_after_a_day(person, connection):
    person.consent(connection)
    assert authorize.prune() == 0
    AuthorizationRequest.objects.update(created_at=Now() - timedelta(days=2), expires_at=Now() - timedelta(days=1.5))
    assert authorize.prune() == 1
