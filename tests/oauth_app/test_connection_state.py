"""`GET /v1/secrets/:id/oauth2` and `POST …/refresh`: what is said of a connection, and renewing it at once."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection as database
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from oauth_app.fake_provider import Answer
from oauth_app.models import ClientRegistration, Connection, ConnectionEvent
from secrets_app.models import Certificate, Environment
from tests.factories import Caller, a_certificate, a_client, a_string, age, an_oauth2_secret, consent, consent_by_link
from tests.support.crowd import all_at_once

Status = Connection.Status
FIELDS = {
    "id",
    "provider",
    "grant_type",
    "environment",
    "connection_status",
    "connected_as",
    "connected_at",
    "metadata",
    "scopes_requested",
    "scopes_granted",
    "generation",
    "token_expires_at",
    "has_refresh_token",
    "refresh_token_expires_at",
    "reauthorize_by",
    "last_refresh_at",
    "next_refresh_at",
    "last_error",
    "attention",
    "revocation",
    "redirect_uri",
    "mtls_certificate_id",
    "issuer_url",
    "needs_consent",
}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.fixture
def connected(caller, provider, http) -> Connection:
    """By consent, with an hour to live."""
    return consent(an_oauth2_secret(caller, a_client(provider, scopes=("a", "b"))), http)


@pytest.fixture
def robot(caller, provider) -> Connection:
    return an_oauth2_secret(caller, a_client(provider, grant_type="client_credentials"))


def path_of(connection: Connection) -> str:
    return f"/v1/secrets/{connection.secret_id}/oauth2"


def state_of(caller: Caller, connection: Connection, query: str = "") -> dict[str, Any]:
    answer = caller.get(path_of(connection) + query)
    assert answer.status_code == 200, answer.content
    state: dict[str, Any] = answer.json()["data"]
    return state


def renew(caller: Caller, connection: Connection, **body: Any) -> Any:
    return caller.post(f"{path_of(connection)}/refresh", body)


def attention(caller: Caller, connection: Connection) -> dict[str, dict[str, Any]]:
    """What there is to know, by its code."""
    return {item["code"]: item for item in state_of(caller, connection)["attention"]}


def staging(caller: Caller) -> Environment:
    return Environment.objects.create(account=caller.account, mode="live", name="staging", display_name="Staging")


# The state


def test_a_connection_tells_of_itself(caller, connected, provider):
    state = state_of(caller, connected)
    assert set(state) == FIELDS
    for name in ("connected_at", "token_expires_at", "last_refresh_at", "next_refresh_at"):
        assert MOMENT.fullmatch(state.pop(name)), name
    assert state == {
        "id": str(connected.secret_id),
        "provider": "custom",
        "grant_type": "authorization_code",
        "environment": "production",
        "connection_status": "connected",
        "connected_as": None,
        "metadata": {},
        "scopes_requested": ["a", "b"],
        "scopes_granted": ["a", "b"],
        "generation": 1,
        "has_refresh_token": True,
        "refresh_token_expires_at": None,
        "reauthorize_by": None,
        "last_error": None,
        "attention": [],
        "revocation": None,
        "redirect_uri": f"http://localhost:8000/auth/oauth2/callback/{connected.secret_id}",
        "mtls_certificate_id": None,
        "issuer_url": None,
        "needs_consent": False,
    }


def test_one_that_nobody_connected_needs_a_consent(caller, provider):
    state = state_of(caller, an_oauth2_secret(caller, a_client(provider)))
    assert set(state) == FIELDS
    empty = ("connected_at", "token_expires_at", "last_refresh_at", "next_refresh_at", "last_error", "scopes_granted")
    assert {name: state[name] for name in empty} == dict.fromkeys(empty)
    assert (state["connection_status"], state["needs_consent"]) == ("not_connected", True)
    assert (state["has_refresh_token"], state["generation"], state["attention"]) == (False, 0, [])


def test_it_tells_whose_account_it_is(caller, provider, http):
    connection = consent(an_oauth2_secret(caller, a_client(provider, scopes=("openid", "email"))), http)
    Connection.objects.filter(pk=connection.pk).update(connected_as="ada@example.com", facts={"team": "one"})
    state = state_of(caller, connection)
    assert (state["connected_as"], state["metadata"]) == ("ada@example.com", {"team": "one"})


def test_it_tells_how_the_last_try_failed(caller, robot, provider):
    provider.answer = Answer.busy(503, retry_after=60)
    renew(caller, robot)
    error = state_of(caller, robot)["last_error"]
    assert MOMENT.fullmatch(error.pop("at"))
    assert (error["code"], error["reason"]) == ("http_503", "provider_unavailable")
    assert set(error) == {"code", "message", "reason"}


def test_it_tells_what_became_of_tokens_that_were_given_up(caller, robot):
    revocation = caller.post(f"{path_of(robot)}/disconnect", {}).json()["data"]["revocation"]
    assert revocation == state_of(caller, robot)["revocation"]
    assert (revocation["outcome"], revocation["reason"]) == ("not_supported", None)


def test_each_environment_has_a_state_of_its_own(caller, connected, http):
    staging(caller)
    assert caller.get(path_of(connected) + "?environment=staging").json()["error"]["reason"] == "not_connected"
    consent_by_link(caller, connected, http, environment="staging")
    caller.post(f"{path_of(connected)}/disconnect", {})
    states = [state_of(caller, connected, query) for query in ("", "?environment=production", "?environment=staging")]
    assert [(state["environment"], state["connection_status"]) for state in states] == [
        ("production", "disconnected"),
        ("production", "disconnected"),
        ("staging", "connected"),
    ]
    assert caller.get(path_of(connected) + "?environment=none").status_code == 400


def test_it_holds_no_credential(caller, connected, provider):
    token, refresh_token = connected.access_token.open().reveal(), connected.refresh_token.open().reveal()
    shown = caller.get(path_of(connected)).content.decode()
    for secret in (token, refresh_token, provider.client_secret):
        assert secret not in shown


def test_nobody_else_sees_it(caller, connected):
    for stranger in (Caller(), Caller(caller.account, mode="test")):
        assert stranger.get(path_of(connected)).status_code == 404
        assert renew(stranger, connected).status_code == 404
    reader = Caller(caller.account, role="read_only")
    assert reader.get(path_of(connected)).status_code == 200
    assert renew(reader, connected).status_code == 403
    for path in (f"/v1/secrets/{a_string(caller).pk}/oauth2", f"/v1/secrets/{a_string(caller, 's').pk}/oauth2/refresh"):
        answer = caller.post(path, {}) if path.endswith("refresh") else caller.get(path)
        assert answer.json()["error"]["type"] == "invalid_type"


@pytest.mark.django_db(transaction=True)
def test_it_costs_the_same_few_statements_whatever_there_is_to_tell(provider):
    caller = Caller()
    connection = an_oauth2_secret(caller, a_client(provider, grant_type="client_credentials"))

    def statements() -> int:
        state_of(caller, connection)
        with CaptureQueriesContext(database) as queries:
            state_of(caller, connection)
        sealed = re.compile(r'"(?:access_token|refresh_token|document|private_key|previous_client_secret)"(?! IS NOT)')
        assert not [q for q in queries if sealed.search(q["sql"].split(" FROM ")[0])]
        return len(queries)

    before = statements()
    certificate = a_certificate(caller)
    Certificate.objects.update(expires_at=Now())
    ClientRegistration.objects.update(
        mtls_certificate=certificate, previous_client_secret_expires_at=Now() + timedelta(hours=1)
    )
    Connection.objects.update(outcome_unknown_at=Now(), previous_client_secret_used_at=Now(), failure_code="x")
    assert len(attention(caller, connection)) == 3
    assert statements() == before <= 6


# What a person should know


def test_a_refresh_that_was_cut_off_is_told_until_it_is_resolved(caller, connected, provider):
    provider.next(Answer(drop="closed"))
    renew(caller, connected)
    assert set(attention(caller, connected)) == {"refresh_outcome_unknown"}
    age(connected, expires_in=-1)
    assert renew(caller, connected).status_code == 200
    assert attention(caller, connected) == {}


def test_a_token_that_ends_and_cannot_be_renewed_is_told_with_its_end(caller, provider, http):
    provider.refresh_tokens = "never"
    connection = consent(an_oauth2_secret(caller, a_client(provider)), http)
    item = attention(caller, connection)["no_refresh_token"]
    assert item["reauthorize_by"] == state_of(caller, connection)["token_expires_at"]
    age(connection, expires_in=-1)
    renew(caller, connection)
    assert state_of(caller, connection)["connection_status"] == "reauthorization_required"
    assert attention(caller, connection) == {}
    provider.refresh_tokens = "rotated"
    consent_by_link(caller, connection, http)
    assert attention(caller, connection) == {}


@pytest.mark.parametrize("grant", ["authorization_code", "client_credentials"])
def test_a_token_that_needs_no_refresh_token_is_no_matter(caller, provider, http, grant):
    provider.refresh_tokens = "never"
    provider.omit = {"expires_in"} if grant == "authorization_code" else set()
    connection = an_oauth2_secret(caller, a_client(provider, grant_type=grant))
    if grant == "authorization_code":
        consent(connection, http)
    assert attention(caller, connection) == {}


def test_a_refresh_token_that_ends_soon_is_told_with_its_end(caller, connected):
    Connection.objects.update(reauthorize_by=Now() + timedelta(days=8))
    assert attention(caller, connected) == {}
    Connection.objects.update(reauthorize_by=Now() + timedelta(days=6))
    item = attention(caller, connected)["reauthorize_soon"]
    assert set(item) == {"code", "since", "message", "reauthorize_by"}
    assert MOMENT.fullmatch(item["reauthorize_by"])
    assert item["reauthorize_by"] == state_of(caller, connected)["reauthorize_by"]


def test_a_refresh_token_that_every_refresh_renews_is_no_matter_however_short_its_life(caller, connected):
    Connection.objects.update(
        refresh_token_expires_at=Now() + timedelta(days=2), refresh_token_rolls=True, reauthorize_by=None
    )
    state = state_of(caller, connected)
    assert (state["attention"], state["reauthorize_by"]) == ([], None)
    assert MOMENT.fullmatch(state["refresh_token_expires_at"])


def test_failing_refreshes_are_told_to_cost_the_refresh_token_from_when_they_fail(caller, connected):
    ends_at = Now() + timedelta(days=2)
    Connection.objects.update(refresh_token_expires_at=ends_at, refresh_token_rolls=True, reauthorize_by=ends_at)
    before = attention(caller, connected)["reauthorize_soon"]
    Connection.objects.update(status=Status.REFRESH_FAILING, status_changed_at=Now())
    failing = attention(caller, connected)["reauthorize_soon"]
    assert failing["message"] != before["message"]
    assert failing["since"] > before["since"]
    # The end of a grant that refreshes never move stays what it is.
    connected.refresh_from_db()
    Connection.objects.update(refresh_token_rolls=False, refresh_token_expires_at=connected.reauthorize_by)
    assert attention(caller, connected)["reauthorize_soon"]["message"] == before["message"]


def test_an_end_that_has_passed_is_told_until_the_connection_ends(caller, connected):
    Connection.objects.update(reauthorize_by=Now() - timedelta(days=1))
    assert set(attention(caller, connected)) == {"reauthorize_soon"}
    for ended in (Status.REAUTHORIZATION_REQUIRED, Status.DISCONNECTED):
        Connection.objects.update(status=ended, refresh_due_at=None)
        assert attention(caller, connected) == {}


def test_an_end_without_a_refresh_token_or_of_a_grant_that_needs_no_person_is_no_matter(caller, connected):
    Connection.objects.update(reauthorize_by=Now() + timedelta(days=1))
    ClientRegistration.objects.update(grant_type="password")
    assert attention(caller, connected) == {}
    ClientRegistration.objects.update(grant_type="authorization_code")
    Connection.objects.update(refresh_token=None)
    assert "reauthorize_soon" not in attention(caller, connected)


@pytest.mark.parametrize(
    ("provider_name", "asked", "granted", "missing"),
    [
        ("custom", ["a", "b"], ["b", "a"], None),
        ("custom", ["a"], ["a", "b"], None),
        ("custom", ["a", "a"], ["a"], None),
        ("custom", ["a", "b", "c"], ["b"], "a, c."),
        ("custom", ["a"], [], "a."),
        ("custom", ["a", "b"], None, None),
        ("custom", ["a", "offline_access"], ["a"], None),
        ("salesforce", ["api", "refresh_token"], ["api"], None),
        ("custom", ["api", "refresh_token"], ["api"], "refresh_token."),
        (
            "google",
            ["openid", "email", "profile"],
            ["openid"] + [f"https://www.googleapis.com/auth/userinfo.{name}" for name in ("profile", "email")],
            None,
        ),
        ("google", ["openid", "email"], ["openid"], "email."),
        (
            "microsoft",
            ["openid", "offline_access", "User.Read"],
            ["openid", "https://graph.microsoft.com/User.Read"],
            None,
        ),
        ("microsoft", ["https://graph.microsoft.com/.default"], ["https://graph.microsoft.com/Mail.Read"], None),
    ],
)
def test_scopes_are_compared_as_sets(caller, connected, provider_name, asked, granted, missing):
    ClientRegistration.objects.update(provider=provider_name, scopes=asked)
    Connection.objects.update(granted_scopes=granted)
    found = attention(caller, connected)
    assert set(found) == ({"scopes_differ"} if missing else set())
    if missing:
        assert found["scopes_differ"]["message"].endswith(f": {missing}")


def test_scopes_that_were_changed_differ_until_the_next_consent(caller, connected, http):
    caller.patch(path_of(connected), {"scopes": ["a", "b", "c"]})
    assert set(attention(caller, connected)) == {"scopes_differ"}
    consent_by_link(caller, connected, http)
    assert attention(caller, connected) == {}


def test_a_certificate_that_expires_is_told_a_month_ahead_and_after(caller, robot):
    certificate = a_certificate(caller)
    ClientRegistration.objects.update(mtls_certificate=certificate)
    for days, said in ((31, None), (29, "expires"), (-1, "expired")):
        Certificate.objects.update(expires_at=Now() + timedelta(days=days))
        found = attention(caller, robot)
        assert set(found) == ({"certificate_expiring"} if said else set())
        assert said is None or f"certificate {said} on" in found["certificate_expiring"]["message"]
    assert state_of(caller, robot)["mtls_certificate_id"] == str(certificate.pk)


# Refreshing now


def test_a_refresh_answers_as_the_token_call_does(caller, connected, provider):
    answer = renew(caller, connected)
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert data["generation"] == 2
    assert provider.is_live(data["access_token"])
    token = caller.get(f"{path_of(connected)}/token").json()["data"]
    assert {**data, "expires_in": 0} == {**token, "expires_in": 0}
    assert answer["Cache-Control"] == "no-store"


def test_a_repeated_key_refreshes_once(caller, connected, provider):
    answers = [caller.post(f"{path_of(connected)}/refresh", {}, X_Idempotency_Key="once") for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert provider.refreshes == 1


@pytest.mark.django_db(transaction=True)
def test_refreshes_at_once_join_one(provider, http):
    caller = Caller()
    connection = consent(an_oauth2_secret(caller, a_client(provider)), http)
    provider.delay = 0.5
    answers = all_at_once(*[lambda: renew(caller, connection)] * 4)
    assert {answer.json()["data"]["generation"] for answer in answers} == {2}
    assert provider.count("refresh_token") == 1


@pytest.mark.django_db(transaction=True)
def test_refreshes_at_once_share_a_failure_too(provider, http):
    caller = Caller()
    connection = age(consent(an_oauth2_secret(caller, a_client(provider)), http), expires_in=-1)
    provider.delay, provider.answer = 0.5, Answer.busy(503, retry_after=60)
    answers = all_at_once(*[lambda: renew(caller, connection)] * 4)
    assert {answer.json()["error"]["reason"] for answer in answers} == {"provider_unavailable"}
    assert provider.count("refresh_token") == 1


@pytest.mark.parametrize("failure", [Answer.busy(503, retry_after=60), Answer.error("invalid_client", status=401)])
def test_a_back_off_is_overruled_after_ten_seconds(caller, connected, provider, failure):
    age(connected, expires_in=-1)
    provider.next(failure)
    assert renew(caller, connected).status_code == 500
    assert renew(caller, connected).status_code == 500
    Connection.objects.update(failed_at=Now() - timedelta(seconds=11))
    assert caller.get(f"{path_of(connected)}/token?force_refresh=true").status_code == 500
    assert provider.count("refresh_token") == 1
    assert renew(caller, connected).status_code == 200


def test_a_valid_token_is_answered_with_why_it_was_not_refreshed(caller, connected, provider):
    provider.next(Answer.busy(503, retry_after=60))
    data = renew(caller, connected).json()["data"]
    assert (data["generation"], data["refresh_error"]["code"]) == (1, "http_503")


def test_a_grant_without_a_person_is_made_in_a_second_environment(caller, robot, provider):
    staging(caller)
    assert caller.get(f"{path_of(robot)}/token?environment=staging").json()["error"]["reason"] == "not_connected"
    data = renew(caller, robot, environment="staging").json()["data"]
    assert (data["generation"], data["connection_status"]) == (1, "connected")
    assert caller.get(f"{path_of(robot)}/token?environment=staging").json()["data"]["generation"] == 1
    assert provider.count("client_credentials") == 2
    answer = renew(caller, robot, environment="nowhere")
    assert (answer.status_code, list(answer.json()["fields"])) == (400, ["environment"])


def test_a_consent_is_not_made_in_a_second_environment(caller, connected):
    staging(caller)
    assert renew(caller, connected, environment="staging").json()["error"]["reason"] == "not_connected"
    assert Connection.objects.count() == 1


def test_what_was_disconnected_comes_back_where_nobody_is_needed(caller, robot, provider):
    caller.post(f"{path_of(robot)}/disconnect", {})
    assert caller.get(f"{path_of(robot)}/token?force_refresh=true").json()["error"]["reason"] == "not_connected"
    assert renew(caller, robot).json()["data"]["connection_status"] == "connected"
    states = ConnectionEvent.objects.filter(connection=robot).order_by("pk").values_list("previous_status", "status")
    assert list(states)[-2:] == [("disconnected", "not_connected"), ("not_connected", "connected")]


def test_what_was_disconnected_stays_so_where_a_person_is_needed(caller, connected, provider):
    caller.post(f"{path_of(connected)}/disconnect", {})
    assert renew(caller, connected).json()["error"]["reason"] == "not_connected"
    assert provider.refreshes == 0


def test_a_password_that_was_refused_is_tried_again_when_somebody_asks_after_ten_seconds(caller, provider):
    connection = an_oauth2_secret(caller, a_client(provider, grant_type="password", password="late"))
    assert renew(caller, connection).json()["error"]["reason"] == "reauthorization_required"
    assert provider.count("password") == 1
    provider.password = "late"
    Connection.objects.update(failed_at=timezone.now() - timedelta(seconds=11))
    assert renew(caller, connection).status_code == 200


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (Answer.error("invalid_grant"), "reauthorization_required"),
        (Answer.error("invalid_client", status=401), "provider_rejected"),
        (Answer.html(502), "provider_unavailable"),
        (Answer(drop="reset"), "provider_unavailable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refresh_that_fails_says_why(caller, connected, provider, failure, reason):
    age(connected, expires_in=-1)
    provider.answer = failure
    answer = renew(caller, connected)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "token_error")
    assert answer.json()["error"]["reason"] == reason


@pytest.mark.parametrize("body", [{"environment": 7}, {"force": True}, []])
def test_a_body_that_does_not_fit_is_refused(caller, connected, provider, body):
    assert caller.post(f"{path_of(connected)}/refresh", body).status_code == 400
    assert provider.refreshes == 0
