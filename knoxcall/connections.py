"""Connections to providers: where they may lead, how long they may take, and which of them wait for their next request.

The address filter, the deadlines and the allowance of bytes sit here, below HTTP: whatever speaks over such a connection, it
cannot be led elsewhere or kept waiting.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import threading
import time
from collections import deque
from typing import NamedTuple

from urllib3.connection import HTTPConnection, HTTPSConnection

from knoxcall.addresses import Address, Target, is_refused, resolve
from knoxcall.client_certificates import ClientCertificate, find_refusal
from knoxcall.outbound_errors import AddressRefused, ClientCertificateRefused, ConnectFailed
from knoxcall.sockets import AlertInHandshake, BoundedSocket, BoundedTLSSocket, time_left
from knoxcall.tls import Context, Contexts

# A peer may close an idle connection just as a request leaves on it, and then nobody knows what became of the request.
MAX_IDLE_SECONDS = 15.0
MAX_IDLE_PER_ORIGIN = 128
MAX_IDLE = 512
# Seconds between two looks through all of them.
TIDY_SECONDS = 1.0
# A lost SYN is repeated after one second; an attempt with less may miss an address that works.
MIN_ATTEMPT_SECONDS = 1.1


class _Origin(NamedTuple):
    """What two calls must have in common to share a connection."""

    scheme: str
    host: str
    port: int
    context: Context | None


class Connection(HTTPConnection):
    """A connection to an address that passed the filter, under the name that was called. This one is plain http."""

    # http.client would connect again by itself when the socket is gone, and send there.
    auto_open = 0
    origin: _Origin
    address: Address
    _connect_by: float

    @classmethod
    def opened(cls, origin: _Origin, certificate: ClientCertificate | None, *, by: float) -> Connection:
        """Look up the name, connect, and shake hands. Raises what ``Pool.connect`` does."""
        connection: Connection
        if origin.context is None:
            connection = Connection(origin.host, origin.port)
        else:
            connection = _TLSConnection(origin.host, origin.port, ssl_context=origin.context)
        connection.origin, connection._connect_by = origin, by
        try:
            connection.connect()
        except BaseException as error:
            connection.close()
            # What fails before the handshake is an OutboundError already.
            match error:
                case AlertInHandshake() if refusal := find_refusal(error.alert, origin.host, certificate):
                    raise refusal from error
                case ssl.SSLCertVerificationError():
                    raise ConnectFailed(
                        f"The certificate of {origin.host} was not accepted: {error.verify_message}"
                    ) from error
                case TimeoutError():
                    raise ConnectFailed(f"The TLS handshake with {origin.host} took too long.") from error
                case OSError():
                    raise ConnectFailed(f"The TLS handshake with {origin.host} failed.") from error
            raise
        return connection

    def _new_conn(self) -> socket.socket:
        """urllib3's hook for the TCP connection: look up once, refuse if any answer is, connect to one of these."""
        addresses = self._resolve()
        if any(self.is_refused(address) for address in addresses):
            # Which address stays unsaid: it may be that of a name in a network of the operator's.
            raise AddressRefused(f"{self.host} is at an address that the vault does not call.")
        failure = OSError("no address")
        for index, address in enumerate(addresses):
            try:
                left = time_left(self._connect_by)
                share = max(left / (len(addresses) - index), MIN_ATTEMPT_SECONDS)
                sock = _open_socket(address, self.port, seconds=min(left, share))
            except OSError as error:
                failure = error
                continue
            self.address = address
            # The handshake takes it as a total.
            sock.settimeout(max(self._connect_by - time.monotonic(), 0.001))
            return sock
        reason = "it took too long" if isinstance(failure, TimeoutError) else failure.strerror
        raise ConnectFailed(f"The connection to {self.host} failed: {reason}.") from failure

    def _resolve(self) -> list[Address]:
        try:
            addresses = resolve(self.host, seconds=time_left(self._connect_by))
        except TimeoutError as error:
            raise ConnectFailed(f"The look-up of the name {self.host} took too long.") from error
        except OSError as error:
            raise ConnectFailed(f"The look-up of the name {self.host} failed.") from error
        if not addresses:
            raise ConnectFailed(f"The look-up of the name {self.host} brought no address.")
        return addresses

    def is_refused(self, address: Address) -> bool:
        return is_refused(address, plain_http=self.origin.scheme == "http")

    def begin_call(self, *, ends_at: float) -> None:
        assert isinstance(self.sock, BoundedSocket)
        if time.monotonic() >= ends_at:
            raise ConnectFailed(f"The connection to {self.host} took too long.")
        self.sock.begin_call(ends_at)

    def find_refusal(self, error: Exception, certificate: ClientCertificate | None) -> ClientCertificateRefused | None:
        """The refusal of ``certificate`` that ``error``, met by the first request, came of: nothing was acted on then."""
        if not isinstance(self.sock, BoundedTLSSocket):
            return None
        alert = self.sock.find_alert_after_handshake(error)
        return find_refusal(alert, self.host, certificate) if alert else None

    @property
    def is_outdated(self) -> bool:
        return self.origin.context is not None and self.origin.context.is_dropped

    def is_reusable_after(self, response: http.client.HTTPResponse) -> bool:
        """Whether the peer keeps the connection open after ``response``, and has sent nothing beyond it."""
        if self.sock is None or response.will_close or self.is_outdated:
            return False
        return not (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending())


