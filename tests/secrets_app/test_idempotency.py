"""Idempotent requests: one run, one answer, kept sealed for a day."""

from __future__ import annotations

import inspect
import json
import threading
import time
import uuid
from datetime import timedelta

import pytest
from django.db import InterfaceError, OperationalError, connection
from django.db.models.functions import Now
from django.urls import get_resolver
from rest_framework.views import APIView

from knoxcall import waiting
from secrets_app import idempotency, tasks
from secrets_app.api import views
from secrets_app.models import Collection, IdempotencyRecord, Secret
from tests.factories import Caller, a_string
from tests.support.crowd import all_at_once

BODY = {"name": "a-secret", "value": "planted-7f3a-value"}


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.fixture
def committed(transactional_db) -> Caller:
    return Caller()


def create(caller: Caller, key: str = "a-key", body: dict | None = None, **headers):
    return caller.post("/v1/secrets", body or BODY, X_Idempotency_Key=key, **headers)


def assert_replayed(first, second) -> None:
    assert second.status_code == first.status_code
    assert second.json() == first.json()
    assert second["Idempotent-Replayed"] == "true"


def assert_ran(answer, status: int = 201) -> None:
    assert answer.status_code == status, answer.content
    assert "Idempotent-Replayed" not in answer


# Replay


def test_the_same_request_is_answered_with_the_first_answer(caller):
    first = create(caller)
    assert_ran(first)
    assert_replayed(first, create(caller))
    assert Secret.objects.count() == 1


@pytest.mark.parametrize("header", ["X-Idempotency-Key", "Idempotency-Key", "x-idempotency-key"])
def test_either_header_names_the_key(caller, header):
    first = caller.post("/v1/secrets", BODY, **{header: "a-key"})
    assert_replayed(first, create(caller))


def test_without_a_key_every_request_runs(caller):
    assert caller.post("/v1/secrets", BODY).status_code == 201
    assert caller.post("/v1/secrets", BODY).status_code == 409
    assert not IdempotencyRecord.objects.exists()


def test_a_delete_is_replayed(caller):
    secret = a_string(caller)
    first = caller.delete(f"/v1/secrets/{secret.pk}", X_Idempotency_Key="a-key")
    assert_ran(first, 200)
    assert_replayed(first, caller.delete(f"/v1/secrets/{secret.pk}", X_Idempotency_Key="a-key"))


def test_a_collection_is_replayed(caller):
    first = caller.post("/v1/collections", {"name": "x"}, X_Idempotency_Key="a-key")
    assert_ran(first)
    assert_replayed(first, caller.post("/v1/collections", {"name": "x"}, X_Idempotency_Key="a-key"))
    assert Collection.objects.count() == 1


def test_a_replay_outlives_what_it_speaks_of(caller):
    first = create(caller)
    caller.delete(f"/v1/secrets/{first.json()['data']['id']}")
    assert_replayed(first, create(caller))
    assert not Secret.objects.exists()


def test_another_process_replays_the_same(committed):
    from secrets_app import data_keys

    first = create(committed)
    data_keys.forget()
    assert_replayed(first, create(committed))


def test_a_replay_has_a_request_id_of_its_own(caller):
    first, second = create(caller, X_Request_Id="one"), create(caller, X_Request_Id="two")
    assert second["X-Request-Id"] == "two"
    assert second.json() == first.json()


# The key and its scope


def test_another_body_under_the_same_key_is_a_conflict(caller):
    create(caller)
    answer = create(caller, body={**BODY, "value": "another"})
    assert answer.status_code == 409
    assert answer.json()["error"]["type"] == "idempotency_key_reuse"
    assert "another" not in answer.content.decode()


def test_a_body_differs_by_its_bytes(caller):
    create(caller)
    answer = caller.request("POST", "/v1/secrets", json.dumps(BODY, indent=1).encode(), X_Idempotency_Key="a-key")
    assert answer.status_code == 409


