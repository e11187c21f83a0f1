"""The calls for secrets: envelope, rows, paging, filters, names, times, and everything that is refused."""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrets_app.models import Collection, Environment, Secret, SecretValue
from secrets_app.vault import normalise_name
from tests.factories import Caller, a_client, a_string, an_account, an_oauth2_secret

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ROW = {
    "id",
    "name",
    "shortcode_name",
    "base_environment",
    "secret_type",
    "collection_id",
    "created_at",
    "updated_at",
    "environment_count",
    "expires_at",
    "strict_expiry_enforcement",
    "description",
}
OAUTH2_ROW = ROW | {"provider", "grant_type", "connection_status", "mtls_certificate_id"}
PLANTED = "planted-7f3a-value"


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.fixture
def collection(caller) -> Collection:
    return Collection.objects.create(account=caller.account, mode="live", name="a collection")


def create(caller: Caller, **body):
    """Create a string secret with everything but what the test is about left at its plainest."""
    return caller.post("/v1/secrets", {"name": "a-secret", "value": PLANTED, **body})


def names(answer) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [row["name"] for row in answer.json()["data"]]


def assert_refused(answer, *fields: str) -> None:
    """A 400 that names ``fields`` and shows no value."""
    assert answer.status_code == 400, answer.content
    body = answer.json()
    assert body["error"]["type"] == "validation_error"
    assert set(body["fields"]) == set(fields)
    assert all(isinstance(text, str) for messages in body["fields"].values() for text in messages)
    assert PLANTED not in answer.content.decode()


# Creating


def test_a_created_secret_is_answered_with_its_row(caller):
    answer = create(caller)
    assert answer.status_code == 201
    body = answer.json()
    assert set(body) == {"data", "meta"}
    assert body["meta"] == {"request_id": answer["X-Request-Id"]}
    data = body["data"]
    assert set(data) == ROW
    assert uuid.UUID(data["id"]).version == 4
    assert data["name"] == data["shortcode_name"] == "a-secret"
    assert data["secret_type"] == "string"
    assert data["base_environment"] == "production"
    assert data["environment_count"] == 1
    assert data["collection_id"] is None
    assert data["expires_at"] is None
    assert data["strict_expiry_enforcement"] is False
    assert data["description"] == ""
    assert MOMENT.fullmatch(data["created_at"])
    assert MOMENT.fullmatch(data["updated_at"])


def test_everything_that_is_given_is_kept(caller, collection):
    Environment.objects.create(account=caller.account, mode="live", name="staging", display_name="Staging")
    given_fields = {
        "description": "What it is for.",
        "environment": "staging",
        "collection_id": str(collection.pk),
        "expires_at": "2030-01-02T03:04:05.678Z",
        "strict_expiry_enforcement": True,
    }
    data = create(caller, **given_fields).json()["data"]
    assert data["base_environment"] == "staging"
    for name in ("description", "collection_id", "expires_at", "strict_expiry_enforcement"):
        assert data[name] == given_fields[name]
    assert caller.get(f"/v1/secrets/{data['id']}").json()["data"].items() >= data.items()


def test_the_value_is_stored_sealed_as_its_first_version(caller):
    secret_id = create(caller).json()["data"]["id"]
    stored = SecretValue.objects.get(secret_id=secret_id)
    assert stored.value.open().reveal() == PLANTED
    assert stored.value_version == 1
    assert stored.environment.name == "production"


def test_no_answer_ever_contains_the_value(caller):
    answer = create(caller)
    secret_id = answer.json()["data"]["id"]
    answers = [
        answer,
        create(caller),
        create(caller, name="other", expires_at=PLANTED),
        create(caller, name="other", environment="nowhere"),
        create(caller, name="other", unknown="x"),
        create(caller, name=""),
        caller.get("/v1/secrets"),
        caller.get(f"/v1/secrets/{secret_id}"),
        caller.request("POST", "/v1/secrets", json.dumps({"name": "x", "value": PLANTED}).encode()[:-1]),
        caller.request("POST", "/v1/secrets", json.dumps([PLANTED]).encode()),
        caller.delete(f"/v1/secrets/{secret_id}"),
    ]
    assert [a.status_code for a in answers] == [201, 409, 400, 400, 400, 400, 200, 200, 400, 400, 200]
    assert all(PLANTED not in a.content.decode() for a in answers[:2] + answers[3:])
    assert all(PLANTED not in str(dict(a.items())) for a in answers)


