"""The calls for environments."""

from __future__ import annotations

import uuid

import pytest

from secrets_app.environments import MOST
from secrets_app.models import ApiKey, AuditEvent, Environment
from tests.factories import Caller

ROW = {"id", "name", "display_name", "description", "color", "is_default", "created_at"}


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


def create(caller: Caller, **body):
    return caller.post("/v1/environments", {"name": "staging", **body})


def test_a_new_account_has_production_in_a_list_without_pages(caller):
    answer = caller.get("/v1/environments")
    [row] = answer.json()["data"]
    assert set(row) == ROW
    assert (row["name"], row["display_name"], row["is_default"]) == ("production", "Production", True)
    assert answer.json()["meta"] == {"request_id": answer["X-Request-Id"]}


def test_an_environment_needs_a_name_only(caller):
    answer = create(caller)
    assert answer.status_code == 201, answer.content
    data = answer.json()["data"]
    assert set(data) == ROW
    assert uuid.UUID(data["id"]).version == 4
    assert (data["name"], data["display_name"], data["description"]) == ("staging", "staging", "")
    assert (data["color"], data["is_default"]) == ("#6366f1", False)
    event = AuditEvent.objects.get(action="environment.created")
    assert (event.resource_id, event.details) == (data["id"], {"name": "staging"})


def test_everything_that_is_given_is_kept(caller):
    given_fields = {"display_name": "Stage ü", "description": "d", "color": "#0a0B0c", "is_default": True}
    data = create(caller, **given_fields).json()["data"]
    assert data.items() >= given_fields.items()


def test_environments_are_listed_by_name_for_their_account_and_mode(caller):
    for name in ("z", "a-1", "_"):
        create(caller, name=name)
    create(Caller(), name="a-strangers")
    create(Caller(caller.account, mode="test"), name="a-tests")
    rows = caller.get("/v1/environments").json()["data"]
    assert [row["name"] for row in rows] == ["_", "a-1", "production", "z"]


def test_a_new_default_takes_the_place_of_the_one_before(caller):
    create(caller, is_default=True)
    rows = caller.get("/v1/environments").json()["data"]
    assert {row["name"]: row["is_default"] for row in rows} == {"production": False, "staging": True}
    # The other mode and other accounts keep theirs.
    assert Caller(caller.account, mode="test").get("/v1/environments").json()["data"][0]["is_default"] is True


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("name", value) for value in (None, 7, "", "Staging", "a b", "a.b", "ä", "a\n", "x" * 65)),
        *(("display_name", value) for value in (None, 7, "", "x" * 256, "a\x00b")),
        *(("description", value) for value in (None, 7, "x" * 4001)),
        *(("color", value) for value in (None, 7, "", "red", "#fff", "#6366f1\n", "#6366g1", "6366f1")),
        *(("is_default", value) for value in (None, 1, "true")),
        ("colour", "#6366f1"),
    ],
)
def test_what_is_wrong_is_named(caller, field, value):
    answer = create(caller, **{field: value})
    assert answer.status_code == 400
    assert set(answer.json()["fields"]) == {field}


def test_a_name_is_taken_once(caller):
    assert create(caller, name="production").status_code == 409
    assert create(caller).status_code == 201
    answer = create(caller)
    assert (answer.status_code, answer.json()["error"]["type"]) == (409, "conflict")


def test_the_number_of_environments_is_limited(caller):
    Environment.objects.bulk_create(
        Environment(account=caller.account, mode="live", name=f"e{number}", display_name="-")
        for number in range(MOST - 2)
    )
    assert create(caller).status_code == 201
    answer = create(caller, name="one-too-many", is_default=True)
    assert answer.status_code == 400
    assert str(MOST) in answer.json()["error"]["message"]
    assert Environment.objects.get(account=caller.account, mode="live", is_default=True).name == "production"
    assert create(Caller(caller.account, mode="test")).status_code == 201


def test_a_repeat_creates_one(caller):
    first, second = (caller.post("/v1/environments", {"name": "x"}, X_Idempotency_Key="k") for _ in range(2))
    assert first.json()["data"]["id"] == second.json()["data"]["id"]


def test_a_secret_may_be_created_in_a_new_environment(caller):
    create(caller)
    answer = caller.post("/v1/secrets", {"name": "x", "value": "y", "environment": "staging"})
    assert answer.json()["data"]["base_environment"] == "staging"


def test_a_read_only_key_reads_and_creates_none(caller):
    reader = Caller(caller.account, role=ApiKey.Role.READ_ONLY)
    assert reader.get("/v1/environments").status_code == 200
    assert create(reader).status_code == 403
