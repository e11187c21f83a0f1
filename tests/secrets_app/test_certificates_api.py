"""The calls for certificate secrets."""

from __future__ import annotations

import logging
import uuid

import pytest
from django.db import connection
from django.db.models import ProtectedError
from django.test.utils import CaptureQueriesContext

from secrets_app.kinds import KINDS
from secrets_app.models import ApiKey, Certificate, Secret
from tests.factories import Caller, a_certificate, a_string
from tests.secrets_app.test_secrets_api import ROW
from tests.support.certificates import chain, issue

LEAF, MIDDLE, ROOT = chain()
METADATA = {
    "subject",
    "issuer",
    "expires_at",
    "has_private_key",
    "has_passphrase",
    "fingerprint_sha256",
    "serial_number",
}
CERTIFICATE_ROW = ROW | {"certificate_type", "metadata"}
PASSPHRASE = "planted-7f3a-passphrase"
BODY = {
    "name": "a-certificate",
    "certificate_content": f"planted-7f3a-content\n{LEAF.pem}",
    "private_key": LEAF.key_pem(PASSPHRASE),
    "passphrase": PASSPHRASE,
}
SENT = ("planted-7f3a", LEAF.key_pem(PASSPHRASE).split("\n")[1], LEAF.pem.split("\n")[1])


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


def create(caller: Caller, **body):
    return caller.post("/v1/secrets/certificate", {**BODY, **body})


def replace(caller: Caller, secret_id: object, **headers):
    body = {"certificate_content": NEW.pem, "private_key": NEW.key_pem()}
    return caller.request("PUT", f"/v1/secrets/{secret_id}/certificate", body, **headers)


NEW = issue("new", serial=7)


def test_a_created_certificate_is_answered_with_what_is_public_of_it(caller):
    answer = create(caller)
    assert answer.status_code == 201, answer.content
    data = answer.json()["data"]
    assert set(data) == CERTIFICATE_ROW
    assert uuid.UUID(data["id"]).version == 4
    assert (data["secret_type"], data["certificate_type"]) == ("certificate", "pem")
    assert (data["base_environment"], data["environment_count"], data["collection_id"]) == ("production", 1, None)
    assert set(data["metadata"]) == METADATA
    assert data["metadata"] == {
        "subject": "CN=leaf",
        "issuer": "CN=middle",
        "expires_at": f"{LEAF.certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%S}.000Z",
        "has_private_key": True,
        "has_passphrase": True,
        "fingerprint_sha256": data["metadata"]["fingerprint_sha256"],
        "serial_number": "ff",
    }


def test_it_may_be_created_by_the_common_call_too(caller):
    answer = caller.post("/v1/secrets", {**BODY, "secret_type": "certificate"})
    assert answer.status_code == 201
    assert set(answer.json()["data"]) == CERTIFICATE_ROW


def test_pkcs12_is_described_like_pem(caller):
    content = LEAF.pkcs12(PASSPHRASE, MIDDLE)
    body = {"name": "x", "certificate_content": content, "certificate_type": "pfx", "passphrase": PASSPHRASE}
    data = caller.post("/v1/secrets/certificate", body).json()["data"]
    assert (data["certificate_type"], data["metadata"]["subject"]) == ("pfx", "CN=leaf")
    assert data["metadata"]["has_private_key"] is True


def test_rows_and_details_show_the_same(caller):
    made = create(caller, description="d").json()["data"]
    plain = a_certificate(caller, ROOT, "plain", key=False)
    a_string(caller, "string")
    listed = caller.get("/v1/secrets?secret_type=certificate").json()["data"]
    assert [row["name"] for row in listed] == ["a-certificate", "plain"]
    assert listed[0] == made
    assert (listed[1]["metadata"]["has_private_key"], listed[1]["metadata"]["has_passphrase"]) == (False, False)
    detail = caller.get(f"/v1/secrets/{plain.pk}").json()["data"]
    assert set(detail) == CERTIFICATE_ROW | {"environments"}
    [environment] = detail["environments"]
    assert environment.pop("updated_at")
    assert environment == {"environment_name": "production", "value_version": 1, "expires_at_override": None}


def test_a_list_reads_nothing_sealed_and_costs_the_same_whatever_it_holds(caller):
    a_certificate(caller, name="first")
    with CaptureQueriesContext(connection) as one:
        caller.get("/v1/secrets")
    for number in range(5):
        a_certificate(caller, name=f"c{number}")
    with CaptureQueriesContext(connection) as many:
        assert len(caller.get("/v1/secrets").json()["data"]) == 6
    assert len(many) <= len(one)
    table = Certificate._meta.db_table
    for name in ("content", "private_key", "passphrase"):
        assert not any(f'"{table}"."{name}",' in query["sql"] for query in many), name


