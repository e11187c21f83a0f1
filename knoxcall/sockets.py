"""Sockets that cannot be kept waiting or fed without end, with and without TLS."""

from __future__ import annotations

import re
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

    has_received = False
    """Whether anything ever came that the peer said above TLS."""
    _ends_at = 0.0
    _allowance = 0

    def begin_call(self, ends_at: float) -> None:
        self._ends_at = ends_at
        self._allowance = MAX_RECEIVED_BYTES

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self.settimeout(time_left(self._ends_at))
        count = super().recv_into(buffer, nbytes or memoryview(buffer).nbytes, flags)
        if count:
            self.has_received = True
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
    """The same with TLS, and it can tell whether an alert may be about our certificate."""

    _version: str | None = None

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except ssl.SSLError as error:
            # Before TLS 1.3 the peer looks at our certificate within our handshake, once both have agreed on a cipher.
            # An alert before that, or in TLS 1.3 before our handshake ends, is about something else.
            cipher, alert = self.cipher(), find_alert(error)
            if alert and cipher and cipher[1] != "TLSv1.3":
                raise AlertInHandshake(alert) from error
            raise
        # After a fatal alert the socket says none.
        self._version = self.version()

    def find_alert_after_handshake(self, error: Exception) -> str | None:
        """The alert by which the peer ended its own handshake after ours, if ``error`` came of one.

        In TLS 1.3 our handshake is over before the peer has seen our certificate, so that a refusal shows as an alert
        in place of the answer. The peer has then acted on nothing: it reads application data only after it has checked
        our certificate and our Finished message (RFC 8446 §4.4.4). After a first byte of an answer, and before TLS 1.3,
        an alert tells nothing of the kind.
        """
        if self.has_received or self._version != "TLSv1.3":
            return None
        if isinstance(error, ConnectionError | ssl.SSLEOFError):
            # We were still writing when the peer hung up. What it said before that can still be read.
            try:
                self.recv_into(bytearray(1))
            except (OSError, Unacceptable) as last_words:
                error = last_words
        alert = find_alert(error)
        # TLS 1.3 has better ones for certificates, and sends this one for other causes.
        return alert if alert != "HANDSHAKE_FAILURE" else None


class AlertInHandshake(ssl.SSLError):
    """The peer ended the handshake by an alert that may be about our certificate."""

    def __init__(self, alert: str) -> None:
        super().__init__(ssl.SSL_ERROR_SSL, "the peer ended the handshake")
        self.alert = alert


def find_alert(error: Exception) -> str | None:
    """The name of the alert (RFC 8446 §6, in capitals) that the peer sent, if ``error`` came of one."""
    # OpenSSL has reasons such as TLSV13_ALERT_CERTIFICATE_REQUIRED for the alerts that it receives, and only for these.
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    found = re.search(r"_ALERT_(\w+)$", reason or "")
    return found[1] if found else None
