"""The calls for collections."""

from __future__ import annotations

import uuid

import pytest

from secrets_app.models import ApiKey, Collection
from tests.factories import Caller

ROW = {"id", "name", "description", "created_at", "updated_at"}


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


def create(caller: Caller, **body):
    return caller.post("/v1/collections", {"name": "a collection", **body})


def test_a_created_collection_is_answered_with_its_row(caller):
    answer = create(caller, description="What is in it.")
    assert answer.status_code == 201
    data = answer.json()["data"]
    assert set(data) == ROW
    assert uuid.UUID(data["id"]).version == 4
    assert data["name"] == "a collection"
    assert data["description"] == "What is in it."
    assert data["created_at"].endswith("Z")
    assert answer.json()["meta"] == {"request_id": answer["X-Request-Id"]}


def test_a_collection_needs_no_description(caller):
    assert create(caller).json()["data"]["description"] == ""


@pytest.mark.parametrize("path", ["/v1/collections", "/v1/collections/"])
def test_both_spellings_of_the_address_answer(caller, path):
    assert caller.get(path).status_code == 200
    assert caller.post(path, {"name": "x"}).status_code == 201


@pytest.mark.parametrize("name", [None, True, 7, 7.5, [], {}, "", "  ", "x" * 256, "a\x00b"])
def test_a_bad_name_is_refused(caller, name):
    answer = create(caller, name=name)
    assert answer.status_code == 400
    assert set(answer.json()["fields"]) == {"name"}


@pytest.mark.parametrize("description", [None, True, 7, [], {}, "x" * 4001, "a\x00b"])
def test_a_bad_description_is_refused(caller, description):
    answer = create(caller, description=description)
    assert answer.status_code == 400
    assert set(answer.json()["fields"]) == {"description"}


def test_what_is_missing_or_unknown_is_named(caller):
    assert set(caller.post("/v1/collections", {}).json()["fields"]) == {"name"}
    assert set(create(caller, colour="red").json()["fields"]) == {"colour"}


@pytest.mark.parametrize("name", ["x" * 255, "Ünïcode 🔑", "two words"])
def test_a_name_is_kept_as_it_is(caller, name):
    assert create(caller, name=name).json()["data"]["name"] == name


def test_a_name_is_taken_once(caller):
    create(caller)
    answer = create(caller)
    assert answer.status_code == 409
    assert answer.json()["error"]["type"] == "conflict"
    assert Collection.objects.count() == 1


def test_a_name_is_free_in_the_other_mode_and_another_account(caller):
    create(caller)
    assert create(Caller(caller.account, mode="test")).status_code == 201
    assert create(Caller()).status_code == 201


def test_collections_are_listed_by_name_for_their_account_and_mode(caller):
    for name in ("b", "c", "a"):
        create(caller, name=name)
    create(Caller(), name="a strangers")
    create(Caller(caller.account, mode="test"), name="a tests")
    answer = caller.get("/v1/collections")
    assert [row["name"] for row in answer.json()["data"]] == ["a", "b", "c"]
    assert all(set(row) == ROW for row in answer.json()["data"])
    assert answer.json()["meta"] == {
        "total": 3,
        "page": 1,
        "per_page": 20,
        "total_pages": 1,
        "request_id": answer["X-Request-Id"],
    }


def test_collections_are_sorted_and_paged_as_asked(caller):
    for name in ("b", "c", "a"):
        create(caller, name=name)
    answer = caller.get("/v1/collections?sort=created_at&order=desc&per_page=2")
    assert [row["name"] for row in answer.json()["data"]] == ["a", "c"]
    assert answer.json()["meta"]["total_pages"] == 2


def test_an_unknown_sort_is_refused(caller):
    assert caller.get("/v1/collections?sort=description").status_code == 400


def test_a_secret_may_be_put_into_a_new_collection(caller):
    collection_id = create(caller).json()["data"]["id"]
    answer = caller.post("/v1/secrets", {"name": "x", "value": "y", "collection_id": collection_id})
    assert answer.json()["data"]["collection_id"] == collection_id


def test_a_read_only_key_creates_none(caller):
    assert create(Caller(caller.account, role=ApiKey.Role.READ_ONLY)).status_code == 403
    assert not Collection.objects.exists()


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_call_that_is_not_offered_is_405(caller, method):
    answer = caller.request(method, "/v1/collections", {})
    assert answer.status_code == 405
    assert set(answer["Allow"].split(", ")) == {"GET", "POST", "HEAD"}
