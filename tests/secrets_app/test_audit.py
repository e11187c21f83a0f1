"""The audit record: who did what, in the transaction of what they did, and never a value."""

from __future__ import annotations

import json

import pytest

from secrets_app import audit, vault
from secrets_app.models import AuditEvent, Secret
from tests.factories import Caller, a_string

PLANTED = "planted-7f3a-value"


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


def test_a_creation_is_recorded(caller):
    answer = caller.post("/v1/secrets", {"name": "a name", "value": PLANTED})
    event = AuditEvent.objects.exclude(action="api_key.created").get()
    assert event.action == "secret.created"
    assert (event.account_id, event.mode) == (caller.account.pk, "live")
    assert (event.resource_type, event.resource_id) == ("secret", answer.json()["data"]["id"])
    assert event.actor == caller.row.key_id
    assert event.ip_address == "127.0.0.1"
    assert event.details == {"name": "a_name", "secret_type": "string"}


def test_a_deletion_is_recorded_and_outlives_the_secret(caller):
    secret = a_string(caller)
    caller.delete(f"/v1/secrets/{secret.pk}")
    event = AuditEvent.objects.get(action="secret.deleted")
    assert event.resource_id == str(secret.pk)
    assert event.details == {"name": "a-string"}
    assert not Secret.objects.exists()


def test_a_collection_is_recorded(caller):
    caller.post("/v1/collections", {"name": "x"})
    assert AuditEvent.objects.exclude(action="api_key.created").get().action == "collection.created"


def test_the_mode_is_recorded(db):
    a_string(Caller(mode="test"))
    assert AuditEvent.objects.exclude(action="api_key.created").get().mode == "test"


@pytest.mark.parametrize(
    ("forwarded", "recorded"),
    [("203.0.113.7", "203.0.113.7"), ("2001:db8::7", "2001:db8::7"), ("fe80::1%eth0", "127.0.0.1")],
)
def test_the_address_behind_a_trusted_proxy_is_recorded(caller, forwarded, recorded):
    caller.post("/v1/secrets", {"name": "x", "value": "y"}, X_Forwarded_For=forwarded)
    assert AuditEvent.objects.exclude(action="api_key.created").get().ip_address == recorded


def test_what_failed_is_not_recorded(caller):
    a_string(caller)
    before = AuditEvent.objects.count()
    caller.post("/v1/secrets", {"name": "a-string", "value": "y"})
    caller.post("/v1/secrets", {"name": "b"})
    caller.delete("/v1/secrets/nonsense")
    assert AuditEvent.objects.count() == before


@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_recorded_is_not_done(monkeypatch):
    caller = Caller()
    secret = a_string(caller)

    def refuse(*_, **__):
        raise RuntimeError

    monkeypatch.setattr(vault, "record", refuse)
    assert caller.post("/v1/secrets", {"name": "x", "value": "y"}).status_code == 500
    assert caller.delete(f"/v1/secrets/{secret.pk}").status_code == 500
    assert list(Secret.objects.all()) == [secret]


def test_a_replay_is_recorded_once(caller):
    for _ in range(2):
        caller.post("/v1/secrets", {"name": "x", "value": "y"}, X_Idempotency_Key="a-key")
    assert AuditEvent.objects.exclude(action="api_key.created").count() == 1


def test_reading_is_not_recorded(caller):
    secret = a_string(caller)
    before = AuditEvent.objects.count()
    caller.get("/v1/secrets")
    caller.get(f"/v1/secrets/{secret.pk}")
    assert AuditEvent.objects.count() == before


def test_no_event_holds_a_value_or_a_key(caller):
    answer = caller.post("/v1/secrets", {"name": "x", "value": PLANTED, "description": PLANTED})
    caller.delete(f"/v1/secrets/{answer.json()['data']['id']}")
    stored = json.dumps(list(AuditEvent.objects.values()), default=str)
    assert PLANTED not in stored
    assert caller.key not in stored


def test_the_actions_are_a_closed_set_that_fits_its_column():
    longest = AuditEvent._meta.get_field("action").max_length
    assert all(len(action) <= longest for action in audit.Action)


def test_a_key_is_recorded_without_its_secret_part(db):
    caller = Caller()
    event = AuditEvent.objects.get(action="api_key.created")
    assert (event.resource_id, event.actor) == (str(caller.row.pk), "command line")
    assert event.details == {"key_id": caller.row.key_id, "role": "editor"}
    assert caller.key not in json.dumps(event.details)
