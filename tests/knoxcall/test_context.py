"""The clock of a request."""

from __future__ import annotations

import pytest

from knoxcall import context


@pytest.fixture(autouse=True)
def _after():
    yield
    context.end_request()


def test_outside_a_request_there_is_all_the_time():
    assert context.seconds_left(20.0) == 20.0


def test_inside_one_nothing_takes_longer_than_what_is_left(monkeypatch):
    monkeypatch.setattr(context, "REQUEST_SECONDS", 5.0)
    context.begin_request()
    assert 4.5 < context.seconds_left(20.0) <= 5.0
    assert context.seconds_left(2.0) == 2.0


def test_a_request_that_is_over_time_has_less_than_nothing(monkeypatch):
    monkeypatch.setattr(context, "REQUEST_SECONDS", -1.0)
    context.begin_request()
    assert context.seconds_left(20.0) < 0
