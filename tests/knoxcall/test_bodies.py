"""Reading bodies: stalled senders stand in nobody's way but their own."""

from __future__ import annotations

import io
import threading
import time

import pytest
from django.test import RequestFactory

from knoxcall import bodies
from knoxcall.api.errors import PayloadTooLarge
from knoxcall.bodies import TooManyBodies, read_body, reading


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(bodies, "LONGEST_WAIT", 0.05)


def test_a_sender_has_only_so_many_places():
    with reading("a"), reading("a"), reading("a"), reading("a"):
        with pytest.raises(TooManyBodies), reading("a"):
            pass
        with reading("b"):
            pass
    with reading("a"):
        pass


def test_all_senders_together_have_only_so_many_places(monkeypatch):
    monkeypatch.setattr(bodies, "PLACES", 3)
    with reading("a"), reading("b"), reading("c"), pytest.raises(TooManyBodies), reading("d"):
        pass


def test_a_sender_over_its_places_waits_its_turn(monkeypatch):
    monkeypatch.setattr(bodies, "LONGEST_WAIT", 10)
    read: list[int] = []

    def send(number: int) -> None:
        with reading("a"):
            time.sleep(0.01)
            read.append(number)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read) == list(range(12))


def test_only_so_many_wait(monkeypatch):
    monkeypatch.setattr(bodies, "WAITING", 0)
    monkeypatch.setattr(bodies, "PLACES_PER_SENDER", 1)
    with reading("a"), pytest.raises(TooManyBodies), reading("a"):
        pass


def test_a_place_is_given_back_when_reading_fails():
    for _ in range(20):
        with pytest.raises(RuntimeError), reading("a"):
            raise RuntimeError
    assert not bodies._sending


def chunked(data: bytes):
    request = RequestFactory().post("/v1/secrets", headers={"Transfer-Encoding": "chunked"})
    request.META["CONTENT_LENGTH"] = ""
    request.META["wsgi.input"] = io.BytesIO(data)
    return request


def test_a_chunked_body_is_read_and_given_its_length():
    request = chunked(b'{"a": 1}')
    assert read_body(request, sender="a") == b'{"a": 1}'
    assert request.body == b'{"a": 1}'
    assert request.META["CONTENT_LENGTH"] == "8"


def test_a_chunked_body_over_the_limit_is_too_large():
    with pytest.raises(PayloadTooLarge):
        read_body(chunked(b"x" * (1024 * 1024 + 1)), sender="a")


def test_a_body_with_a_length_is_read_as_ever():
    request = RequestFactory().post("/v1/secrets", b"{}", content_type="application/json")
    assert read_body(request, sender="a") == b"{}"
