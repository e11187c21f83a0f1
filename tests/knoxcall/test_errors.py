"""Every error under `/v1` has the contract's shape, whatever went wrong and wherever."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError
from django.http import UnreadablePostError
from django.test import Client, RequestFactory
from django.test.client import ClientHandler

from knoxcall.api import errors
from secrets_app.api import authentication, views
from secrets_app.models import Secret
from tests.factories import Caller

BODY = b'{"name": "x", "value": "planted-7f3a-value"}'


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


def assert_error(answer: Any, status: int, kind: str) -> dict[str, Any]:
    """Check the shape; returns the body."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/json"
    assert answer["Cache-Control"] == "no-store"
    body = json.loads(answer.content)
    assert set(body) <= {"error", "fields"}
    assert body["error"]["type"] == kind
    assert body["error"]["message"]
    assert body["error"]["request_id"] == answer["X-Request-Id"]
    assert "planted" not in answer.content.decode()
    return body


# Addresses and methods


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v1/nowhere", "/v1/secrets/a/b", "/v1/secrets//", "/v1/%00", "/v1/%ff", "/v1/<script>"]
)
def test_an_unknown_path_is_404(caller, path):
    assert_error(caller.get(path), 404, "not_found")
    assert_error(Client().get(path), 404, "not_found")


def test_no_path_under_v1_is_a_redirect(caller):
    for path in (
        "/v1",
        "/v1/secrets",
        "/v1/secrets/",
        "/v1/collections/",
        "/v1/nowhere",
        "/v1/secrets/x/oauth2/token/",
    ):
        assert not 300 <= caller.get(path).status_code < 400


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/secrets", {"GET", "HEAD", "POST"}),
        ("DELETE", "/v1/collections", {"GET", "HEAD", "POST"}),
        ("GET", "/v1/secrets/oauth2", {"POST"}),
        ("POST", "/v1/secrets/00000000-0000-4000-8000-000000000000/oauth2/token", {"GET", "HEAD"}),
        ("OPTIONS", "/v1/secrets", {"GET", "HEAD", "POST"}),
        ("TRACE", "/v1/secrets", {"GET", "HEAD", "POST"}),
        ("BREW", "/v1/secrets", {"GET", "HEAD", "POST"}),
    ],
)
def test_a_wrong_method_is_405_with_those_that_are_allowed(caller, method, path, allowed):
    answer = caller.request(method, path, BODY)
    assert_error(answer, 405, "method_not_allowed")
    assert set(answer["Allow"].split(", ")) == allowed


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT"])
def test_without_a_key_a_wrong_method_is_401(db, method):
    assert Client().generic(method, "/v1/secrets").status_code == 401


# Bodies


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"}",
        b"planted",
        b'{"name": "x", "value": "planted"',
        b"{'name': 'planted'}",
        b'{"name": "x",}',
        b'{"name": "x"} planted',
        b'{"name": NaN}',
        b'{"name": Infinity}',
        b'{"name": -Infinity}',
        b'{"name": "a\nb"}',
        b'{"name": "\\x"}',
        b'\xef\xbb\xbf{"name": "x"}',
        b"\x00",
        b"\xff\xfe",
        b'{"name": 1' + b"0" * 5000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a":' + b"[" * 200_000,
        b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_broken_json_is_400(caller, body):
    assert_error(caller.request("POST", "/v1/secrets", body), 400, "validation_error")


@pytest.mark.parametrize("body", [b"[]", b'[{"name": "planted"}]', b'"planted"', b"7", b"null", b"true"])
def test_json_that_is_no_object_is_400(caller, body):
    assert_error(caller.request("POST", "/v1/secrets", body), 400, "validation_error")


def test_a_deep_object_that_can_be_read_is_merely_not_valid(caller):
    body = b'{"name": "x", "value": "y", "description": ' + b"[" * 500 + b"]" * 500 + b"}"
    assert set(assert_error(caller.request("POST", "/v1/secrets", body), 400, "validation_error")["fields"]) == {
        "description"
    }


def test_a_hundred_thousand_unknown_fields_are_one_answer(caller):
    body = json.dumps({f"f{number}": 1 for number in range(50_000)}).encode()
    answer = caller.request("POST", "/v1/secrets", body)
    assert_error(answer, 400, "validation_error")
    assert len(answer.content) < 10_000


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 10 * 1024 * 1024])
def test_a_body_of_more_than_a_mebibyte_is_413(caller, size):
    body = b'{"name": "x", "value": "' + b"x" * size + b'"}'
    assert_error(caller.request("POST", "/v1/secrets", body), 413, "payload_too_large")
    assert not Secret.objects.exists()