def test_another_key_is_another_request(caller):
    create(caller)
    assert create(caller, key="another").json()["error"]["type"] == "conflict"


def test_another_method_or_path_is_another_request(caller):
    secret, other = a_string(caller, "one"), a_string(caller, "two")
    assert_ran(caller.delete(f"/v1/secrets/{secret.pk}", X_Idempotency_Key="a-key"), 200)
    assert_ran(caller.delete(f"/v1/secrets/{other.pk}", X_Idempotency_Key="a-key"), 200)
    assert_ran(create(caller))
    assert_ran(caller.post("/v1/collections", {"name": "x"}, X_Idempotency_Key="a-key"))


def test_another_account_or_mode_is_another_request(caller):
    assert_ran(create(caller))
    assert_ran(create(Caller()))
    assert_ran(create(Caller(caller.account, mode="test")))


def test_another_key_of_the_account_repeats_the_request(caller):
    first = create(caller)
    assert_replayed(first, create(Caller(caller.account)))


@pytest.mark.parametrize("key", ["x" * 255, "a b", "!~", "0"])
def test_a_key_is_any_printable_ascii(caller, key):
    first = create(caller, key=key)
    assert_replayed(first, create(caller, key=key))


@pytest.mark.parametrize("key", ["x" * 256, "schlüssel", "a\tb", "a\x00b", "a\x7f"])
def test_any_other_key_is_refused(caller, key):
    answer = create(caller, key=key)
    assert answer.status_code == 400
    assert set(answer.json()["fields"]) == {"X-Idempotency-Key"}


def test_a_very_long_path_has_a_record_too(caller):
    answer = caller.delete("/v1/secrets/" + "x" * 5000, X_Idempotency_Key="a-key")
    assert answer.status_code == 404


# Failures


def test_a_failure_is_not_kept(caller):
    assert create(caller, body={"name": "a-secret"}).status_code == 400
    assert not IdempotencyRecord.objects.exists()


def test_a_failure_then_a_success_under_one_key(caller):
    assert create(caller, body={"name": "a-secret"}).status_code == 400
    assert_ran(create(caller))
    assert_replayed(create(caller), create(caller))


def test_a_conflict_is_not_kept(caller):
    secret = a_string(caller, "a-secret")
    assert create(caller).status_code == 409
    caller.delete(f"/v1/secrets/{secret.pk}")
    assert_ran(create(caller))


def test_a_key_without_permission_or_account_leaves_no_record(caller, client):
    assert create(Caller(caller.account, role="read_only")).status_code == 403
    answer = client.post("/v1/secrets", BODY, "application/json", headers={"X-Idempotency-Key": "a-key"})
    assert answer.status_code == 401
    assert not IdempotencyRecord.objects.exists()


@pytest.fixture
def dies_after_the_commit(monkeypatch):
    """Let the process be cut off between the commit and the answer; returns how to end that."""

    def die(*_, **__):
        raise KeyError("cut off")

    monkeypatch.setattr(views, "success", die)
    return monkeypatch.undo


def test_a_repeat_finds_the_secret_that_a_run_cut_off_had_committed(caller, dies_after_the_commit):
    assert create(caller).status_code == 500
    made = Secret.objects.get()
    dies_after_the_commit()
    answer = create(caller)
    assert_ran(answer)
    assert answer.json()["data"]["id"] == str(made.pk)
    assert_replayed(answer, create(caller))
    assert Secret.objects.count() == 1


def test_a_repeat_finds_the_collection_that_a_run_cut_off_had_committed(caller, dies_after_the_commit):
    assert caller.post("/v1/collections", {"name": "x"}, X_Idempotency_Key="a-key").status_code == 500
    made = Collection.objects.get()
    dies_after_the_commit()
    answer = caller.post("/v1/collections", {"name": "x"}, X_Idempotency_Key="a-key")
    assert_ran(answer)
    assert answer.json()["data"]["id"] == str(made.pk)


