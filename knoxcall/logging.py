"""One line per event: time, level, logger, request id, message. No value that was sealed is ever an argument of a log call."""

from __future__ import annotations

import logging
import time

from knoxcall.context import request_id


class HasTraceback(logging.Filter):
    """Lets through what carries an exception. Of a request that was merely refused there is a line already."""

    def filter(self, record: logging.LogRecord) -> bool:
        return bool(record.exc_info)


class LineFormatter(logging.Formatter):
    """`2026-03-10T15:30:00.000Z INFO oauth_app.refresh [request-id] message`, in UTC; what does not print is escaped."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  the base class's name
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record)} {record.levelname} {record.name} [{request_id.get()}] "
        line += _printable(record.getMessage())
        if record.exc_info:
            # Indented, so that no line of an exception's text can pass for a line of the log.
            for further in self.formatException(record.exc_info).splitlines():
                line += "\n  " + _printable(further)
        return line


def _printable(text: str) -> str:
    """``text`` with everything escaped that is not shown as itself.

    A message may quote a path or a name that somebody else chose: it must not be able to forge a second line, or to steer
    the terminal that shows it.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
