"""When tokens are due and how long failures pause."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oauth_app import schedule

ISSUED = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("lifetime", "latest", "earliest"),
    [
        (8, 6.4, 6.0),
        (60, 48, 45),
        (1500, 1200, 1140),
        (3600, 3300, 3240),
        (86_400, 86_100, 86_040),
    ],
)
def test_a_token_is_due_a_margin_before_its_end_with_a_little_jitter(lifetime, latest, earliest):
    expires = ISSUED + timedelta(seconds=lifetime)
    for _ in range(50):
        after = (schedule.refresh_due(ISSUED, expires) - ISSUED).total_seconds()
        assert earliest <= after <= latest


@given(st.integers(1, 315_360_000))
def test_every_lifetime_is_due_after_its_start_and_before_its_end(lifetime):
    expires = ISSUED + timedelta(seconds=lifetime)
    assert ISSUED < schedule.refresh_due(ISSUED, expires) < expires


@pytest.mark.parametrize(("failures", "ceiling"), [(1, 15), (2, 30), (3, 60), (6, 480), (7, 900), (8, 900), (500, 900)])
def test_back_off_doubles_from_15_seconds_to_15_minutes_with_full_jitter(failures, ceiling):
    pauses = [schedule.backoff(failures).total_seconds() for _ in range(300)]
    assert all(1 <= pause <= ceiling for pause in pauses)
    assert min(pauses) < ceiling * 0.2
    assert max(pauses) > ceiling * 0.8


def test_retry_after_is_a_minimum():
    assert all(schedule.backoff(1, retry_after=120) >= timedelta(seconds=120) for _ in range(50))


def test_a_refused_client_is_tried_again_about_once_a_day():
    assert all(timedelta(hours=24) <= schedule.rejected_pause() <= timedelta(hours=26.4) for _ in range(50))