def test_a_body_of_a_mebibyte_is_read(caller):
    body = BODY + b" " * (1024 * 1024 - len(BODY))
    assert caller.request("POST", "/v1/secrets", body).status_code == 201


def over_the_wire(caller: Caller, *, body: bytes = BODY, **environ: Any) -> Any:
    """Ask as a server would that took what a client sent at its word; ``None`` leaves a variable out."""
    given = {
        "PATH_INFO": "/v1/secrets",
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_X_API_KEY": caller.key,
        "wsgi.input": io.BytesIO(body),
        **environ,
    }
    base = RequestFactory()._base_environ(**given)
    return ClientHandler()({name: value for name, value in base.items() if value is not None})


def test_what_goes_over_the_wire_arrives(caller):
    assert over_the_wire(caller).status_code == 201


@pytest.mark.parametrize("length", ["abc", "-1", "1e3", "0x10", "1 2", "+44", "４４"])
def test_a_content_length_that_is_no_number_is_400(caller, length):
    assert_error(over_the_wire(caller, CONTENT_LENGTH=length), 400, "validation_error")


@pytest.mark.parametrize("length", ["1048577", "9" * 30, "9" * 5000])
def test_a_content_length_over_the_limit_is_413_before_anything_is_read(caller, length):
    class Unread(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise AssertionError

    assert_error(over_the_wire(caller, CONTENT_LENGTH=length, **{"wsgi.input": Unread()}), 413, "payload_too_large")


@pytest.mark.parametrize("length", [None, "", "0"])
def test_without_a_content_length_there_is_no_body(caller, length):
    body = assert_error(over_the_wire(caller, CONTENT_LENGTH=length), 400, "validation_error")
    assert set(body["fields"]) == {"name", "value"}


def test_a_body_is_cut_at_its_content_length(caller):
    assert_error(over_the_wire(caller, CONTENT_LENGTH="10"), 400, "validation_error")


def test_a_body_that_ends_too_early_is_400(caller):
    assert_error(over_the_wire(caller, body=BODY[:-5], CONTENT_LENGTH=str(len(BODY))), 400, "validation_error")


def test_a_body_that_breaks_off_is_400(caller, caplog):
    class Gone(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise OSError("connection reset")

    assert_error(over_the_wire(caller, **{"wsgi.input": Gone()}), 400, "validation_error")
    assert isinstance(errors.as_api_error(UnreadablePostError()), errors.ValidationFailed)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR and record.exc_info]


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/json",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
        "application/jsonp",
        "application/vnd.api+json",
        "nonsense",
        ";",
        "*/*",
    ],
)
def test_an_unsupported_content_type_is_415(caller, content_type):
    answer = caller.request("POST", "/v1/secrets", BODY, Content_Type=content_type)
    assert_error(answer, 415, "unsupported_media_type")
    assert not Secret.objects.exists()


@pytest.mark.parametrize("content_type", [None, ""])
def test_a_body_without_a_content_type_is_415(caller, content_type):
    assert_error(over_the_wire(caller, CONTENT_TYPE=content_type), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;a=b"]
)
def test_json_is_recognised(caller, content_type):
    assert caller.request("POST", "/v1/secrets", BODY, Content_Type=content_type).status_code == 201


@pytest.mark.parametrize("charset", ["zlib", "rot13", "utf-16", "idna", "nonsense", "undefined"])
def test_a_strange_charset_does_no_more_than_make_the_body_unreadable(caller, charset):
    answer = caller.request("POST", "/v1/secrets", BODY, Content_Type=f"application/json; charset={charset}")
    assert answer.status_code in (201, 400)
    assert answer["Content-Type"] == "application/json"


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "nonsense", "", "*/*;q=0"])
def test_the_answer_is_json_whatever_is_accepted(caller, accept):
    assert caller.get("/v1/secrets", Accept=accept)["Content-Type"] == "application/json"
    assert caller.get("/v1/secrets?format=api", Accept=accept).status_code == 200


