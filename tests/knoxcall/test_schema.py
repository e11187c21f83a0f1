"""The OpenAPI schema: committed, generated without a warning, and complete."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from django.core.management import call_command

COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "openapi.yaml"
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("schema") / "openapi.yaml"
    call_command("spectacular", "--file", str(file), "--validate", "--fail-on-warn")
    return file.read_text()


@pytest.fixture(scope="module")
def schema(generated) -> dict:
    return yaml.safe_load(generated)


@pytest.fixture(scope="module")
def calls(schema) -> dict:
    return {
        f"{method.upper()} {path}": call
        for path, methods in schema["paths"].items()
        for method, call in methods.items()
        if method in METHODS
    }


def test_the_committed_schema_is_the_generated_one(generated):
    said = "`manage.py spectacular --file docs/openapi.yaml --validate --fail-on-warn` makes it anew"
    assert COMMITTED.read_text() == generated, said


def test_every_call_is_in_the_schema(calls):
    assert set(calls) == {
        "GET /v1/secrets",
        "POST /v1/secrets",
        "GET /v1/secrets/{secret_id}",
        "DELETE /v1/secrets/{secret_id}",
        "POST /v1/secrets/certificate",
        "PUT /v1/secrets/{secret_id}/certificate",
        "POST /v1/secrets/oauth2",
        "GET /v1/secrets/{secret_id}/oauth2",
        "PATCH /v1/secrets/{secret_id}/oauth2",
        "GET /v1/secrets/{secret_id}/oauth2/token",
        "POST /v1/secrets/{secret_id}/oauth2/authorize",
        "POST /v1/secrets/{secret_id}/oauth2/refresh",
        "POST /v1/secrets/{secret_id}/oauth2/disconnect",
        "GET /v1/providers",
        "GET /v1/collections",
        "POST /v1/collections",
        "GET /v1/environments",
        "POST /v1/environments",
    }


def test_every_method_of_every_view_is_documented():
    from tests.secrets_app.test_idempotency import api_views

    for view in api_views():
        for method in METHODS:
            handler = getattr(view, method, None)
            assert handler is None or "schema" in getattr(handler, "kwargs", {}), f"{view.__name__}.{method}"


def test_every_call_has_a_name_of_its_own_and_words(calls):
    assert len({call["operationId"] for call in calls.values()}) == len(calls)
    assert all(call["summary"] and call["description"] for call in calls.values())


def test_every_call_needs_a_key_and_says_what_without_one(calls):
    for name, call in calls.items():
        assert call["security"], name
        assert "401" in call["responses"], name


def test_every_answer_has_the_envelope(schema, calls):
    for name, call in calls.items():
        for status, response in call["responses"].items():
            reference = response["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
            properties = schema["components"]["schemas"][reference]["properties"]
            assert set(properties) == ({"data", "meta"} if status.startswith("2") else {"error", "fields"}), name


def test_creates_answer_201_and_everything_else_200(calls):
    for name, call in calls.items():
        creates = name.startswith("POST") and not name.endswith(("/authorize", "/refresh", "/disconnect"))
        assert ("201" in call["responses"]) == creates, name
        assert ("200" in call["responses"]) != creates, name


def test_no_answer_has_a_field_for_a_value(schema):
    shown = {
        name: set(component.get("properties", ()))
        for name, component in schema["components"]["schemas"].items()
        if not name.endswith("Request")
    }
    never = {"value", "client_secret", "refresh_token", "private_key", "passphrase", "username", "password"}
    assert {name: fields & never for name, fields in shown.items() if fields & never} == {}


def test_no_address_names_a_machine(schema):
    assert "servers" not in schema
