"""Ending connections: the tokens are gone at once, the provider is told when it is there, and everybody sees how it went."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction
from django.db.models.functions import Now
from django.test import Client
from django.utils.module_loading import import_string

from knoxcall.api.idempotency import NoKey
from oauth_app import complete as complete_module
from oauth_app import refresh as refresh_module
from oauth_app import revocation, tasks
from oauth_app.authorize import Outcome, create_link, start_bare, start_by_link
from oauth_app.claim import claim_one
from oauth_app.clients import registrations_of
from oauth_app.complete import Callback
from oauth_app.fake_provider import Answer, Drop
from oauth_app.models import Connection, RevocationJob
from oauth_app.providers import PROVIDERS
from oauth_app.refresh import refresh
from oauth_app.registrations import change_client
from oauth_app.revocation import carry_out, prune, revoke_due
from secrets_app.audit import Actor
from secrets_app.crypto.cipher import Ciphertext
from secrets_app.models import AuditEvent, Environment
from tests.factories import (
    Caller,
    a_client,
    a_string,
    age,
    an_oauth2_secret,
    consent,
    consent_by_link,
    query_of,
)
from tests.support.crowd import all_at_once

Status = Connection.Status


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.fixture
def client(provider):
    """A client whose provider revokes as RFC 7009 says."""
    return a_client(provider, revocation_url=provider.revoke_url)


@pytest.fixture
def connected(caller, client, http) -> Connection:
    return consent(an_oauth2_secret(caller, client), http)


@pytest.fixture
def google(provider, monkeypatch):
    """A client of a provider where one revocation ends all that a person gave the client, and that says who it is."""
    preset = PROVIDERS["google"]
    local = replace(preset, revocation=replace(preset.revocation, url=provider.revoke_url))
    monkeypatch.setitem(PROVIDERS, "google", local)
    provider.id_token, provider.revocation_needs_client, provider.revoke_ends_grant = {}, False, True
    return replace(a_client(provider), provider="google", scopes=("openid",))


def path(connection: Connection, call: str = "") -> str:
    return f"/v1/secrets/{connection.secret_id}/oauth2{call}"


def end(caller: Caller, connection: Connection, **body: str) -> Any:
    answer = caller.post(path(connection, "/disconnect"), body)
    assert answer.status_code == 200, answer.content
    return answer.json()["data"]


def state(caller: Caller, connection: Connection) -> Any:
    return caller.get(path(connection)).json()["data"]


def disconnected(caller: Caller, connection: Connection) -> None:
    end(caller, connection)


def deleted(caller: Caller, connection: Connection) -> None:
    assert caller.delete(f"/v1/secrets/{connection.secret_id}").status_code == 200


def carry_out_all() -> None:
    """Let every job that has not ended come due, and try it, as the worker does."""
    RevocationJob.objects.filter(outcome="pending").update(due_at=Now() - timedelta(seconds=1))
    for job in RevocationJob.objects.filter(outcome="pending"):
        assert carry_out(job)


def outcomes() -> list[tuple[str, str]]:
    return list(RevocationJob.objects.order_by("created_at").values_list("outcome", "failure_code"))


def holds_nothing(job: RevocationJob) -> bool:
    return (job.document, job.due_at, job.lease_expires_at) == (None, None, None)


def tokens_of(connection: Connection) -> list[str]:
    """What is revoked, in this order."""
    sealed = (connection.refresh_token, connection.access_token)
    return [token.open().reveal() for token in sealed if token is not None]


def revoked_at(provider: Any) -> list[str]:
    return [revoked["token"] for revoked in provider.revocations]


def test_the_tokens_are_gone_for_everyone_at_once(caller, connected, provider):
    etag = caller.get(path(connected, "/token"))["ETag"]
    data = end(caller, connected)
    assert data["connection_status"] == "disconnected"
    assert (data["has_refresh_token"], data["token_expires_at"], data["next_refresh_at"]) == (False, None, None)
    assert (data["connected_as"], data["scopes_granted"], data["metadata"]) == (None, None, {})
    assert data["needs_consent"] is True
    assert data["revocation"]["outcome"] == "pending"
    assert data["revocation"]["finished_at"] is None
    row = Connection.objects.get()
    assert (row.access_token, row.refresh_token, row.refresh_due_at, row.lease_owner) == (None, None, None, None)
    for query in ("", "?force_refresh=true"):
        refused = caller.get(path(connected, f"/token{query}"), If_None_Match=etag)
        assert (refused.status_code, refused.json()["error"]["reason"]) == (500, "not_connected")
    assert provider.requests[1:] == []
    ended = AuditEvent.objects.get(action="connection.ended")
    assert (ended.resource_id, ended.actor) == (str(connected.secret_id), caller.row.key_id)


def test_the_provider_is_told_and_everybody_sees_that_it_was(caller, connected, provider):
    tokens = tokens_of(connected)
    end(caller, connected)
    assert provider.revocations == []
    carry_out_all()
    assert revoked_at(provider) == tokens
    assert {revoked["style"] for revoked in provider.revocations} == {"rfc7009"}
    shown = state(caller, connected)["revocation"]
    assert (shown["outcome"], shown["reason"]) == ("revoked", None)
    assert shown["finished_at"].endswith("Z")
    job = RevocationJob.objects.get()
    assert holds_nothing(job)
    event = AuditEvent.objects.get(action="connection.revoked")
    assert event.details == {"name": "an-oauth2", "environment": "production", "outcome": "revoked", "reason": None}


def test_what_waits_is_sealed_and_opens_in_its_own_row_only(caller, client, http, provider):
    for name in ("first", "second"):
        end(caller, consent(an_oauth2_secret(caller, client, name=name), http))
    first, second = RevocationJob.objects.all()
    assert client.client_secret.encode() not in first.document.ciphertext
    for job, other in ((first, second), (second, first)):
        RevocationJob.objects.filter(pk=job.pk).update(document=other.document.ciphertext)
    carry_out_all()
    assert outcomes() == [("failed", "seal_broken")] * 2
    assert provider.revocations == []


def test_an_ended_job_cannot_hold_anything(caller, connected):
    end(caller, connected)
    with pytest.raises(IntegrityError), transaction.atomic():
        RevocationJob.objects.update(outcome="revoked")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer.busy(503), "http_503"),
        (Answer.busy(429), "http_429"),
        (Answer.html(502), "http_502"),
        (Answer.dropped(Drop.CLOSED), "no_answer"),
        (Answer.dropped(Drop.CLOSED, takes_effect=True), "no_answer"),
    ],
)
def test_a_provider_that_is_away_is_told_when_it_is_back(caller, connected, provider, answer, code):
    end(caller, connected)
    provider.next(answer, endpoint="revoke")
    carry_out_all()
    job = RevocationJob.objects.get()
    assert (job.outcome, job.failure_code, job.attempts, job.lease_expires_at) == ("pending", code, 1, None)
    assert state(caller, connected)["revocation"]["reason"] == code
    told = len(provider.revocations)
    assert not carry_out(job)
    assert len(provider.revocations) == told
    carry_out_all()
    assert outcomes() == [("revoked", "")]


def test_a_pause_that_the_provider_asks_for_is_kept(caller, connected, provider):
    end(caller, connected)
    provider.next(Answer.busy(503, retry_after=7200), endpoint="revoke")
    carry_out_all()
    job = RevocationJob.objects.get()
    assert job.due_at > job.created_at + timedelta(seconds=7200)


def test_pauses_grow(caller, connected, provider, monkeypatch):
    monkeypatch.setattr("oauth_app.schedule._random", type("Most", (), {"random": staticmethod(lambda: 1.0)}))
    end(caller, connected)
    provider.next(Answer.busy(503), endpoint="revoke", times=4)
    pauses = []
    for _ in range(4):
        carry_out_all()
        (pause,) = RevocationJob.objects.annotate(now=Now()).values_list("due_at", "now")
        pauses.append(round((pause[0] - pause[1]).total_seconds()))
    assert pauses == [15, 30, 60, 120]


def test_a_refusal_ends_it_and_erases_what_was_kept(caller, connected, provider):
    end(caller, connected)
    provider.next(Answer.error("invalid_client", status=401), endpoint="revoke")
    carry_out_all()
    assert outcomes() == [("failed", "invalid_client")]
    assert holds_nothing(RevocationJob.objects.get())
    assert AuditEvent.objects.get(action="connection.revoked").details["reason"] == "invalid_client"


@pytest.mark.parametrize("by", [carry_out_all, prune])
def test_after_24_hours_it_is_given_up_unsent(caller, connected, provider, by):
    end(caller, connected)
    RevocationJob.objects.update(created_at=Now() - timedelta(hours=24, seconds=1))
    by()
    assert outcomes() == [("failed", "too_late")]
    assert holds_nothing(RevocationJob.objects.get())
    assert provider.revocations == []
    assert AuditEvent.objects.filter(action="connection.revoked").count() == 1


def test_a_pause_beyond_the_24_hours_is_not_waited_for(caller, connected, provider):
    end(caller, connected)
    RevocationJob.objects.update(created_at=Now() - timedelta(hours=23))
    provider.next(Answer.busy(503, retry_after=3601), endpoint="revoke")
    carry_out_all()
    assert outcomes() == [("failed", "http_503")]


def test_what_ended_is_shown_for_thirty_days(caller, connected):
    end(caller, connected)
    carry_out_all()
    prune()
    assert RevocationJob.objects.exists()
    RevocationJob.objects.update(finished_at=Now() - timedelta(days=30, seconds=1))
    prune()
    assert not RevocationJob.objects.exists()


@pytest.mark.parametrize("preset", ["microsoft", "custom"])
def test_where_there_is_no_way_it_says_so_at_once(caller, provider, http, preset):
    connection = consent(an_oauth2_secret(caller, replace(a_client(provider), provider=preset)), http)
    shown = end(caller, connection)["revocation"]
    assert (shown["outcome"], shown["finished_at"] is not None) == ("not_supported", True)
    assert AuditEvent.objects.get(action="connection.revoked").details["outcome"] == "not_supported"
    assert revoke_due() == 0


def test_an_access_token_that_the_provider_cannot_revoke_does_not_matter_once_the_refresh_token_is(
    caller, connected, provider
):
    end(caller, connected)
    provider.next(Answer(), endpoint="revoke")
    provider.next(Answer.error("unsupported_token_type"), endpoint="revoke")
    carry_out_all()
    assert outcomes() == [("revoked", "")]


def test_the_client_secret_that_was_replaced_is_tried_too(caller, provider):
    client = a_client(provider, grant_type="password", revocation_url=provider.revoke_url)
    connection = an_oauth2_secret(caller, client)
    new = {"client_secret": "not known there yet"}
    change_client(caller.scope, connection.secret_id, new, keep_previous=True, attempt=NoKey())
    end(caller, connection)
    carry_out_all()
    assert outcomes() == [("revoked", "")]
    assert len(provider.revocations) == 2


def test_tokens_that_do_not_open_end_all_the_same_and_that_they_are_not_revoked_is_seen(caller, connected):
    Connection.objects.update(refresh_token=Ciphertext(b"\x01" + b"x" * 60))
    data = end(caller, connected)
    assert data["connection_status"] == "disconnected"
    assert (data["revocation"]["outcome"], data["revocation"]["reason"]) == ("failed", "seal_broken")


def test_neither_a_log_nor_a_record_shows_a_token(caller, connected, provider, caplog):
    caplog.set_level("DEBUG")
    end(caller, connected)
    provider.next(Answer.json({"error": "fake-refresh-leak"}, status=400), endpoint="revoke")
    carry_out_all()
    assert outcomes() == [("failed", "unrecognised_error")]
    for planted in ("fake-refresh", "fake-access", "fake-client-secret"):
        assert planted not in caplog.text


def test_an_operator_sees_how_it_went(caller, connected, admin_client):
    end(caller, connected)
    carry_out_all()
    job = RevocationJob.objects.get()
    for page in ("revocationjob/", f"revocationjob/{job.pk}/change/", f"connection/{connected.pk}/change/"):
        shown = admin_client.get(f"/admin/oauth_app/{page}")
        assert shown.status_code == 200
        assert "revoked" in shown.content.decode().lower()


def test_a_worker_makes_one_batch_at_a_time(monkeypatch):
    begun = []

    def batch() -> None:
        begun.append(1)
        tasks.revoke()

    monkeypatch.setattr(revocation, "revoke_due", batch)
    tasks.revoke()
    tasks.revoke()
    assert len(begun) == 2


class TestRepeats:
    """Asking twice."""

    def test_the_same_key_is_answered_the_same(self, caller, connected):
        first = caller.post(path(connected, "/disconnect"), {}, X_Idempotency_Key="k")
        again = caller.post(path(connected, "/disconnect"), {}, X_Idempotency_Key="k")
        assert again.json()["data"] == first.json()["data"]
        assert again["Idempotent-Replayed"] == "true"

    def test_the_second_disconnect_changes_nothing(self, caller, connected):
        first = end(caller, connected)
        assert end(caller, connected) == first
        assert RevocationJob.objects.count() == 1
        assert AuditEvent.objects.filter(action="connection.ended").count() == 1

    def test_a_request_that_was_cut_off_does_not_end_what_was_connected_since(
        self, caller, connected, http, monkeypatch
    ):
        with monkeypatch.context() as cut:
            cut.setattr("oauth_app.api.views._state", lambda *args: 1 / 0)
            broken = caller.post(path(connected, "/disconnect"), {}, X_Idempotency_Key="k")
        assert broken.status_code == 500
        consent_by_link(caller, connected, http)
        again = caller.post(path(connected, "/disconnect"), {}, X_Idempotency_Key="k")
        assert again.json()["data"]["connection_status"] == "connected"


class TestAccess:
    """Who may, and what can be ended."""

    def test_a_key_that_only_reads_may_not(self, caller, connected):
        reader = Caller(caller.account, role="read_only")
        assert reader.post(path(connected, "/disconnect"), {}).status_code == 403
        assert Connection.objects.get().status == Status.CONNECTED

    def test_another_accounts_secret_is_404(self, connected):
        assert Caller().post(path(connected, "/disconnect"), {}).status_code == 404

    def test_a_string_has_no_connection(self, caller):
        answer = caller.post(f"/v1/secrets/{a_string(caller).pk}/oauth2/disconnect", {})
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_type")

    @pytest.mark.parametrize(("body", "status"), [({"environment": "none"}, 400), ({"environmemt": "x"}, 400)])
    def test_a_body_that_is_wrong_ends_nothing(self, caller, connected, body, status):
        assert caller.post(path(connected, "/disconnect"), body).status_code == status
        assert Connection.objects.get().status == Status.CONNECTED

    @pytest.mark.parametrize(
        ("call", "place"),
        [
            ("/disconnect", "oauth_app.connections.get_oauth2_secret"),
            ("/disconnect", "oauth_app.disconnect.get_connection"),
            ("/authorize", "oauth_app.authorize.ensure_connection"),
        ],
    )
    def test_a_secret_deleted_in_the_same_moment_is_404(self, caller, connected, monkeypatch, call, place):
        find = import_string(place)

        def then_deleted(*args: Any) -> Any:
            found = find(*args)
            connected.secret.delete()
            return found

        monkeypatch.setattr(place, then_deleted)
        assert caller.post(path(connected, call), {}).status_code == 404


class TestConsentsAfterwards:
    """What a disconnect does to the ways to connect."""

    def test_one_that_was_never_connected_ends_without_a_revocation(self, caller, client):
        connection = an_oauth2_secret(caller, client)
        data = end(caller, connection)
        assert (data["connection_status"], data["revocation"]) == ("disconnected", None)

    @pytest.mark.parametrize("was_connected", [True, False])
    def test_only_a_link_connects_again(self, caller, client, http, was_connected):
        connection = an_oauth2_secret(caller, client)
        if was_connected:
            connection = consent(connection, http)
        end(caller, connection)
        refused = start_bare(connection.secret_id, actor=Actor("browser"))
        assert isinstance(refused, Outcome)
        assert refused.code == "start_used"
        again = consent_by_link(caller, connection, http)
        assert again.status == Status.CONNECTED
        assert caller.get(path(connection, "/token")).status_code == 200

    def test_links_and_consents_under_way_are_void(self, caller, connected, http, provider):
        link = create_link(caller.scope, connected.secret_id, environment=None)
        token = query_of(link.url)["link"]
        started = start_by_link(token, actor=Actor("browser"))
        back = query_of(http.get(started.url, allow_redirects=False).headers["Location"])
        end(caller, connected)
        brought = Callback.of(back)
        late = complete_module.complete(
            connected.secret_id, brought, cookie=started.cookie_value, actor=Actor("browser")
        )
        assert late.code == "superseded"
        assert provider.count("authorization_code") == 1
        assert start_by_link(token, actor=Actor("browser")).code == "link_replaced"

    def test_reconnecting_revokes_nothing(self, caller, connected, http, provider):
        consent_by_link(caller, connected, http)
        assert not RevocationJob.objects.exists()

    def test_a_grant_that_needs_no_person_is_made_again_when_it_is_asked_for(self, caller, provider):
        provider.id_token = {}
        client = a_client(provider, grant_type="password", scopes=("openid",), revocation_url=provider.revoke_url)
        connection = an_oauth2_secret(caller, client)
        before = end(caller, connection)
        assert before["needs_consent"] is False
        again = caller.post(path(connection, "/refresh"), {})
        assert again.status_code == 200
        assert again.json()["data"]["generation"] > before["generation"]
        carry_out_all()
        assert outcomes() == [("revoked", "")]
        assert provider.is_live(again.json()["data"]["access_token"])
        assert state(caller, connection)["connected_as"] == "fake-user@example.com"


class TestSharedGrants:
    """Where one revocation ends all that a person gave a client."""

    @pytest.fixture
    def two(self, caller, google, http) -> list[Connection]:
        return [consent(an_oauth2_secret(caller, google, name=name), http) for name in ("first", "second")]

    def test_it_is_kept_while_another_connection_has_it_and_ends_with_the_last(self, caller, two, provider):
        first, second = two
        end(caller, first)
        carry_out_all()
        assert state(caller, first)["revocation"]["outcome"] == "kept"
        assert holds_nothing(RevocationJob.objects.get())
        assert provider.revocations == []
        refresh_token = tokens_of(second)[0]
        end(caller, second)
        carry_out_all()
        assert state(caller, second)["revocation"]["outcome"] == "revoked"
        assert provider.revocations == [{"style": "token_only", "token": refresh_token}]

    def test_two_that_end_at_once_do_not_keep_it_for_each_other(self, caller, two):
        for connection in two:
            end(caller, connection)
        carry_out_all()
        assert outcomes() == [("revoked", "")] * 2

    def test_another_accounts_connection_counts(self, caller, two, google, http, provider):
        theirs = consent(an_oauth2_secret(Caller(), google), http)
        for connection in two:
            end(caller, connection)
        carry_out_all()
        assert outcomes() == [("kept", "")] * 2
        assert provider.is_live(tokens_of(theirs)[1])

    @pytest.mark.parametrize("further", [{"client_id": "another"}, {"sub": "another"}])
    def test_another_client_or_another_person_does_not(self, caller, two, google, http, provider, further):
        first, second = two
        end(caller, second)
        carry_out_all()
        if sub := further.get("sub"):
            provider.id_token = {"sub": sub}
            other = google
        else:
            provider.client_id = further["client_id"]
            other = replace(google, client_id=provider.client_id)
        consent(an_oauth2_secret(caller, other, name="other"), http)
        end(caller, first)
        carry_out_all()
        assert outcomes() == [("kept", ""), ("revoked", "")]

    def test_a_connection_whose_token_ran_out_for_good_keeps_nothing(self, caller, two):
        first, second = two
        age(second, expires_in=-1)
        Connection.objects.filter(pk=second.pk).update(
            refresh_token=None, refresh_due_at=None, status=Status.REAUTHORIZATION_REQUIRED
        )
        end(caller, first)
        carry_out_all()
        assert outcomes() == [("revoked", "")]

    @pytest.mark.parametrize("scopes", [("openid",), ("drive",)])
    def test_a_grant_made_anew_before_the_provider_was_told_is_kept(self, caller, google, http, provider, scopes):
        # Without openid nobody knows whose grant it is: then it may be the same.
        connection = consent(an_oauth2_secret(caller, replace(google, scopes=scopes)), http)
        end(caller, connection)
        consent_by_link(caller, connection, http)
        carry_out_all()
        assert outcomes() == [("kept", "")]
        assert provider.is_live(tokens_of(Connection.objects.get())[1])

    @pytest.mark.parametrize("ended", [disconnected, deleted])
    def test_two_grants_of_which_nobody_knows_whose_they_are_keep_nothing(self, caller, google, http, ended):
        google = replace(google, scopes=("drive",))
        first, _ = (consent(an_oauth2_secret(caller, google, name=name), http) for name in ("first", "second"))
        ended(caller, first)
        carry_out_all()
        assert outcomes() == [("revoked", "")]

    def test_where_tokens_end_one_by_one_nothing_is_kept(self, caller, client, http, provider):
        provider.id_token = {}
        client = replace(client, scopes=("openid",))
        first, second = (consent(an_oauth2_secret(caller, client, name=name), http) for name in ("first", "second"))
        assert bytes(first.grant_digest) == bytes(second.grant_digest)
        end(caller, first)
        carry_out_all()
        assert outcomes() == [("revoked", "")]
        assert provider.is_live(tokens_of(second)[1])


class TestDeletion:
    """Deleting a secret gives back what it held, in every environment."""

    def test_every_environment_is_revoked_and_the_jobs_outlive_the_secret(self, caller, connected, http, provider):
        Environment.objects.create(account=caller.account, mode="live", name="staging", display_name="Staging")
        staging = consent_by_link(caller, connected, http, environment="staging")
        tokens = tokens_of(connected) + tokens_of(staging)
        assert caller.delete(f"/v1/secrets/{connected.secret_id}").status_code == 200
        jobs = RevocationJob.objects.all()
        assert sorted((job.secret_name, job.environment_name, job.connection_id) for job in jobs) == [
            ("an-oauth2", "production", None),
            ("an-oauth2", "staging", None),
        ]
        assert provider.revocations == []
        carry_out_all()
        assert sorted(revoked_at(provider)) == sorted(tokens)
        events = AuditEvent.objects.filter(action="connection.revoked", resource_id=str(connected.secret_id))
        assert [event.details["outcome"] for event in events] == ["revoked", "revoked"]

    def test_a_grant_that_another_secret_has_is_kept(self, caller, google, http):
        first, _ = (consent(an_oauth2_secret(caller, google, name=name), http) for name in ("first", "second"))
        caller.delete(f"/v1/secrets/{first.secret_id}")
        carry_out_all()
        assert outcomes() == [("kept", "")]

    def test_one_that_was_never_connected_leaves_no_job(self, caller, client):
        caller.delete(f"/v1/secrets/{an_oauth2_secret(caller, client).secret_id}")
        assert not RevocationJob.objects.exists()


class TestLateAnswers:
    """A connection that ends while a provider's answer is on the wire."""

    @pytest.fixture
    def meanwhile(self, monkeypatch):
        """Let something happen after the provider has answered, and before its answer is stored."""

        def plan(module: Any, act: Any) -> None:
            fetch = module.fetch_token

            def late(*args: Any) -> Any:
                answer = fetch(*args)
                act()
                return answer

            monkeypatch.setattr(module, "fetch_token", late)

        return plan

    @pytest.mark.parametrize("ended", [disconnected, deleted])
    def test_a_refresh_is_not_stored_and_what_it_brought_is_revoked(
        self, caller, connected, provider, meanwhile, ended
    ):
        meanwhile(refresh_module, lambda: ended(caller, connected))
        claimed = claim_one(connected)
        refresh(claimed, registrations_of([claimed.secret_id])[claimed.secret_id])
        row = Connection.objects.filter(pk=connected.pk).first()
        assert row is None or (row.status, row.access_token, row.refresh_token) == (Status.DISCONNECTED, None, None)
        carry_out_all()
        assert outcomes() == [("revoked", "")] * 2
        assert set(revoked_at(provider)) >= set(provider.grants_by_refresh_token)
        assert not provider.grants_by_access_token

    def test_a_refresh_of_a_connection_that_was_made_anew_revokes_nothing(
        self, caller, connected, provider, http, meanwhile
    ):
        def end_and_reconnect() -> None:
            end(caller, connected)
            consent_by_link(caller, connected, http)

        claimed = claim_one(connected)
        meanwhile(refresh_module, end_and_reconnect)
        refresh(claimed, registrations_of([claimed.secret_id])[claimed.secret_id])
        assert RevocationJob.objects.count() == 1
        assert Connection.objects.get().status == Status.CONNECTED

    @pytest.mark.parametrize("ended", [disconnected, deleted])
    def test_a_consent_is_not_stored_and_what_it_brought_is_revoked(
        self, caller, client, provider, http, meanwhile, ended
    ):
        connection = an_oauth2_secret(caller, client)
        meanwhile(complete_module, lambda: ended(caller, connection))
        browser = Client()
        started = browser.get(f"/auth/oauth2/callback/{connection.secret_id}")
        back = http.get(started["Location"], allow_redirects=False).headers["Location"]
        page = browser.get(back)
        assert page.status_code in (404, 409)
        row = Connection.objects.filter(pk=connection.pk).first()
        assert row is None or (row.status, row.access_token) == (Status.DISCONNECTED, None)
        carry_out_all()
        assert outcomes() == [("revoked", "")]
        assert not provider.grants_by_access_token
        assert len(provider.revocations) == 2

    def test_a_late_consent_to_a_grant_that_another_connection_has_is_kept(
        self, caller, google, http, provider, meanwhile
    ):
        living = consent(an_oauth2_secret(caller, google, name="living"), http)
        ending = an_oauth2_secret(caller, google, name="ending")
        meanwhile(complete_module, lambda: end(caller, ending))
        started = start_bare(ending.secret_id, actor=Actor("browser"))
        back = query_of(http.get(started.url, allow_redirects=False).headers["Location"])
        cookie, actor = started.cookie_value, Actor("browser")
        late = complete_module.complete(ending.secret_id, Callback.of(back), cookie=cookie, actor=actor)
        assert late.code == "superseded"
        carry_out_all()
        assert outcomes() == [("kept", "")]
        assert provider.is_live(tokens_of(living)[1])


