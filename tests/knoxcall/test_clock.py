"""The database's clock, and the one form in which a time leaves the vault."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoxcall import clock
from knoxcall.clock import PeerDates, database_now, iso
from tests.support.crowd import all_at_once


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


# What other people's clocks say of ours


@pytest.fixture
def warnings(caplog):
    """What was said of this machine's clock."""
    return lambda: [record.getMessage() for record in caplog.records if record.name == clock.__name__]


@pytest.fixture
def passed(monkeypatch):
    """Let time pass for whoever asks the monotonic clock."""
    real, added = time.monotonic, [0.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: real() + added[0])

    def passed(seconds: float) -> None:
        added[0] += seconds

    return passed


def http_date(ahead: float = 0.0) -> str:
    """A `Date` of a clock that is ``ahead`` of ours."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)


@pytest.mark.parametrize("ahead", [0, 30, -30, 55, -55])
def test_a_clock_within_a_minute_is_no_news(warnings, ahead):
    dates = PeerDates()
    for number in range(5):
        dates.note(f"{number}.test", http_date(ahead))
    assert warnings() == []


@pytest.mark.parametrize("ahead", [90, -90, 86_400])
def test_a_clock_that_is_off_by_more_than_a_minute_is_told_once(warnings, ahead):
    dates = PeerDates()
    for number in range(5):
        dates.note(f"{number}.test", http_date(ahead))
    assert len(warnings()) == 1


def test_which_way_it_is_off_is_told(warnings):
    PeerDates().note("a.test", http_date(600))
    PeerDates().note("a.test", http_date(-600))
    behind, ahead = warnings()
    assert "behind" in behind
    assert "ahead" in ahead


def test_one_peer_of_several_that_is_wrong_itself_is_outvoted(warnings):
    dates = PeerDates()
    for number in range(2):
        dates.note(f"{number}.test", http_date())
    dates.note("wrong.test", http_date(86_400))
    assert warnings() == []


def test_a_peer_is_looked_at_once_a_minute(warnings, passed):
    dates = PeerDates()
    dates.note("a.test", http_date())
    dates.note("a.test", http_date(600))
    assert warnings() == []
    passed(61)
    dates.note("a.test", http_date(600))
    assert len(warnings()) == 1


def test_a_clock_that_stays_off_is_told_again_after_an_hour(warnings, passed):
    dates = PeerDates()
    for _ in range(59):
        dates.note("a.test", http_date(600))
        passed(61)
    assert len(warnings()) == 1
    passed(61)
    dates.note("a.test", http_date(600))
    assert len(warnings()) == 2


def test_a_clock_that_was_set_right_is_no_news_any_more(warnings, passed):
    dates = PeerDates()
    dates.note("a.test", http_date(600))
    passed(3700)
    dates.note("a.test", http_date())
    assert len(warnings()) == 1


@pytest.mark.parametrize(
    "date",
    [None, "", "soon", "0", "Thu, 99 Foo 2026 00:00:00 GMT", "\x00", "9" * 5_000],
)
def test_what_is_no_date_tells_nothing(warnings, date):
    dates = PeerDates()
    dates.note("a.test", date)
    assert warnings() == []
    # Nor does it count as a look.
    dates.note("a.test", http_date(600))
    assert len(warnings()) == 1


@given(st.text(max_size=60))
def test_no_text_breaks_it(date):
    PeerDates().note("a.test", date)


def test_only_so_many_peers_are_kept():
    dates = PeerDates()
    for number in range(PeerDates.PEERS * 2):
        dates.note(f"{number}.test", http_date())
    assert len(dates._noted) == PeerDates.PEERS


def test_threads_may_note_at_once(warnings):
    dates = PeerDates()

    def note() -> None:
        for number in range(200):
            dates.note(f"{number}.test", http_date(600))

    all_at_once(*[note] * 8)
    assert len(warnings()) == 1
    assert len(dates._noted) == PeerDates.PEERS