@pytest.mark.parametrize("path", ["/v1/secrets", "/v1/secrets/"])
def test_both_spellings_of_the_address_answer(caller, path):
    assert caller.get(path).status_code == 200
    assert caller.post(path, {"name": "x", "value": "y"}).status_code == 201


@pytest.mark.parametrize("spelling", ["string", "api_key", "basic_auth", "custom"])
def test_every_spelling_of_string_makes_a_string(caller, spelling):
    answer = create(caller, secret_type=spelling)
    assert answer.status_code == 201
    assert answer.json()["data"]["secret_type"] == "string"


@pytest.mark.parametrize("unknown", ["String", "password", "", "pem", None, 7, True, [], {}, ["string"], {"string": 1}])
def test_any_other_type_is_refused(caller, unknown):
    assert_refused(create(caller, secret_type=unknown), "secret_type")


def test_an_oauth2_secret_may_be_created_here_too(caller, provider):
    body = {
        "name": "an-oauth2",
        "secret_type": "oauth2",
        "provider": "custom",
        "client_id": provider.client_id,
        "client_secret": PLANTED,
        "auth_url": provider.authorize_url,
        "token_url": provider.token_url,
    }
    answer = caller.post("/v1/secrets", body)
    assert answer.status_code == 201, answer.content
    assert answer.json()["data"]["secret_type"] == "oauth2"
    assert set(answer.json()["data"]) >= OAUTH2_ROW
    assert PLANTED not in answer.content.decode()


@pytest.mark.parametrize("missing", ["name", "value"])
def test_what_is_required_is_named(caller, missing):
    body = {"name": "a-secret", "value": PLANTED}
    del body[missing]
    assert_refused(caller.post("/v1/secrets", body), missing)


def test_an_empty_body_names_all_that_is_required(caller):
    assert_refused(caller.post("/v1/secrets", {}), "name", "value")
    assert_refused(caller.request("POST", "/v1/secrets"), "name", "value")


def test_an_unknown_field_is_refused(caller):
    assert_refused(create(caller, expire_at="2030-01-01T00:00:00Z"), "expire_at")
    assert not Secret.objects.exists()


def test_an_unknown_field_is_named_beside_what_else_is_wrong(caller):
    assert_refused(create(caller, nmae="x", expires_at="soon"), "nmae", "expires_at")


WRONG = {
    "null": None,
    "true": True,
    "integer": 7,
    "float": 7.5,
    "list": [PLANTED],
    "object": {"a": PLANTED},
    "string": "x" * 70_000,
}
# What each field takes of these.
RIGHT = {
    "strict_expiry_enforcement": {"true"},
    "collection_id": {"null"},
    "expires_at": {"null"},
}
FIELDS = ["name", "value", "description", "environment", "collection_id", "expires_at", "strict_expiry_enforcement"]


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("field", FIELDS)
def test_a_field_takes_its_own_json_type_only(caller, field, kind):
    answer = create(caller, **{field: WRONG[kind]})
    if kind in RIGHT.get(field, ()):
        assert answer.status_code == 201
    else:
        assert_refused(answer, field)


# Names


