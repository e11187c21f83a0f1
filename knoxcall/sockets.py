"""Sockets that cannot be kept waiting or fed without end, with and without TLS."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

from knoxcall.outbound_errors import Unacceptable

MAX_ANSWER_BYTES = 1024 * 1024
# Headers, chunk sizes and trailers come on top of a body, but not without end.
MAX_RECEIVED_BYTES = 2 * MAX_ANSWER_BYTES

TOO_LARGE = f"sent an answer of more than {MAX_ANSWER_BYTES // 1024} KiB"


def time_left(by: float) -> float:
    """Seconds until ``by`` on the monotonic clock. Raises ``TimeoutError`` when there are none."""
    if (left := by - time.monotonic()) <= 0:
        raise TimeoutError
    return left


class BoundedSocket(socket.socket):
    """A socket where all that one call sends and receives shares one deadline and one allowance of bytes."""

    _ends_at = 0.0
    _allowance = 0

    def begin_call(self, ends_at: float) -> None:
        self._ends_at = ends_at
        self._allowance = MAX_RECEIVED_BYTES

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self.settimeout(time_left(self._ends_at))
        count = super().recv_into(buffer, nbytes or memoryview(buffer).nbytes, flags)
        self._allowance -= count
        if self._allowance < 0:
            raise Unacceptable(TOO_LARGE)
        return count

    def send(self, data: Any, flags: int = 0) -> int:
        self.settimeout(time_left(self._ends_at))
        return super().send(data, flags)

    def sendall(self, data: Any, flags: int = 0) -> None:
        # Without TLS this time is for all of the data; with TLS every part of it goes through `send`.
        self.settimeout(time_left(self._ends_at))
        super().sendall(data, flags)


class BoundedTLSSocket(BoundedSocket, ssl.SSLSocket):
    """The same with TLS."""
