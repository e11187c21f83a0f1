"""Whatever charset a request names, it is read as UTF-8 and answered in our shape."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler

from knoxcall.charsets import in_utf8
from tests.factories import Caller


def post(content_type: str, caller: Caller, body: bytes) -> tuple[str, Any]:
    answered: list[str] = []
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/v1/secrets",
        "QUERY_STRING": "a=%C3%A4",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": content_type,
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_X_API_KEY": caller.key,
        "wsgi.input": io.BytesIO(body),
        "wsgi.url_scheme": "http",
        "wsgi.errors": io.StringIO(),
    }
    answer = in_utf8(WSGIHandler())(environ, lambda status, headers: answered.append(status))
    return answered[0], json.loads(b"".join(answer))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "zlib", "base64", "hex", "utf-16", "nope", ""])
def test_json_is_read_as_utf8(charset):
    body = json.dumps({"name": "ä", "value": "v"}, ensure_ascii=False).encode()
    status, answer = post(f"application/json; charset={charset}", Caller(), body)
    assert status == "201 Created", answer
    assert answer["data"]["name"] == "ä"


@pytest.mark.django_db(transaction=True)
def test_another_kind_of_body_is_415_whatever_its_charset():
    status, answer = post("text/plain; charset=zlib", Caller(), b"x")
    assert status.startswith("415")
    assert answer["error"]["type"] == "unsupported_media_type"