@pytest.mark.parametrize(
    ("given_name", "stored"),
    [
        ("my secret", "my_secret"),
        ("  my  secret ", "__my__secret_"),
        (" ", "_"),
        ("My-Secret_KEY", "My-Secret_KEY"),
        ("a.b/c:d@e", "a.b/c:d@e"),
        ("schlüssel-鍵-🔑", "schlüssel-鍵-🔑"),
        ("0", "0"),
        ("<script>", "<script>"),
        ("x" * 255, "x" * 255),
        ("🔑" * 255, "🔑" * 255),
    ],
)
def test_spaces_become_underscores_and_nothing_else_changes(caller, given_name, stored):
    data = create(caller, name=given_name).json()["data"]
    assert data["name"] == data["shortcode_name"] == stored
    assert Secret.objects.get().name == stored


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 256,
        " " * 256,
        "a\tb",
        "a\nb",
        "a\r\n",
        "a\x00b",
        "a\x1bb",
        "a\x7fb",
        "a\x85b",
        "a\xa0b",
        "a\u200bb",
        "a\u200eb",
        "a\u202eb",
        "a\u2028b",
        "a\u2060b",
        "\ufeffa",
    ],
    ids=ascii,
)
def test_a_name_that_cannot_be_told_from_another_is_refused(caller, name):
    assert_refused(create(caller, name=name), "name")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_a_normalised_name_stays_as_it_is(name):
    try:
        once = normalise_name(name)
    except ValueError:
        return
    assert normalise_name(once) == once
    assert 1 <= len(once) == len(name) <= 255
    assert not re.search(r"\s", once)


def test_a_name_is_taken_once(caller):
    first = create(caller, name="my secret")
    answer = create(caller, name="my_secret")
    assert answer.status_code == 409
    assert answer.json()["error"]["type"] == "conflict"
    assert "my_secret" in answer.json()["error"]["message"]
    assert list(Secret.objects.values_list("pk", flat=True)) == [uuid.UUID(first.json()["data"]["id"])]


def test_names_differ_by_case(caller):
    assert create(caller, name="name").status_code == 201
    assert create(caller, name="Name").status_code == 201


def test_a_name_is_free_for_another_account_and_after_a_delete(caller):
    first = create(caller).json()["data"]["id"]
    assert create(Caller()).status_code == 201
    caller.delete(f"/v1/secrets/{first}")
    assert create(caller).status_code == 201


# Values


@pytest.mark.parametrize(
    "value",
    ["x", " ", "\n", "a\x00b", "\x00", "x" * 65_536, "ä" * 32_768, "🔑" * 16_384, '"\\', "\u200b", "\ufeff", " x "],
    ids=lambda value: ascii(value[:3]),
)
def test_a_value_is_kept_as_it_is(caller, value):
    answer = create(caller, value=value)
    assert answer.status_code == 201
    assert SecretValue.objects.get().value.open().reveal() == value


@pytest.mark.parametrize("value", ["x" * 65_537, "ä" * 32_769, "🔑" * 16_385], ids=["one", "two", "four"])
def test_a_value_is_at_most_64_kib_of_utf_8(caller, value):
    answer = create(caller, value=value)
    assert_refused(answer, "value")
    assert value[:10] not in answer.content.decode()


