"""Reading tokens: what is served, what is renewed first, and what is said when there is none."""

from __future__ import annotations

import threading
import time
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from knoxcall import waiting
from oauth_app import breaker, tokens
from oauth_app.breaker import Verdict
from oauth_app.clients import callee_of
from oauth_app.fake_provider import Answer
from oauth_app.hosts import Callee, hosts
from oauth_app.models import Connection
from secrets_app.crypto.cipher import Ciphertext
from secrets_app.models import Environment, Secret
from tests.factories import Caller, a_client, a_string, age, an_oauth2_secret, consent
from tests.support.crowd import all_at_once

Status = Connection.Status


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.fixture
def connected(caller, provider, http) -> Connection:
    """Connected by consent, with an hour to live."""
    return consent(an_oauth2_secret(caller, a_client(provider)), http)


@pytest.fixture
def read(caller, connected):
    def read(query: str = "", **headers: str) -> Any:
        return caller.get(f"/v1/secrets/{connected.secret_id}/oauth2/token{query}", **headers)

    return read


def test_a_valid_token_is_served_without_the_network(read, provider):
    provider.stop()
    answer = read()
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert data["access_token"].startswith("fake-access-")
    assert data["token_type"] == "Bearer"
    assert data["connection_status"] == "connected"
    assert data["generation"] == 1
    assert 3590 <= data["expires_in"] <= 3600
    assert data["expires_at"].endswith("Z")
    assert "refresh_error" not in data
    assert "expired" not in data
    assert answer["Cache-Control"] == "no-store"


def test_a_token_that_is_due_but_valid_is_served_at_once(read, connected, provider):
    age(connected, expires_in=5)
    assert read().json()["data"]["generation"] == 1
    assert provider.refreshes == 0


def test_an_expired_token_is_renewed_before_answering(read, connected, provider):
    age(connected, expires_in=-1)
    data = read().json()["data"]
    assert data["generation"] == 2
    assert provider.is_live(data["access_token"])
    assert provider.refreshes == 1


def test_a_token_that_never_expires_is_served_for_ever(caller, provider, http):
    provider.omit = {"expires_in", "refresh_token"}
    connection = consent(an_oauth2_secret(caller, a_client(provider)), http)
    data = caller.get(f"/v1/secrets/{connection.secret_id}/oauth2/token").json()["data"]
    assert (data["expires_at"], data["expires_in"]) == (None, None)
    assert connection.refresh_due_at is None


def test_min_ttl_renews_a_token_that_is_too_short(read, connected, provider):
    age(connected, expires_in=60)
    assert read("?min_ttl=30").json()["data"]["generation"] == 1
    assert read("?min_ttl=120").json()["data"]["generation"] == 2


def test_min_ttl_is_capped_at_half_the_tokens_lifetime(read, connected, provider):
    age(connected, expires_in=60, lifetime=100)
    assert read("?min_ttl=3600").json()["data"]["generation"] == 1


def test_min_ttl_is_best_effort(read, connected, provider):
    age(connected, expires_in=60)
    provider.answer = Answer.busy(503, retry_after=60)
    answer = read("?min_ttl=3000")
    assert answer.status_code == 200
    assert answer.json()["data"]["refresh_error"]["reason"] == "provider_unavailable"


def test_force_refresh_brings_a_new_token(read, connected):
    assert read("?force_refresh=true").json()["data"]["generation"] == 2


@pytest.mark.parametrize(
    "query",
    ["?min_ttl=-1", "?min_ttl=3601", "?min_ttl=soon", "?min_ttl=1.5", "?force_refresh=maybe", "?environment=none"],
)
def test_a_bad_query_is_400_and_names_the_field(read, query):
    answer = read(query)
    assert answer.status_code == 400
    assert list(answer.json()["fields"]) == [query[1:].split("=")[0]]


def test_an_environment_without_connection_is_not_connected(read, caller):
    Environment.objects.create(account=caller.account, mode="live", name="staging", display_name="Staging")
    answer = read("?environment=staging")
    assert answer.status_code == 500
    assert answer.json()["error"]["reason"] == "not_connected"


def test_the_base_environment_may_be_named(read):
    assert read("?environment=production").status_code == 200


def test_a_secret_of_another_type_is_invalid_type(caller):
    answer = caller.get(f"/v1/secrets/{a_string(caller).pk}/oauth2/token")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_type")


