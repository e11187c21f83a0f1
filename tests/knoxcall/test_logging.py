"""One line per event, which nobody else can write."""

from __future__ import annotations

import logging
import re
import sys

import pytest

from knoxcall.context import request_id
from knoxcall.logging import LineFormatter


def formatted(message: str, *arguments: object, exc_info: object = None) -> str:
    record = logging.LogRecord("a.logger", logging.INFO, __file__, 1, message, arguments, exc_info)
    return LineFormatter().format(record)


def test_a_line_has_time_level_logger_request_id_and_message():
    token = request_id.set("an-id")
    try:
        line = formatted("%s happened", "it")
    finally:
        request_id.reset(token)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO a\.logger \[an-id\] it happened", line)


def test_outside_of_a_request_the_id_is_a_dash():
    assert "[-]" in formatted("x")


@pytest.mark.parametrize(
    "breaking", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"], ids=ascii
)
def test_a_message_cannot_forge_a_second_line(breaking):
    forged = f"/x{breaking}2026-03-10T15:30:00.000Z INFO a.logger [-] forged"
    for line in (formatted(forged), formatted("%s", forged)):
        assert len(line.splitlines()) == 1


@pytest.mark.parametrize("steering", ["\x1b[2J", "\x08", "\x00", "\x9b", "\u202e", "\u200b", "\ud800"], ids=ascii)
def test_a_message_cannot_steer_the_terminal(steering):
    assert steering not in formatted("%s", f"a{steering}b")
    assert formatted("%s", f"a{steering}b").isprintable()


def test_what_prints_stays_as_it_is():
    assert formatted("schlüssel 鍵 🔑 100 %").endswith("schlüssel 鍵 🔑 100 %")


def test_a_traceback_follows_and_its_text_cannot_pass_for_a_line():
    try:
        raise ValueError("first\n2026-03-10T15:30:00.000Z INFO a.logger [-] forged\x1b[2J")
    except ValueError:
        lines = formatted("it failed", exc_info=sys.exc_info()).split("\n")
    assert lines[0].endswith("it failed")
    assert any("ValueError: first" in line for line in lines)
    assert all(line.startswith("  ") and line.isprintable() for line in lines[1:])


def test_a_forged_path_is_one_line(client, caplog):
    caplog.set_level(logging.INFO)
    client.get("/v1/a%0A2026-03-10T15:30:00.000Z%20INFO%20forged%1b[2J")
    lines = [LineFormatter().format(record) for record in caplog.records]
    assert any("forged" in line for line in lines)
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    "name", ["urllib3", "requests_oauthlib", "oauthlib", "kombu", "psycopg", "redis", "django.db.backends"]
)
def test_loggers_that_write_tokens_at_debug_are_quiet(name):
    assert not logging.getLogger(name).isEnabledFor(logging.INFO)