@pytest.mark.parametrize(
    "body",
    [
        rb'{"name": "x", "value": "\ud800"}',
        rb'{"name": "\udfff", "value": "x"}',
        rb'{"name": "x", "value": "y", "\ud800": 1}',
        rb'{"name": "x", "value": "y", "description": ["\udc00"]}',
        b'{"name": "x", "value": "\xff"}',
        b'{"name": "x", "value": "\xed\xa0\x80"}',
        '{"name": "x", "value": "y"}'.encode("utf-16"),
    ],
)
def test_what_is_no_unicode_text_is_refused(caller, body):
    answer = caller.request("POST", "/v1/secrets", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "validation_error"
    assert not Secret.objects.exists()


def test_a_surrogate_pair_is_one_character(caller):
    answer = caller.request("POST", "/v1/secrets", rb'{"name": "x", "value": "\ud83d\udd11"}')
    assert answer.status_code == 201
    assert SecretValue.objects.get().value.open().reveal() == "🔑"


# Places


def test_an_unknown_environment_is_refused(caller):
    assert_refused(create(caller, environment="nowhere"), "environment")


def test_an_environment_of_another_account_or_mode_is_unknown(caller):
    for account, mode in ((an_account(), "live"), (caller.account, "test")):
        Environment.objects.create(account=account, mode=mode, name="staging", display_name="Staging")
    assert_refused(create(caller, environment="staging"), "environment")


@pytest.mark.parametrize("environment", ["", "a\x00b", "x" * 65, "Production"])
def test_an_environment_is_named_exactly(caller, environment):
    assert_refused(create(caller, environment=environment), "environment")


def test_a_collection_that_is_not_there_is_refused(caller):
    assert_refused(create(caller, collection_id=str(uuid.uuid4())), "collection_id")


@pytest.mark.parametrize("text", ["", "nonsense", "a collection", "0" * 31, "'; --"])
def test_a_collection_id_is_a_uuid(caller, text):
    assert_refused(create(caller, collection_id=text), "collection_id")


def test_a_collection_of_another_account_or_mode_is_not_there(caller):
    for account, mode in ((an_account(), "live"), (caller.account, "test")):
        other = Collection.objects.create(account=account, mode=mode, name="theirs")
        answer = create(caller, collection_id=str(other.pk))
        assert_refused(answer, "collection_id")
        unknown = create(caller, collection_id=str(uuid.uuid4()))
        assert answer.json()["fields"] == unknown.json()["fields"]


# Times


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2030-01-02T03:04:05Z", "2030-01-02T03:04:05.000Z"),
        ("2030-01-02T03:04:05.678Z", "2030-01-02T03:04:05.678Z"),
        ("2030-01-02T03:04:05.678901Z", "2030-01-02T03:04:05.678Z"),
        ("2030-01-02T03:04:05+05:30", "2030-01-01T21:34:05.000Z"),
        ("2030-01-02T03:04:05.5-08:00", "2030-01-02T11:04:05.500Z"),
        ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00.000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_is_kept_and_shown_in_utc_with_milliseconds(caller, text, shown):
    data = create(caller, expires_at=text).json()["data"]
    assert data["expires_at"] == shown
    assert caller.get(f"/v1/secrets/{data['id']}").json()["data"]["expires_at"] == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2030-01-02",
        "2030-01-02T03:04:05",
        "2030-13-01T00:00:00Z",
        "2030-02-30T00:00:00Z",
        "2030-01-01T25:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "10000-01-01T00:00:00Z",
        "1893456000",
        "2030-01-02T03:04:05Z\x00",
        "2030-01-02x03:04:05Z",
        "２０３０-01-02T03:04:05Z",
        "2030-01-02T03:04:05 Europe/Berlin",
        "2030-01-02T03:04:05+99:00",
    ],
)
def test_a_time_without_its_offset_or_out_of_range_is_refused(caller, text):
    assert_refused(create(caller, expires_at=text), "expires_at")


@pytest.mark.parametrize("number", [0, 1893456000, -1, 1e12, 10**30])
def test_a_number_is_no_time(caller, number):
    assert_refused(create(caller, expires_at=number), "expires_at")


@pytest.mark.parametrize("text", ["true", "false", "yes", "", "1", 0, 1])
def test_a_boolean_is_a_json_boolean(caller, text):
    assert_refused(create(caller, strict_expiry_enforcement=text), "strict_expiry_enforcement")


@pytest.mark.parametrize("text", ["", "x" * 4000, "Zeile 1\nZeile 2\t🔑"])
def test_a_description_is_any_text(caller, text):
    assert create(caller, description=text).json()["data"]["description"] == text


@pytest.mark.parametrize("text", ["x" * 4001, "a\x00b"])
def test_a_description_is_bounded_and_without_nul(caller, text):
    assert_refused(create(caller, description=text), "description")


# Plans


def test_the_plans_limit_is_named(db):
    caller = Caller(an_account(plan="free"))
    for number in range(10):
        a_string(caller, f"s{number}")
    answer = create(caller)
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert error["type"] == "plan_limit"
    assert error["limit"] == {"resource": "secrets", "used": 10, "limit": 10, "plan": "free"}
    assert "Free" in error["message"]
    assert "10" in error["message"]


def test_each_mode_has_places_of_its_own(db):
    caller = Caller(an_account(plan="free"))
    for number in range(10):
        a_string(caller, f"s{number}")
    assert create(Caller(caller.account, mode="test")).status_code == 201