def test_nobody_else_reads_the_token(connected):
    stranger = Caller()
    path = f"/v1/secrets/{connected.secret_id}/oauth2/token"
    answers = [
        stranger.get(path),
        Caller(connected.account, mode="test").get(path),
        stranger.get("/v1/secrets/x/oauth2/token"),
    ]
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert len({answer.json()["error"]["message"] for answer in answers}) == 1


def test_a_secret_that_nobody_connected_is_not_connected(caller, provider):
    connection = an_oauth2_secret(caller, a_client(provider))
    answer = caller.get(f"/v1/secrets/{connection.secret_id}/oauth2/token")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "token_error"
    assert answer.json()["error"]["reason"] == "not_connected"
    assert "Retry-After" not in answer.headers


def test_a_dead_grant_asks_for_a_person_and_stays_so(read, connected, provider):
    provider.revoke_grants()
    age(connected, expires_in=-1)
    for _ in range(3):
        assert read().json()["error"]["reason"] == "reauthorization_required"
    assert provider.count("refresh_token") == 1


def test_a_dead_grant_serves_the_valid_token_to_its_end(read, connected, provider):
    provider.revoke_grants()
    data = read("?force_refresh=true").json()["data"]
    assert data["connection_status"] == "reauthorization_required"
    assert data["refresh_error"]["code"] == "invalid_grant"
    assert read("?force_refresh=true").status_code == 200
    assert provider.count("refresh_token") == 1


def test_while_a_back_off_runs_the_answer_is_the_stored_failure(read, connected, provider):
    age(connected, expires_in=-1)
    provider.answer = Answer.busy(503, retry_after=60)
    for _ in range(3):
        answer = read()
        assert answer.json()["error"]["reason"] == "provider_unavailable"
        assert "Retry-After" not in answer.headers
    assert provider.count("refresh_token") == 1


def test_a_caller_who_looked_before_a_failure_was_stored_makes_no_second_call(read, connected, provider, monkeypatch):
    age(connected, expires_in=-1)
    provider.answer = Answer.busy(503, retry_after=60)
    claim = tokens.claim_one

    def late(seen: Connection) -> Connection | None:
        monkeypatch.setattr(tokens, "claim_one", claim)
        read()  # somebody else's attempt, from its claim to its stored failure
        return claim(seen)

    monkeypatch.setattr(tokens, "claim_one", late)
    assert read().json()["error"]["reason"] == "provider_unavailable"
    assert provider.count("refresh_token") == 1


def test_a_token_that_does_not_open_is_a_token_error(read, connected):
    Connection.objects.update(access_token=Ciphertext(b"\x01" + b"x" * 60))
    answer = read()
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "token_error")


def test_retry_after_is_sent_where_a_retry_soon_can_help(read, connected, provider):
    age(connected, expires_in=-1)
    provider.answer = Answer.busy(503)
    read()
    Connection.objects.update(refresh_due_at=Now() + timedelta(seconds=3))
    assert read()["Retry-After"] in ("3", "4")


def test_a_refused_client_is_provider_rejected(read, connected, provider):
    age(connected, expires_in=-1)
    provider.answer = Answer.error("invalid_client", status=401)
    assert read().json()["error"]["reason"] == "provider_rejected"


def test_an_expired_token_that_nothing_can_renew_says_so_in_the_status(read, connected):
    Connection.objects.update(refresh_token=None)
    age(connected, expires_in=-1)
    assert read().json()["error"]["reason"] == "reauthorization_required"
    connected.refresh_from_db()
    assert connected.status == Status.REAUTHORIZATION_REQUIRED


def test_a_secret_past_its_date_with_strict_enforcement_gives_no_token(read, connected):
    Secret.objects.update(expires_at=Now() - timedelta(seconds=1), strict_expiry_enforcement=True)
    assert read().json()["error"]["reason"] == "secret_expired"


def test_without_strict_enforcement_it_does_and_says_expired(read, connected):
    Secret.objects.update(expires_at=Now() - timedelta(seconds=1))
    assert read().json()["data"]["expired"] is True


def test_an_unchanged_token_is_304(read, connected):
    first = read()
    again = read(If_None_Match=first["ETag"])
    assert again.status_code == 304
    assert again["ETag"] == first["ETag"]
    assert again.content == b""
    assert read(If_None_Match=f'"other", W/{first["ETag"]}').status_code == 304
    assert read(If_None_Match='"other"').status_code == 200