class _TLSConnection(Connection, HTTPSConnection):
    """The same over TLS. Server name indication and the check of the certificate are urllib3's, under the name."""


def _open_socket(address: Address, port: int, *, seconds: float) -> BoundedSocket:
    sock = BoundedSocket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(seconds)
        sock.connect((str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock


class Pool:
    """What the calls of one process share: TLS contexts, and connections that wait for their next request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contexts = Contexts()
        # By origin, in the order in which they came back, each with the time that it is good until.
        self._idle: dict[_Origin, deque[tuple[float, Connection]]] = {}
        self._number = 0
        self._tidied_at = time.monotonic()

    def connect(self, target: Target, certificate: ClientCertificate | None, *, by: float) -> Connection:
        """An open connection to ``target`` that nobody else uses, and on which only ``certificate`` was shown.

        Raises ``AddressRefused``, ``ConnectFailed``, ``ClientCertificateUnusable`` and ``ClientCertificateRefused``.
        """
        if certificate and target.scheme != "https":
            raise ConnectFailed("A client certificate needs https.")
        context = self._contexts.get(certificate) if target.scheme == "https" else None
        origin = _Origin(target.scheme, target.host, target.port, context)
        while connection := self._take_idle(origin):
            # Readable before it was asked anything: the peer has closed it, or says what answers nothing.
            if connection.is_connected and not connection.is_refused(connection.address):
                return connection
            connection.close()
        return Connection.opened(origin, certificate, by=by)

    def keep(self, connection: Connection, response: http.client.HTTPResponse) -> None:
        """Take back a connection whose answer was read to its end: for the next call, or to close it."""
        seconds = _idle_seconds(response) if connection.is_reusable_after(response) else 0
        with self._lock:
            waiting = self._idle.setdefault(connection.origin, deque())
            if seconds <= 0 or len(waiting) >= MAX_IDLE_PER_ORIGIN:
                dropped = [connection]
            else:
                waiting.append((time.monotonic() + seconds, connection))
                self._number += 1
                dropped = self._tidy() if self._number > MAX_IDLE or self._is_untidy() else []
        for connection in dropped:
            connection.close()

    def _take_idle(self, origin: _Origin) -> Connection | None:
        """The connection that came back last: those beyond what is in use grow old and are closed."""
        with self._lock:
            dropped = self._tidy() if self._is_untidy() else []
            found = None
            while found is None and (waiting := self._idle.get(origin)):
                good_until, connection = waiting.pop()
                self._number -= 1
                if good_until > time.monotonic() and not connection.is_outdated:
                    found = connection
                else:
                    dropped.append(connection)
        for connection in dropped:
            connection.close()
        return found

    def _is_untidy(self) -> bool:
        return time.monotonic() - self._tidied_at > TIDY_SECONDS

    def _tidy(self) -> list[Connection]:
        """Take out what is too old, and beyond ``MAX_IDLE`` what has waited longest; returns it. Under the lock."""
        now = self._tidied_at = time.monotonic()
        kept = sorted(
            ((until, origin, idle) for origin, waiting in self._idle.items() for until, idle in waiting),
            key=lambda entry: entry[0],
        )
        good = [entry for entry in kept if entry[0] > now and not entry[2].is_outdated][-MAX_IDLE:]
        chosen = {id(idle) for _, _, idle in good}
        self._idle = {}
        for until, origin, idle in good:
            self._idle.setdefault(origin, deque()).append((until, idle))
        self._number = len(good)
        return [idle for _, _, idle in kept if id(idle) not in chosen]

    def close_idle(self) -> None:
        """Close every connection that waits. After a fork this closes copies only: the parent's stay open."""
        idle, self._idle, self._number = self._idle, {}, 0
        for waiting in idle.values():
            for _, connection in waiting:
                connection.close()


_KEEP_ALIVE = re.compile(r"\btimeout=(\d{1,6})\b", re.IGNORECASE)


def _idle_seconds(response: http.client.HTTPResponse) -> float:
    """How long the connection of ``response`` may wait for its next request: less than the peer says that it does."""
    announced = _KEEP_ALIVE.search(response.headers.get("Keep-Alive", ""))
    return min(MAX_IDLE_SECONDS, int(announced[1]) - 1) if announced else MAX_IDLE_SECONDS


_pool = Pool()


def pool() -> Pool:
    """The pool of this process."""
    return _pool


def _leave_pool_to_parent() -> None:
    global _pool
    inherited, _pool = _pool, Pool()
    inherited.close_idle()


# Two processes on one connection would read each other's answers.
os.register_at_fork(after_in_child=_leave_pool_to_parent)