def test_a_deleted_secret_frees_its_place(db):
    caller = Caller(an_account(plan="free"))
    made = [a_string(caller, f"s{number}") for number in range(10)]
    caller.delete(f"/v1/secrets/{made[0].pk}")
    assert create(caller).status_code == 201


def test_oauth2_needs_its_plan(db, provider):
    caller = Caller(an_account(plan="starter"))
    body = {
        "name": "x",
        "provider": "custom",
        "client_id": "c",
        "client_secret": PLANTED,
        "auth_url": provider.authorize_url,
        "token_url": provider.token_url,
    }
    answer = caller.post("/v1/secrets/oauth2", body)
    assert answer.status_code == 403
    assert answer.json()["error"]["limit"]["resource"] == "oauth2_secrets"
    assert "Pro" in answer.json()["error"]["message"]
    assert PLANTED not in answer.content.decode()


# Listing


def test_an_empty_list_is_a_page_too(caller):
    answer = caller.get("/v1/secrets")
    assert answer.status_code == 200
    body = answer.json()
    assert body["data"] == []
    assert body["meta"] == {
        "total": 0,
        "page": 1,
        "per_page": 20,
        "total_pages": 0,
        "request_id": answer["X-Request-Id"],
    }


def test_rows_have_exactly_their_fields(caller, provider):
    a_string(caller, "a")
    an_oauth2_secret(caller, a_client(provider), "b")
    first, second = caller.get("/v1/secrets").json()["data"]
    assert set(first) == ROW
    assert set(second) == OAUTH2_ROW
    assert second["provider"] == "custom"
    assert second["grant_type"] == "authorization_code"
    assert second["connection_status"] == "not_connected"
    assert second["environment_count"] == 1


def test_no_credential_of_an_oauth2_secret_is_in_any_answer(caller, provider):
    connection = an_oauth2_secret(caller, a_client(provider, client_secret=PLANTED, username=PLANTED, password=PLANTED))
    for path in ("/v1/secrets", f"/v1/secrets/{connection.secret_id}"):
        assert PLANTED not in caller.get(path).content.decode()


@pytest.fixture
def seven(caller) -> Caller:
    for name in "gfedcba":
        a_string(caller, name)
    return caller


@pytest.mark.parametrize(
    ("query", "expected", "meta"),
    [
        ("", "abcdefg", (7, 1, 20, 1)),
        ("page=1&per_page=3", "abc", (7, 1, 3, 3)),
        ("page=2&per_page=3", "def", (7, 2, 3, 3)),
        ("page=3&per_page=3", "g", (7, 3, 3, 3)),
        ("page=4&per_page=3", "", (7, 4, 3, 3)),
        ("page=999999999&per_page=100", "", (7, 999999999, 100, 1)),
        ("per_page=7", "abcdefg", (7, 1, 7, 1)),
        ("per_page=101", "abcdefg", (7, 1, 100, 1)),
        ("per_page=999999999", "abcdefg", (7, 1, 100, 1)),
        ("page=01", "abcdefg", (7, 1, 20, 1)),
        ("per_page=1&order=desc&page=2", "f", (7, 2, 1, 7)),
    ],
)
def test_a_list_comes_in_pages(seven, query, expected, meta):
    answer = seven.get(f"/v1/secrets?{query}")
    assert names(answer) == list(expected)
    shown = answer.json()["meta"]
    assert (shown["total"], shown["page"], shown["per_page"], shown["total_pages"]) == meta