def test_the_etag_follows_generation_status_refresh_error_and_expiry(read, connected, provider):
    tags = [read()["ETag"]]
    tags.append(read("?force_refresh=true")["ETag"])
    provider.answer = Answer.busy(503, retry_after=60)
    tags.append(read("?force_refresh=true")["ETag"])
    Secret.objects.update(expires_at=Now() - timedelta(seconds=1))
    tags.append(read()["ETag"])
    assert len(set(tags)) == 4


def test_an_expired_token_is_renewed_before_a_304_is_considered(read, connected):
    tag = read()["ETag"]
    age(connected, expires_in=-1)
    assert read(If_None_Match=tag).status_code == 200


def test_a_read_notes_no_audit_row_and_logs_a_line_without_the_token(read, connected, caplog):
    from secrets_app.models import AuditEvent

    before = AuditEvent.objects.count()
    caplog.set_level("DEBUG")
    token = read().json()["data"]["access_token"]
    assert AuditEvent.objects.count() == before
    assert str(connected.secret_id) in caplog.text
    assert token not in caplog.text


@pytest.mark.django_db(transaction=True)
class TestSingleFlight:
    """Many callers, one refresh."""

    @pytest.fixture
    def expired(self, provider, http) -> tuple[Caller, Connection]:
        caller = Caller()
        connection = consent(an_oauth2_secret(caller, a_client(provider)), http)
        return caller, age(connection, expires_in=-1)

    @staticmethod
    def ask(caller: Caller, connection: Connection, count: int, query: str = "") -> list[Any]:
        """``count`` callers at once, each in a thread of its own."""
        return all_at_once(*[lambda: caller.get(f"/v1/secrets/{connection.secret_id}/oauth2/token{query}")] * count)

    def test_twenty_callers_make_one_call_and_all_get_the_new_token(self, expired, provider):
        provider.delay = 3.0
        answers = self.ask(*expired, 20)
        assert [answer.status_code for answer in answers] == [200] * 20
        assert {answer.json()["data"]["generation"] for answer in answers} == {2}
        assert provider.count("refresh_token") == 1
        assert provider.reuses == 0

    def test_twenty_callers_of_a_failing_provider_make_one_call_too(self, expired, provider):
        provider.answer = Answer.busy(503, retry_after=60)
        answers = self.ask(*expired, 20)
        assert {answer.json()["error"]["reason"] for answer in answers} == {"provider_unavailable"}
        assert provider.count("refresh_token") == 1

    def test_forced_refreshes_at_once_join_one(self, expired, provider):
        caller, connection = expired
        age(connection, expires_in=600)
        provider.delay = 0.5
        answers = self.ask(caller, connection, 8, "?force_refresh=true")
        assert {answer.json()["data"]["generation"] for answer in answers} == {2}
        assert provider.count("refresh_token") == 1

    def test_one_caller_too_many_is_told_to_come_back(self, expired, provider, monkeypatch):
        monkeypatch.setattr(waiting, "_places", threading.BoundedSemaphore(3))
        provider.delay = 1.0
        answers = self.ask(*expired, 6)
        refused = [answer for answer in answers if answer.status_code == 500]
        assert len(refused) == 3
        assert {(answer.json()["error"]["reason"], answer["Retry-After"]) for answer in refused} == {
            ("provider_unavailable", "1")
        }
        assert provider.count("refresh_token") == 1

    def test_a_caller_who_waited_too_long_is_told_so(self, expired, provider, monkeypatch):
        monkeypatch.setattr(tokens, "LONGEST_WAIT", 0.3)
        caller, connection = expired
        Connection.objects.update(
            lease_owner="00000000-0000-4000-8000-000000000000", lease_expires_at=Now() + timedelta(seconds=30)
        )
        answer = caller.get(f"/v1/secrets/{connection.secret_id}/oauth2/token")
        assert answer.json()["error"]["reason"] == "provider_unavailable"
        assert answer["Retry-After"] == "1"

    def test_a_caller_who_waited_in_vain_for_a_longer_life_gets_the_valid_token(self, expired, monkeypatch):
        monkeypatch.setattr(tokens, "LONGEST_WAIT", 0.3)
        caller, connection = expired
        age(connection, expires_in=60)
        Connection.objects.update(
            lease_owner="00000000-0000-4000-8000-000000000000", lease_expires_at=Now() + timedelta(seconds=30)
        )
        answer = caller.get(f"/v1/secrets/{connection.secret_id}/oauth2/token?min_ttl=3000")
        assert answer.status_code == 200

    def test_a_claim_whose_holder_died_is_taken_over_when_its_lease_ends(self, expired, provider):
        caller, connection = expired
        Connection.objects.update(
            lease_owner="00000000-0000-4000-8000-000000000000",
            lease_expires_at=Now() + timedelta(seconds=0.5),
            attempt_started_at=Now(),
        )
        data = caller.get(f"/v1/secrets/{connection.secret_id}/oauth2/token").json()["data"]
        assert data["generation"] == 2


