"""The progress of long commands: one line that is rewritten on a terminal, and few lines anywhere else."""

from __future__ import annotations

import pytest

from oauth_app.management.progress import Progress
from tests.support.crowd import all_at_once


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_where_there_is_no_terminal_a_line_comes_every_five_seconds_at_most(clock):
    written: list[str] = []
    progress = Progress(written.append, 100, is_terminal=False, clock=clock)
    for _ in range(100):
        clock.now += 0.2
        progress.advance()
    progress.finish()
    assert len(written) == 4
    assert all(line.endswith("\n") and line.count("\n") == 1 and "\r" not in line for line in written)


def test_what_is_done_quickly_says_nothing_where_there_is_no_terminal(clock):
    written: list[str] = []
    progress = Progress(written.append, 3, is_terminal=False, clock=clock)
    progress.advance()
    progress.finish()
    assert written == []


def test_on_a_terminal_one_line_is_rewritten_and_left_as_it_was_last(clock):
    written: list[str] = []
    progress = Progress(written.append, 50, is_terminal=True, clock=clock)
    for _ in range(50):
        clock.now += 0.0625
        progress.advance()
    progress.finish()
    assert 20 <= len(written) <= 30
    assert [text.count("\n") for text in written] == [0] * (len(written) - 1) + [1]
    assert "50/50" in written[-2]


def test_a_line_says_how_far_how_fast_and_how_long(clock):
    progress = Progress(lambda _: None, 4_000, is_terminal=True, clock=clock)
    clock.now += 10
    for _ in range(1_000):
        progress.advance()
    assert progress.line() == "1,000/4,000  25 %  100/s  30 s left"
    clock.now += 190
    assert progress.line() == "1,000/4,000  25 %  5/s  10 min 00 s left"


def test_more_than_were_expected_and_none_at_all_are_said_too(clock):
    progress = Progress(lambda _: None, 0, is_terminal=True, clock=clock)
    assert progress.line().startswith("0/0")
    progress.advance()
    assert progress.line().startswith("1/0")


def test_every_thread_counts(clock):
    progress = Progress(lambda _: None, 400, is_terminal=True, clock=clock)

    def hundred() -> None:
        for _ in range(100):
            progress.advance()

    all_at_once(*[hundred] * 4)
    assert progress.line().startswith("400/400")
