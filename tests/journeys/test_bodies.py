"""Bodies over the wire, through the real web server: large ones, chunked ones, and ones that never end."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

LARGE = 10_000_000


def test_ten_megabytes_are_413_in_our_shape(vault):
    answer = vault.call("POST", "/v1/secrets", data=b"a" * LARGE, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "payload_too_large"


def test_ten_megabytes_in_chunks_are_413_too(vault):
    chunks = (b"a" * 100_000 for _ in range(LARGE // 100_000))
    answer = vault.call("POST", "/v1/secrets", data=chunks, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_a_small_body_in_chunks_is_a_body(vault):
    def chunks() -> Iterator[bytes]:
        yield b'{"name": "chunks-'
        yield secrets.token_hex(4).encode() + b'", "value": "v"}'

    answer = vault.call("POST", "/v1/secrets", data=chunks(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 1000\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]
)
@pytest.mark.parametrize("path", [b"/v1/secrets", b"/admin/login/"])
def test_senders_that_stall_do_not_stop_the_others(vault, framing, path):
    """More of them than the web has threads; reads are answered all the same."""
    key = vault.api_key.encode()
    kind = b"application/json" if path.startswith(b"/v1") else b"application/x-www-form-urlencoded"
    head = b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + kind + b"\r\n"
    with ExitStack() as stalled:
        for _ in range(80):
            sender = stalled.enter_context(socket.create_connection(("localhost", vault.house.port)))
            sender.sendall(head + b"Authorization: Bearer " + key + b"\r\n" + framing)
        time.sleep(0.3)
        for _ in range(20):
            reader = stalled.enter_context(
                closing(http.client.HTTPConnection("localhost", vault.house.port, timeout=10))
            )
            reader.request("GET", "/v1/secrets", headers={"x-api-key": vault.api_key})
            answer = reader.getresponse()
            assert answer.status == 200
            assert json.load(answer)["meta"]["page"] == 1