@pytest.mark.django_db(transaction=True)
class TestAtOnce:
    """Several workers, threads and callers."""

    @pytest.fixture
    def ended(self, client, http) -> RevocationJob:
        caller = Caller()
        end(caller, consent(an_oauth2_secret(caller, client), http))
        return RevocationJob.objects.get()

    def test_two_workers_make_one_call(self, ended, provider):
        provider.next(Answer(delay=0.3), endpoint="revoke", times=2)
        assert sorted(all_at_once(revoke_due, revoke_due, lambda: carry_out(ended))) == [0, 0, 1]
        assert len(provider.revocations) == 2
        assert outcomes() == [("revoked", "")]
        assert AuditEvent.objects.filter(action="connection.revoked").count() == 1

    def test_what_a_worker_left_when_it_died_is_tried_again_when_its_lease_is_over(self, ended, provider, monkeypatch):
        with monkeypatch.context() as dying:
            dying.setattr(revocation, "_finish", lambda *args, **kwargs: 1 / 0)
            assert revoke_due() == 1
        assert revoke_due() == 0
        assert outcomes() == [("pending", "")]
        RevocationJob.objects.update(lease_expires_at=Now() - timedelta(seconds=1))
        assert revoke_due() == 1
        assert outcomes() == [("revoked", "")]
        assert RevocationJob.objects.get().attempts == 2

    def test_no_thread_leaves_a_database_connection_open(self, ended, monkeypatch):
        used = []
        work = revocation._revoke

        def noted(job: RevocationJob) -> None:
            work(job)
            used.append(connections["default"])

        monkeypatch.setattr(revocation, "_revoke", noted)
        assert revoke_due() == 1
        assert [opened.connection for opened in used] == [None]

    def test_a_refresh_that_the_provider_holds_back_is_revoked_when_it_comes(self, client, provider, http):
        caller = Caller()
        connection = consent(an_oauth2_secret(caller, client), http)
        provider.next(Answer.hang())
        answers: list[Any] = []

        def read() -> None:
            answers.append(caller.get(path(connection, "/token?force_refresh=true")))
            connections.close_all()

        reader = threading.Thread(target=read)
        reader.start()
        provider.wait_for_requests(2)
        end(caller, connection)
        provider.release()
        reader.join()
        assert answers[0].json()["error"]["reason"] == "not_connected"
        assert Connection.objects.get().access_token is None
        assert revoke_due() == 2
        assert not provider.grants_by_access_token
