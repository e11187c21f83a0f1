"""The database's clock, and the one form in which a time leaves the vault."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoxcall.clock import database_now, iso


def test_the_databases_time_is_aware_and_now(db):
    moment = database_now()
    assert moment.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - moment) < timedelta(seconds=5)


def test_the_databases_time_moves_within_a_transaction(db):
    first = database_now()
    later = first
    for _ in range(10_000):
        later = database_now()
        if later > first:
            break
    assert later > first


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 3, 10, 15, 30, tzinfo=UTC), "2026-03-10T15:30:00.000Z"),
        (datetime(2026, 3, 10, 15, 30, 0, 999_999, tzinfo=UTC), "2026-03-10T15:30:00.999Z"),
        (datetime(2026, 3, 10, 15, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))), "2026-03-10T10:00:00.000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z"),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_is_shown_in_utc_with_milliseconds(moment, text):
    assert iso(moment) == text


def test_no_time_is_null():
    assert iso(None) is None


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_time_has_the_same_form(moment):
    text = iso(moment)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert timedelta(0) <= moment - datetime.fromisoformat(text) < timedelta(milliseconds=1)