@pytest.mark.parametrize("name", ["page", "per_page"])
def test_a_page_that_is_no_number_is_refused(caller, name):
    for number in ("0", "-1", "", "x", "1.0", "1e3", "+1", " 1", "1 ", "0x1", "²", "１", "9" * 10, "9" * 5000, "null"):
        assert_refused(caller.client.get("/v1/secrets", {name: number}, headers={"x-api-key": caller.key}), name)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sort=name", "abcdefg"),
        ("sort=name&order=asc", "abcdefg"),
        ("sort=name&order=desc", "gfedcba"),
        ("order=desc", "gfedcba"),
        ("sort=created_at", "gfedcba"),
        ("sort=created_at&order=desc", "abcdefg"),
    ],
)
def test_a_list_is_sorted_as_asked(seven, query, expected):
    for number, secret in enumerate(Secret.objects.order_by("-name")):
        Secret.objects.filter(pk=secret.pk).update(created_at=datetime(2030, 1, 1 + number, tzinfo=UTC))
    assert names(seven.get(f"/v1/secrets?{query}")) == list(expected)


def test_a_list_is_sorted_by_base_environment(caller):
    for name in ("alpha", "zulu"):
        Environment.objects.create(account=caller.account, mode="live", name=name, display_name=name)
    a_string(caller, "1", environment="zulu")
    a_string(caller, "2", environment="alpha")
    a_string(caller, "3")
    assert names(caller.get("/v1/secrets?sort=base_environment")) == ["2", "3", "1"]
    assert names(caller.get("/v1/secrets?sort=base_environment&order=desc")) == ["1", "3", "2"]


def test_rows_that_tie_are_on_one_page_each(seven):
    Secret.objects.update(created_at=datetime(2030, 1, 1, tzinfo=UTC))
    for order in ("asc", "desc"):
        pages = [
            names(seven.get(f"/v1/secrets?sort=created_at&order={order}&per_page=2&page={n}")) for n in range(1, 5)
        ]
        assert sorted(name for page in pages for name in page) == list("abcdefg")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sort", "id"),
        ("sort", "account"),
        ("sort", "-name"),
        ("sort", "account__slug"),
        ("sort", ""),
        ("sort", "NAME"),
        ("order", "up"),
        ("order", ""),
        ("order", "DESC"),
        ("secret_type", "api_key"),
        ("secret_type", ""),
        ("collection_id", "x"),
        ("collection_id", ""),
        ("provider", "yahoo"),
        ("connection_status", "fine"),
        ("name", ""),
        ("name", "a\tb"),
    ],
)
def test_an_unknown_sort_order_or_filter_value_is_refused(caller, name, value):
    assert_refused(caller.client.get("/v1/secrets", {name: value}, headers={"x-api-key": caller.key}), name)


@pytest.mark.parametrize("query", ["name=a%00b", "sort=%00", "collection_id=%00", "provider=%00", "x%00=1"])
def test_a_query_with_nul_is_refused(caller, query):
    answer = caller.get(f"/v1/secrets?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "validation_error"


@pytest.fixture
def mixed(caller, collection, provider) -> Caller:
    a_string(caller, "one two")
    Secret.objects.filter(name="one two").update(name="one_two")
    a_string(caller, "kept", collection_id=collection.pk)
    an_oauth2_secret(caller, a_client(provider), "pending")
    an_oauth2_secret(caller, a_client(provider, grant_type="client_credentials"), "connected")
    return caller


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("secret_type=string", ["kept", "one_two"]),
        ("secret_type=oauth2", ["connected", "pending"]),
        ("secret_type=certificate", []),
        ("name=one_two", ["one_two"]),
        ("name=one%20two", ["one_two"]),
        ("name=one", []),
        ("name=KEPT", []),
        ("provider=custom", ["connected", "pending"]),
        ("provider=google", []),
        ("connection_status=connected", ["connected"]),
        ("connection_status=not_connected", ["pending"]),
        ("connection_status=connected&name=pending", []),
        ("collection_id=00000000-0000-4000-8000-000000000000", []),
        ("unknown=x", ["connected", "kept", "one_two", "pending"]),
    ],
)
def test_a_list_is_narrowed_as_asked(mixed, query, expected):
    answer = mixed.get(f"/v1/secrets?{query}")
    assert names(answer) == expected
    assert answer.json()["meta"]["total"] == len(expected)


def test_a_list_is_narrowed_to_a_collection(mixed, collection):
    assert names(mixed.get(f"/v1/secrets?collection_id={collection.pk}")) == ["kept"]


# One