def callee(connection: Connection) -> Callee:
    return callee_of(connection.secret.registration)


def open_breaker(host: str) -> None:
    """Let calls of several clients at ``host`` fail."""
    for number in range(breaker.FAILURES):
        somebody = Callee(host, uuid.UUID(int=number << 80).hex)
        hosts().report(somebody, uuid.uuid4(), Verdict.FAILED)


class TestBreaker:
    """A provider that does not answer is not asked by readers either."""

    def test_a_host_whose_breaker_is_open_is_not_called(self, read, connected, provider):
        age(connected, expires_in=-1)
        open_breaker(callee(connected).host)
        for _ in range(3):
            answer = read()
            assert (answer.status_code, answer.json()["error"]["reason"]) == (500, "provider_unavailable")
            assert "Retry-After" not in answer.headers
        assert provider.count("refresh_token") == 0
        assert Connection.objects.get().lease_owner is None

    def test_the_answer_is_the_stored_failure_where_there_is_one(self, read, connected, provider):
        age(connected, expires_in=-1)
        provider.answer = Answer.error("out_of_tea", status=503)
        read()
        open_breaker(callee(connected).host)
        # Its own pause is over; that of its host is not.
        Connection.objects.update(refresh_due_at=Now() - timedelta(seconds=1))
        answer = read()
        assert answer.json()["error"]["reason"] == "provider_unavailable"
        assert "out_of_tea" in answer.json()["error"]["message"]
        assert "Retry-After" not in answer.headers
        assert provider.count("refresh_token") == 1

    def test_a_valid_token_is_served_whatever_is_wrong_with_its_host(self, read, connected, provider):
        age(connected, expires_in=60)
        open_breaker(callee(connected).host)
        for query in ("", "?min_ttl=3000", "?force_refresh=true"):
            assert read(query).json()["data"]["generation"] == 1
        assert provider.count("refresh_token") == 0

    @pytest.mark.parametrize(("pause", "helpful"), [(3, ("3",)), (5, ("5",)), (6.5, None), (600, None)])
    def test_retry_after_is_said_where_the_pause_of_the_client_ends_soon(
        self, read, connected, provider, pause, helpful
    ):
        age(connected, expires_in=-1)
        hosts().report(callee(connected), connected.pk, Verdict.LIMITED, retry_after=pause)
        answer = read()
        assert answer.json()["error"]["reason"] == "provider_unavailable"
        if helpful:
            assert answer["Retry-After"] in helpful
        else:
            assert "Retry-After" not in answer.headers
        assert provider.count("refresh_token") == 0

    def test_a_429_met_by_one_reader_stops_the_others_of_its_client(self, caller, provider, http):
        rows = [consent(an_oauth2_secret(caller, a_client(provider), name=f"c{n}"), http) for n in range(3)]
        for row in rows:
            age(row, expires_in=-1)
        provider.answer = Answer.busy(429, retry_after=60)
        for row in rows:
            caller.get(f"/v1/secrets/{row.secret_id}/oauth2/token")
        assert provider.count("refresh_token") == 1

    def test_the_first_reader_after_the_pause_is_the_probe_and_lets_the_others_call(
        self, caller, provider, http, monkeypatch
    ):
        monkeypatch.setattr(breaker, "FIRST_PERIOD", 0.5)
        rows = [consent(an_oauth2_secret(caller, a_client(provider), name=f"c{n}"), http) for n in range(3)]
        for row in rows:
            age(row, expires_in=-1)
        open_breaker(callee(rows[0]).host)
        paths = [f"/v1/secrets/{row.secret_id}/oauth2/token" for row in rows]
        assert caller.get(paths[0]).status_code == 500
        time.sleep(0.5)
        assert [caller.get(path).status_code for path in paths] == [200, 200, 200]
        assert hosts().calls(callee(rows[0]).host) == 0

    def test_a_probe_that_meets_somebody_elses_claim_is_left_to_others(self, read, connected, provider, monkeypatch):
        monkeypatch.setattr(breaker, "FIRST_PERIOD", 0.2)
        monkeypatch.setattr(tokens, "claim_one", lambda seen: None)
        monkeypatch.setattr(tokens, "LONGEST_WAIT", 0.1)
        age(connected, expires_in=-1)
        open_breaker(callee(connected).host)
        time.sleep(0.2)
        assert read().status_code == 500
        assert hosts().ask(callee(connected)) is None

    def test_a_token_that_cannot_be_renewed_leaves_the_probe_to_others(self, read, connected, provider, monkeypatch):
        monkeypatch.setattr(breaker, "FIRST_PERIOD", 0.2)
        Connection.objects.update(refresh_token=Ciphertext(b"\x01" + b"x" * 60))
        age(connected, expires_in=-1)
        open_breaker(callee(connected).host)
        time.sleep(0.2)
        assert read().status_code == 500
        assert hosts().ask(callee(connected)) is None