# What is refused


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"certificate_content": None}, "certificate_content"),
        ({"certificate_content": ""}, "certificate_content"),
        ({"certificate_content": "x" * 65_537}, "certificate_content"),
        ({"certificate_content": "planted-7f3a"}, "certificate_content"),
        ({"certificate_type": "jks"}, "certificate_type"),
        ({"certificate_type": None}, "certificate_type"),
        ({"private_key": 7}, "private_key"),
        ({"private_key": MIDDLE.key_pem(PASSPHRASE)}, "private_key"),
        ({"passphrase": "planted-7f3a-wrong"}, "passphrase"),
        ({"passphrase": None}, "passphrase"),
        ({"passphrase": ["planted-7f3a"]}, "passphrase"),
        ({"passphrase": PASSPHRASE, "private_key": None}, "passphrase"),
        ({"value": "planted-7f3a"}, "value"),
        ({"collection_id": str(uuid.uuid4())}, "collection_id"),
        ({"environment": "nowhere"}, "environment"),
    ],
)
def test_what_is_wrong_is_named_and_not_quoted(caller, body, field):
    answer = create(caller, **body)
    assert answer.status_code == 400, answer.content
    assert answer.json()["error"]["type"] == "validation_error"
    assert set(answer.json()["fields"]) == {field}
    assert "planted-7f3a" not in answer.content.decode()
    assert not Secret.objects.exists()


def test_a_name_is_taken_once(caller):
    create(caller)
    assert create(caller).status_code == 409


def test_a_read_only_key_writes_none(caller):
    stored = a_certificate(caller)
    reader = Caller(caller.account, role=ApiKey.Role.READ_ONLY)
    assert create(reader, name="other").status_code == 403
    assert replace(reader, stored.pk).status_code == 403


def test_a_certificate_has_no_token(caller):
    answer = caller.get(f"/v1/secrets/{a_certificate(caller).pk}/oauth2/token")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_type")


# Replacing


def test_a_replacement_is_the_next_version(caller):
    made = create(caller).json()["data"]
    answer = replace(caller, made["id"])
    assert answer.status_code == 200, answer.content
    data = answer.json()["data"]
    assert set(data) == CERTIFICATE_ROW | {"value_version"}
    assert (data["id"], data["value_version"]) == (made["id"], 2)
    assert (data["metadata"]["subject"], data["metadata"]["has_passphrase"]) == ("CN=new", False)
    [environment] = caller.get(f"/v1/secrets/{made['id']}").json()["data"]["environments"]
    assert environment["value_version"] == 2


def test_a_repeated_replacement_is_made_once(caller):
    stored = a_certificate(caller)
    first, second = (replace(caller, stored.pk, X_Idempotency_Key="k") for _ in range(2))
    assert second["Idempotent-Replayed"] == "true"
    assert first.json()["data"]["value_version"] == second.json()["data"]["value_version"] == 2


def test_only_ones_own_certificate_is_replaced(caller):
    theirs = a_certificate(Caller())
    assert replace(caller, theirs.pk).status_code == 404
    assert replace(caller, "nonsense").status_code == 404
    answer = replace(caller, a_string(caller).pk)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_type")


def test_a_refused_replacement_changes_nothing(caller):
    stored = a_certificate(caller)
    path = f"/v1/secrets/{stored.pk}/certificate"
    for body in ({}, {"certificate_content": "nonsense"}, {"certificate_content": NEW.pem, "name": "x"}):
        assert caller.request("PUT", path, body).status_code == 400
    stored.refresh_from_db()
    assert (stored.version, stored.subject) == (1, "CN=leaf")


# Deleting


def test_one_that_is_in_use_is_not_deleted(caller, monkeypatch):
    stored = a_certificate(caller)

    def dismantle(secret, scope):
        # As the foreign key of another secret does.
        raise ProtectedError("in use", {secret})

    monkeypatch.setattr(KINDS[Secret.Type.CERTIFICATE], "dismantle", dismantle)
    answer = caller.delete(f"/v1/secrets/{stored.pk}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (409, "in_use")
    monkeypatch.undo()
    assert caller.delete(f"/v1/secrets/{stored.pk}").status_code == 200
    assert not Certificate.objects.exists()


# Leaks


def test_nothing_that_was_sent_comes_back_or_is_logged(caller, caplog):
    caplog.set_level(logging.DEBUG)
    made = create(caller)
    path = f"/v1/secrets/{made.json()['data']['id']}"
    answers = [
        made,
        create(caller),
        create(caller, name="other", passphrase="planted-7f3a-wrong"),
        create(caller, name="other", private_key=f"planted-7f3a\n{MIDDLE.key_pem(PASSPHRASE)}"),
        create(caller, name="other", certificate_content=f"{LEAF.pem}planted-7f3a"),
        caller.request("PUT", f"{path}/certificate", {k: v for k, v in BODY.items() if k != "name"}),
        caller.request("PUT", f"{path}/certificate", BODY),
        caller.get(path),
        caller.get("/v1/secrets"),
        caller.delete(path),
    ]
    assert [answer.status_code for answer in answers] == [201, 409, 400, 400, 400, 200, 400, 200, 200, 200]
    for text in (caplog.text, *(answer.content.decode() for answer in answers)):
        assert [sent for sent in SENT if sent in text] == []
