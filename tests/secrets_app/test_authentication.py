"""Who is calling: both headers, one 401 for everything else, two worlds, and roles."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import InterfaceError, OperationalError, connection
from django.db.models.functions import Now
from django.utils import timezone

from secrets_app import api_keys
from secrets_app.api import authentication
from secrets_app.models import ApiKey
from tests.factories import Caller, a_string, an_account


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.mark.parametrize("spelling", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer   {}  "])
def test_a_key_is_taken_from_authorization(caller, client, spelling):
    assert client.get("/v1/secrets", headers={"Authorization": spelling.format(caller.key)}).status_code == 200


def test_a_key_is_taken_from_x_api_key(caller, client):
    assert client.get("/v1/secrets", headers={"x-api-key": caller.key}).status_code == 200


def test_authorization_counts_where_both_are_sent(caller, client):
    bad = {"Authorization": "Bearer nonsense", "x-api-key": caller.key}
    assert client.get("/v1/secrets", headers=bad).status_code == 401
    good = {"Authorization": f"Bearer {caller.key}", "x-api-key": "nonsense"}
    assert client.get("/v1/secrets", headers=good).status_code == 200


def failing_headers(account) -> dict[str, dict[str, str]]:
    """Every way not to have a valid key."""
    revoked, revoked_key = api_keys.create_api_key(account.pk, name="revoked")
    ApiKey.objects.filter(pk=revoked.pk).update(revoked_at=timezone.now())
    past = timezone.now() - timedelta(seconds=1)
    _, expired_key = api_keys.create_api_key(account.pk, name="expired", expires_at=past)
    _, good = api_keys.create_api_key(account.pk, name="good")
    unknown = "tk_live_" + "a" * 55
    unknown += api_keys._checksum(unknown)
    return {
        "missing": {},
        "empty": {"Authorization": ""},
        "bearer alone": {"Authorization": "Bearer"},
        "another scheme": {"Authorization": f"Basic {good}"},
        "no scheme": {"Authorization": good},
        "malformed": {"Authorization": "Bearer nonsense"},
        "latin": {"Authorization": "Bearer tk_live_ä"},
        "with NUL": {"x-api-key": "tk_live_" + "\x00" * 61},
        "wrong checksum": {"x-api-key": good[:-1] + ("A" if good[-1] != "A" else "B")},
        "unknown": {"x-api-key": unknown},
        "revoked": {"Authorization": f"Bearer {revoked_key}"},
        "expired": {"x-api-key": expired_key},
    }


def test_every_failure_is_one_and_the_same_answer(db, client):
    answers = {}
    for kind, headers in failing_headers(an_account()).items():
        answer = client.get("/v1/secrets", headers={**headers, "X-Request-Id": "same"})
        assert answer.status_code == 401, kind
        assert answer["WWW-Authenticate"] == "Bearer", kind
        answers[kind] = (answer.content, {name: value for name, value in answer.items() if name != "Date"})
    assert len({str(answer) for answer in answers.values()}) == 1
    assert client.get("/v1/secrets").json()["error"]["type"] == "unauthorized"


def test_a_post_without_a_key_is_401_whatever_its_body(db, client):
    answer = client.post("/v1/secrets", b"{", content_type="text/plain")
    assert answer.status_code == 401


def test_a_test_key_sees_only_test_data_and_a_live_key_only_live_data(caller):
    tester = Caller(caller.account, mode="test")
    live, test = a_string(caller, "live"), a_string(tester, "test")
    assert [row["name"] for row in caller.get("/v1/secrets").json()["data"]] == ["live"]
    assert [row["name"] for row in tester.get("/v1/secrets").json()["data"]] == ["test"]
    assert caller.get(f"/v1/secrets/{test.pk}").status_code == 404
    assert tester.get(f"/v1/secrets/{live.pk}").status_code == 404
    assert tester.delete(f"/v1/secrets/{live.pk}").status_code == 404


def test_a_name_is_free_in_the_other_mode(caller):
    tester = Caller(caller.account, mode="test")
    body = {"name": "same", "value": "x"}
    assert caller.post("/v1/secrets", body).status_code == 201
    assert tester.post("/v1/secrets", body).status_code == 201


def test_a_key_sees_nothing_of_another_account(caller):
    a_string(Caller(), "a-strangers")
    assert caller.get("/v1/secrets").json()["data"] == []


def test_the_use_of_a_key_is_noted(caller):
    caller.get("/v1/secrets")
    caller.row.refresh_from_db()
    assert timezone.now() - caller.row.last_used_at < timedelta(seconds=10)


def test_the_use_of_a_key_is_noted_once_a_minute(caller):
    caller.get("/v1/secrets")
    ApiKey.objects.filter(pk=caller.row.pk).update(last_used_at=None)
    caller.get("/v1/secrets")
    caller.row.refresh_from_db()
    assert caller.row.last_used_at is None


def test_the_use_of_a_key_is_noted_again_after_a_minute(caller):
    caller.get("/v1/secrets")
    ApiKey.objects.filter(pk=caller.row.pk).update(last_used_at=Now() - timedelta(seconds=61))
    authentication.uses.forget()
    caller.get("/v1/secrets")
    caller.row.refresh_from_db()
    assert timezone.now() - caller.row.last_used_at < timedelta(seconds=10)


def test_what_another_process_noted_a_moment_ago_stands(caller):
    noted = timezone.now() - timedelta(seconds=30)
    ApiKey.objects.filter(pk=caller.row.pk).update(last_used_at=noted)
    caller.get("/v1/secrets")
    caller.row.refresh_from_db()
    assert abs(caller.row.last_used_at - noted) < timedelta(seconds=1)


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_use_that_cannot_be_noted_does_no_harm(transactional_db, error):
    caller = Caller()

    def refuse_writes(execute, sql, params, many, context):
        if sql.startswith("UPDATE"):
            raise error
        return execute(sql, params, many, context)

    with connection.execute_wrapper(refuse_writes):
        assert caller.get("/v1/secrets").status_code == 200


def test_a_failed_try_is_not_noted(caller, client):
    client.get("/v1/secrets", headers={"x-api-key": caller.key[:-1] + "!"})
    caller.row.refresh_from_db()
    assert caller.row.last_used_at is None


@pytest.mark.parametrize(
    ("method", "path", "permission"),
    [
        ("POST", "/v1/secrets", "secrets:write"),
        ("POST", "/v1/secrets/oauth2", "secrets:write"),
        ("POST", "/v1/collections", "collections:write"),
        ("DELETE", "/v1/secrets/00000000-0000-4000-8000-000000000000", "secrets:delete"),
    ],
)
def test_a_read_only_key_changes_nothing_and_is_told_the_permission(caller, method, path, permission):
    reader = Caller(caller.account, role=ApiKey.Role.READ_ONLY)
    answer = reader.request(method, path, {"name": "x", "value": "y"})
    assert answer.status_code == 403
    assert answer.json()["error"]["type"] == "forbidden"
    assert permission in answer.json()["error"]["message"]
    assert "WWW-Authenticate" not in answer


def test_a_read_only_key_reads(caller):
    reader = Caller(caller.account, role=ApiKey.Role.READ_ONLY)
    secret = a_string(caller)
    paths = ("/v1/secrets", f"/v1/secrets/{secret.pk}", "/v1/collections")
    assert [reader.get(path).status_code for path in paths] == [200] * 3


@pytest.mark.parametrize("role", [ApiKey.Role.EDITOR, ApiKey.Role.ADMIN])
def test_editors_and_admins_write(caller, role):
    writer = Caller(caller.account, role=role)
    assert writer.post("/v1/secrets", {"name": "x", "value": "y"}).status_code == 201


def test_an_answer_never_shows_the_key(caller):
    for answer in (caller.get("/v1/secrets"), caller.get("/v1/nowhere"), caller.post("/v1/secrets", {})):
        assert caller.key not in answer.content.decode()