def test_a_repeat_of_a_delete_that_was_cut_off_is_deleted_and_not_404(caller, dies_after_the_commit):
    secret = a_string(caller)
    assert caller.delete(f"/v1/secrets/{secret.pk}", X_Idempotency_Key="a-key").status_code == 500
    dies_after_the_commit()
    answer = caller.delete(f"/v1/secrets/{secret.pk}", X_Idempotency_Key="a-key")
    assert answer.json()["data"] == {"deleted": True}


def test_a_secret_that_was_deleted_since_is_made_anew(caller, dies_after_the_commit):
    create(caller)
    Secret.objects.all().delete()
    dies_after_the_commit()
    assert_ran(create(caller))
    assert Secret.objects.count() == 1


def test_a_run_that_was_killed_is_taken_over_once_its_lease_ran_out(caller):
    first = create(caller)
    # As the record stands after a kill between commit and answer: leased, naming the secret, without an answer.
    IdempotencyRecord.objects.update(
        status=None, answer=None, attempt=uuid.uuid4(), attempt_expires_at=Now() - timedelta(seconds=1)
    )
    answer = create(caller)
    assert_ran(answer)
    assert answer.json()["data"]["id"] == first.json()["data"]["id"]
    assert Secret.objects.count() == 1


def test_a_run_that_was_killed_before_its_commit_is_run_again(caller):
    create(caller)
    Secret.objects.all().delete()
    IdempotencyRecord.objects.update(
        status=None,
        answer=None,
        resource_id=None,
        attempt=uuid.uuid4(),
        attempt_expires_at=Now() - timedelta(seconds=1),
    )
    assert_ran(create(caller))
    assert Secret.objects.count() == 1


def test_a_run_whose_lease_was_taken_commits_nothing(caller, monkeypatch):
    begin = idempotency.Ledger.begin

    def begin_and_lose(**arguments):
        attempt = begin(**arguments)
        IdempotencyRecord.objects.update(attempt=uuid.uuid4())
        return attempt

    monkeypatch.setattr(idempotency.Ledger, "begin", staticmethod(begin_and_lose))
    answer = create(caller)
    assert answer.status_code == 503
    assert not Secret.objects.exists()


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_an_answer_that_cannot_be_kept_is_given_all_the_same(transactional_db, error):
    caller = Caller()

    def refuse(execute, sql, params, many, context):
        if sql.startswith("UPDATE") and "finished_at" in sql:
            raise error
        return execute(sql, params, many, context)

    with connection.execute_wrapper(refuse):
        first = create(caller)
    assert_ran(first)
    IdempotencyRecord.objects.update(attempt_expires_at=Now() - timedelta(seconds=1))
    assert create(caller).json()["data"]["id"] == first.json()["data"]["id"]


# Two at once


def test_two_threads_with_one_key_make_one_secret(committed):
    both = all_at_once(*[lambda: create(Caller(committed.account))] * 2)
    assert [answer.status_code for answer in both] == [201, 201]
    assert len({answer.json()["data"]["id"] for answer in both}) == 1
    assert sorted("Idempotent-Replayed" in answer for answer in both) == [False, True]
    assert Secret.objects.count() == 1


def test_a_second_request_waits_for_the_first(committed, monkeypatch):
    second = Caller(committed.account)
    running, go_on = threading.Event(), threading.Event()
    create_string = views.create_string

    def slowly(*arguments, **further):
        running.set()
        assert go_on.wait(10)
        return create_string(*arguments, **further)

    monkeypatch.setattr(views, "create_string", slowly)

    def come_second():
        assert running.wait(10)
        threading.Timer(0.2, go_on.set).start()
        return create(second)

    first, replayed = all_at_once(lambda: create(committed), come_second)
    assert_ran(first)
    assert_replayed(first, replayed)