def test_a_secret_is_read_with_its_environments(caller):
    secret = a_string(caller)
    staging = Environment.objects.create(account=caller.account, mode="live", name="alpha", display_name="Alpha")
    SecretValue.objects.create(
        account=caller.account,
        secret=secret,
        environment=staging,
        value=SecretValue.objects.get().value,
        value_version=3,
        expires_at_override=datetime(2030, 1, 1, tzinfo=UTC),
    )
    answer = caller.get(f"/v1/secrets/{secret.pk}")
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert set(data) == ROW | {"environments"}
    assert data["environment_count"] == 2
    first, second = data["environments"]
    assert set(first) == {"environment_name", "value_version", "updated_at", "expires_at_override"}
    assert (first["environment_name"], first["value_version"]) == ("alpha", 3)
    assert first["expires_at_override"] == "2030-01-01T00:00:00.000Z"
    assert (second["environment_name"], second["value_version"]) == ("production", 1)
    assert second["expires_at_override"] is None
    assert MOMENT.fullmatch(second["updated_at"])


def test_an_oauth2_secret_is_read_with_its_environments(caller, provider):
    connection = an_oauth2_secret(caller, a_client(provider))
    data = caller.get(f"/v1/secrets/{connection.secret_id}").json()["data"]
    assert set(data) == OAUTH2_ROW | {"environments"}
    assert [entry["environment_name"] for entry in data["environments"]] == ["production"]
    assert data["environments"][0]["value_version"] == 1


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_unknown_malformed_and_foreign_ids_are_one_answer(caller, method):
    secret = a_string(caller)
    ids = [
        str(uuid.uuid4()),
        str(a_string(Caller()).pk),
        str(a_string(Caller(caller.account, mode="test")).pk),
        "nonsense",
        "oauth3",
        "'; --",
        "%00",
        "%0A",
        "%F0%9F%94%91",
        secret.pk.hex,
        f"{{{secret.pk}}}",
        f"urn:uuid:{secret.pk}",
        f"{secret.pk}%20",
        f"{secret.pk}%0A",
        "x" * 5000,
    ]
    answers = [caller.request(method, f"/v1/secrets/{text}", X_Request_Id="same") for text in ids]
    assert [answer.status_code for answer in answers] == [404] * len(ids)
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json()["error"]["type"] == "not_found"
    assert Secret.objects.count() == 3


def test_an_id_may_be_written_in_capitals(caller):
    assert caller.get(f"/v1/secrets/{str(a_string(caller).pk).upper()}/").status_code == 200


def test_a_deleted_secret_is_gone_with_its_value(caller):
    secret = a_string(caller)
    answer = caller.delete(f"/v1/secrets/{secret.pk}")
    assert answer.status_code == 200
    assert answer.json() == {"data": {"deleted": True}, "meta": {"request_id": answer["X-Request-Id"]}}
    assert not Secret.objects.exists()
    assert not SecretValue.objects.exists()
    assert caller.get(f"/v1/secrets/{secret.pk}").status_code == 404
    assert caller.delete(f"/v1/secrets/{secret.pk}").status_code == 404


def test_a_deleted_oauth2_secret_is_gone_with_its_connection(caller, provider):
    connection = an_oauth2_secret(caller, a_client(provider, grant_type="client_credentials"))
    assert caller.delete(f"/v1/secrets/{connection.secret_id}").status_code == 200
    assert not type(connection).objects.exists()
    assert caller.get(f"/v1/secrets/{connection.secret_id}/oauth2/token").status_code == 404


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_a_call_that_is_not_offered_changes_nothing(caller, method):
    secret = a_string(caller)
    answer = caller.request(method, f"/v1/secrets/{secret.pk}", {"name": "other"})
    assert answer.status_code == 405
    assert answer.json()["error"]["type"] == "method_not_allowed"
    assert set(answer["Allow"].split(", ")) == {"GET", "DELETE", "HEAD"}


def test_head_answers_like_get_without_a_body(caller):
    answer = caller.request("HEAD", "/v1/secrets")
    assert answer.status_code == 200
    assert answer.content == b""