# Hosts


def test_a_wrong_host_is_400(caller):
    answer = caller.client.get("/v1/secrets", headers={"host": "evil.example", "x-api-key": caller.key})
    assert_error(answer, 400, "validation_error")
    assert "evil" not in answer.content.decode()


def test_a_wrong_host_is_a_page_elsewhere(db):
    answer = Client().get("/", headers={"host": "evil.example"})
    assert answer.status_code == 400
    assert answer["Content-Type"].startswith("text/html")


# What should not happen


@pytest.fixture
def goes_wrong(monkeypatch):
    """Let the list of secrets raise."""

    def goes_wrong(error: Exception) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(views, "paged", fail)

    return goes_wrong


def test_an_unforeseen_error_is_a_bare_500_and_is_logged(caller, goes_wrong, caplog):
    goes_wrong(RuntimeError("planted detail"))
    body = assert_error(caller.get("/v1/secrets"), 500, "internal_error")
    assert set(body) == {"error"}
    assert set(body["error"]) == {"type", "message", "request_id"}
    (record,) = [record for record in caplog.records if record.name == "knoxcall.api.errors"]
    assert record.levelno == logging.ERROR
    assert "planted detail" in str(record.exc_info[1])


@pytest.mark.parametrize("error", [OperationalError("planted"), InterfaceError("planted")])
def test_a_database_that_is_away_is_503_with_seconds_to_wait(caller, goes_wrong, error):
    goes_wrong(error)
    answer = caller.get("/v1/secrets")
    assert_error(answer, 503, "dependency_unavailable")
    assert answer["Retry-After"].isdigit()
    assert int(answer["Retry-After"]) >= 1


def test_a_database_that_is_away_is_503_for_the_key_too(caller, monkeypatch):
    def fail(_: str) -> None:
        raise OperationalError("planted")

    monkeypatch.setattr(authentication, "find_api_key", fail)
    answer = caller.get("/v1/secrets")
    assert_error(answer, 503, "dependency_unavailable")
    assert answer["Retry-After"].isdigit()


def test_an_error_outside_of_a_view_has_the_shape_too(caller, monkeypatch, caplog):
    from django.contrib.sessions.middleware import SessionMiddleware

    def fail(*_: Any) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(SessionMiddleware, "process_request", fail)
    assert_error(caller.get("/v1/secrets"), 500, "internal_error")
    page = Client(raise_request_exception=False).get("/")
    assert page.status_code == 500
    assert page["Content-Type"].startswith("text/html")
    assert "planted" not in page.content.decode()


def test_an_unknown_page_is_a_page(db):
    answer = Client().get("/nowhere")
    assert answer.status_code == 404
    assert answer["Content-Type"].startswith("text/html")


# Rendering


@pytest.mark.parametrize(("given", "sent"), [(-5, "1"), (0, "1"), (1, "1"), (7, "7")])
def test_retry_after_is_whole_seconds_and_at_least_one(given, sent):
    assert errors.error_response(errors.DependencyUnavailable(retry_after=given))["Retry-After"] == sent


def test_every_error_has_a_type_of_the_contract():
    known = {
        "validation_error": {400},
        "invalid_type": {400},
        "unauthorized": {401},
        "plan_limit": {403},
        "forbidden": {403},
        "not_found": {404},
        "method_not_allowed": {405},
        "conflict": {409},
        "in_use": {409},
        "idempotency_key_reuse": {409},
        "payload_too_large": {413},
        "unsupported_media_type": {415},
        "internal_error": {500},
        "token_error": {500},
        "dependency_unavailable": {503},
    }
    pending = [errors.ApiError]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        assert kind.status in known[kind.type], kind


def test_nested_messages_are_flattened_to_one_list_per_field():
    error = errors.from_validation({"scopes": {0: ["Bad."], 2: ["Worse.", "Worst."]}, "non_field_errors": ["No."]})
    assert error.fields == {"scopes": ["0: Bad.", "2: Worse.", "2: Worst."], "body": ["No."]}