def test_a_first_request_that_goes_on_for_too_long_is_503(committed, monkeypatch):
    create(committed)
    IdempotencyRecord.objects.update(
        status=None, answer=None, attempt=uuid.uuid4(), attempt_expires_at=Now() + timedelta(seconds=30)
    )
    monkeypatch.setattr(idempotency, "LONGEST_WAIT", 0.1)
    started = time.monotonic()
    answer = create(committed)
    assert time.monotonic() - started >= 0.1
    assert answer.status_code == 503
    assert answer.json()["error"]["type"] == "dependency_unavailable"
    assert answer["Retry-After"].isdigit()
    assert Secret.objects.count() == 1


def test_the_longest_wait_leaves_room_in_a_request_of_25_seconds():
    assert idempotency.LONGEST_WAIT < 25
    assert timedelta(seconds=25) < idempotency.LEASE


def test_where_every_place_to_wait_is_taken_a_repeat_is_503_at_once(caller, monkeypatch):
    create(caller)
    IdempotencyRecord.objects.update(
        status=None, answer=None, attempt=uuid.uuid4(), attempt_expires_at=Now() + timedelta(seconds=30)
    )
    monkeypatch.setattr(waiting, "_places", threading.BoundedSemaphore(1))
    with waiting.place():
        answer = create(caller)
    assert answer.status_code == 503
    assert answer["Retry-After"] == "1"


def test_another_body_does_not_wait_for_the_first(caller):
    create(caller)
    IdempotencyRecord.objects.update(
        status=None, answer=None, attempt=uuid.uuid4(), attempt_expires_at=Now() + timedelta(seconds=30)
    )
    assert create(caller, body={**BODY, "value": "another"}).status_code == 409


# What is stored


def test_the_body_is_remembered_as_a_keyed_digest(caller):
    import hashlib

    create(caller)
    record = IdempotencyRecord.objects.get()
    assert len(bytes(record.body_digest)) == 32
    assert bytes(record.body_digest) != hashlib.sha256(json.dumps(BODY).encode()).digest()


def test_nothing_that_was_sent_stands_in_the_record(caller):
    create(caller)
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM secrets_app_idempotencyrecord")
        stored = cursor.fetchone()
    text = b"".join(bytes(v) if isinstance(v, bytes | memoryview) else str(v).encode() for v in stored)
    assert b"planted" not in text
    assert b"a-secret" not in text


def test_the_answer_is_sealed(caller):
    first = create(caller)
    record = IdempotencyRecord.objects.get()
    assert b"a-secret" not in record.answer.ciphertext
    assert json.loads(record.answer.open().reveal()) == first.json()


def test_a_record_is_kept_for_a_day(caller):
    create(caller)
    IdempotencyRecord.objects.update(created_at=Now() - timedelta(hours=23, minutes=59))
    assert idempotency.prune() == 0
    IdempotencyRecord.objects.update(created_at=Now() - timedelta(hours=24, seconds=1))
    assert idempotency.prune() == 1
    assert create(caller).json()["error"]["type"] == "conflict"


def test_the_schedule_prunes(caller):
    create(caller)
    IdempotencyRecord.objects.update(created_at=Now() - timedelta(hours=25))
    tasks.prune()
    assert not IdempotencyRecord.objects.exists()


# Every call


def api_views() -> set[type[APIView]]:
    """The classes of all views under /v1."""
    found, pending = set(), list(get_resolver().url_patterns)
    while pending:
        pattern = pending.pop()
        pending += getattr(pattern, "url_patterns", [])
        view = getattr(getattr(pattern, "callback", None), "cls", None)
        if inspect.isclass(view) and issubclass(view, APIView):
            found.add(view)
    return found


def test_every_call_that_changes_something_is_idempotent():
    handlers = {
        f"{view.__name__}.{method}": getattr(view, method)
        for view in api_views()
        for method in ("post", "put", "patch", "delete")
        if hasattr(view, method)
    }
    assert len(handlers) >= 4
    assert [name for name, handler in handlers.items() if not getattr(handler, "is_idempotent", False)] == []


def test_every_call_names_its_permission():
    for view in api_views():
        offered = {m.upper() for m in ("get", "post", "put", "patch", "delete") if hasattr(view, m)}
        assert set(view.permissions) == offered, view
