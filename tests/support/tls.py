"""A peer on loopback that says byte for byte what a test tells it to, with or without TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import trustme

NAME = "provider.example"


class Request(NamedTuple):
    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) < 2, f"{name} was sent {len(found)} times"
        return found[0] if found else None


Say = Callable[[socket.socket, Request], bool | None]
"""Answers one request; True keeps the connection open for the next one."""


def says(raw: bytes, *, keep: bool = True) -> Say:
    def say(connection: socket.socket, request: Request) -> bool:
        connection.sendall(raw)
        return keep

    return say


def ok(body: bytes = b"{}", *headers: str) -> Say:
    """A plain 200 that keeps the connection open."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
    return says("\r\n".join(lines).encode() + body)


@dataclass
class Peer:
    say: Say
    tls: ssl.SSLContext | None = None
    address: str = "127.0.0.1"
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    server_names: list[str | None] = field(default_factory=list)
    shown: list[bytes | None] = field(default_factory=list)
    """The client certificate (DER) of every connection whose handshake succeeded."""
    resumed: int = 0
    """How many of these handshakes only resumed a session."""
    port: int = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[Peer]:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        listener = socket.create_server((self.address, 0), family=family, backlog=128)
        self.port = listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        if self.tls:
            self.tls.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        accepting = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        accepting.start()
        try:
            yield self
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            accepting.join(5)
            self.hang_up()

    def hang_up(self) -> None:
        """Close every open connection from this side, and wait until that is done."""
        with self._lock:
            open_now = list(self._open)
        for connection in open_now:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threading.enumerate():
            if thread.name == f"peer-{id(self)}":
                thread.join(5)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name=f"peer-{id(self)}", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        raw = connection
        try:
            if self.tls:
                connection = self.tls.wrap_socket(raw, server_side=True)
                with self._lock:
                    self._open.discard(raw)
                    self._open.add(connection)
                self.shown.append(connection.getpeercert(binary_form=True))
                self.resumed += bool(connection.session_reused)
            with connection.makefile("rb") as stream:
                while request := _read_request(stream):
                    self.requests.append(request)
                    if not self.say(connection, request):
                        break
        except OSError:
            pass  # the client went away, which is often the point
        finally:
            with self._lock:
                self._open.discard(connection)
                self._open.discard(raw)
            connection.close()
            raw.close()


def _read_request(stream) -> Request | None:
    line = stream.readline()
    if not line:
        return None
    headers: list[tuple[str, str]] = []
    while (field_line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = field_line.decode("latin-1").rstrip("\r\n").partition(": ")
        headers.append((name, value))
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    return Request(line.decode("latin-1").rstrip("\r\n"), headers, stream.read(length))


def server_context(
    authority: trustme.CA,
    *names: str,
    clients: trustme.CA | None = None,
    verify: ssl.VerifyMode = ssl.CERT_REQUIRED,
    version: ssl.TLSVersion | None = None,
) -> ssl.SSLContext:
    """The server side of TLS, with a certificate of ``authority`` for ``names``; client certificates are of ``clients``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    if clients:
        context.verify_mode = verify
        clients.configure_trust(context)
    if version:
        context.minimum_version = context.maximum_version = version
    return context