@pytest.mark.django_db(transaction=True)
class TestPlaces:
    """Readers share the places at a host with all others."""

    @pytest.fixture
    def expired(self, provider, http) -> tuple[Caller, list[str], str]:
        caller = Caller()
        rows = [consent(an_oauth2_secret(caller, a_client(provider), name=f"c{n}"), http) for n in range(6)]
        for row in rows:
            age(row, expires_in=-1)
        return caller, [f"/v1/secrets/{row.secret_id}/oauth2/token" for row in rows], callee(rows[0]).host

    def test_a_reader_waits_for_a_place_and_then_calls(self, expired, provider):
        caller, paths, host = expired
        gate = hosts()
        taken = gate.enter({host: gate.cap})[host]
        assert taken == gate.cap
        ending = threading.Timer(0.6, lambda: gate.leave(host, taken))
        ending.start()
        begun = time.monotonic()
        assert caller.get(paths[0]).status_code == 200
        assert time.monotonic() - begun >= 0.5
        assert provider.count("refresh_token") == 1
        ending.join()
        assert gate.calls(host) == 0

    def test_a_reader_who_waits_for_a_place_in_vain_is_told_to_come_back(self, expired, provider, monkeypatch):
        monkeypatch.setattr(tokens, "LONGEST_WAIT", 0.3)
        caller, paths, host = expired
        gate = hosts()
        taken = gate.enter({host: gate.cap})[host]
        answer = caller.get(paths[0])
        gate.leave(host, taken)
        assert answer.json()["error"]["reason"] == "provider_unavailable"
        assert answer["Retry-After"] == "1"
        assert provider.count("refresh_token") == 0
        assert Connection.objects.filter(lease_owner__isnull=False).count() == 0

    def test_readers_make_no_more_calls_at_once_than_there_are_places(self, expired, provider, settings):
        settings.KNOXCALL_HOST_CALLS = 2
        caller, paths, host = expired
        provider.delay = 0.2
        provider.peak_in_flight = 0
        answers = all_at_once(*[lambda path=path: caller.get(path) for path in paths])
        assert [answer.status_code for answer in answers] == [200] * 6
        assert provider.peak_in_flight <= 2
        assert hosts().calls(host) == 0

    def test_one_of_many_readers_is_the_probe(self, expired, provider, monkeypatch):
        monkeypatch.setattr(breaker, "FIRST_PERIOD", 0.5)
        caller, paths, host = expired
        open_breaker(host)
        time.sleep(0.5)
        provider.delay = 1.0
        answers = all_at_once(*[lambda path=path: caller.get(path) for path in paths])
        assert sorted(answer.status_code for answer in answers) == [200] + [500] * 5
        assert provider.count("refresh_token") == 1
        provider.delay = 0
        assert {caller.get(path).status_code for path in paths} == {200}

    def test_a_place_is_given_back_whatever_happens(self, expired, provider, monkeypatch):
        caller, paths, host = expired

        def broken(*_: Any) -> None:
            raise RuntimeError("a fault of ours")

        with monkeypatch.context() as patch:
            patch.setattr(tokens, "refresh", broken)
            assert caller.get(paths[0]).status_code == 500
        provider.answer = Answer.busy(503)
        assert caller.get(paths[1]).status_code == 500
        assert hosts().calls(host) == 0


@pytest.mark.django_db(transaction=True)
def test_a_read_of_a_fresh_token_is_two_statements(provider, http, django_assert_num_queries):
    caller = Caller()
    connection = consent(an_oauth2_secret(caller, a_client(provider)), http)
    path = f"/v1/secrets/{connection.secret_id}/oauth2/token"
    caller.get(path)
    with django_assert_num_queries(2):
        assert caller.get(path).status_code == 200
