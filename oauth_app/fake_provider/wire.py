"""The provider on the wire: HTTP/1.1 with kept connections, and every way to lose one."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from . import control, grants, metadata, revocation
from .answers import Drop, Reply
from .issuer import Issuer
from .record import Peer, TokenRequest

if TYPE_CHECKING:
    from .provider import FakeProvider

_STOP_SECONDS = 5
# No wait for what is still in the buffers: closing sends a reset.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # The default of five refuses callers as soon as a few dozen come at once.
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], provider: FakeProvider, ssl_context: ssl.SSLContext | None) -> None:
        # Before the port: where that is not to be had, the base class closes what is there.
        self._ssl_context = ssl_context
        self._connections: set[socket.socket] = set()
        self._is_quiet = threading.Condition()
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, partial(_Handler, provider))

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the resolver for a name that nobody needs.
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._ssl_context:
            # The handshake is left to the first read, in the connection's own thread: here it would stop everybody.
            connection = self._ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._is_quiet:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        try:
            if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(_RESET_ON_CLOSE)) == _RESET_ON_CLOSE:
                # Without the shutdown that would say goodbye first.
                self.close_request(request)
            else:
                super().shutdown_request(request)
        finally:
            with self._is_quiet:
                self._connections.discard(request)
                self._is_quiet.notify_all()

    def server_close(self) -> None:
        """Close the port and every connection, and wait until their threads have let go of them."""
        super().server_close()
        with self._is_quiet:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # The client was faster.
            self._is_quiet.wait_for(lambda: not self._connections, _STOP_SECONDS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that gave up, or did not like our certificate, is what the faults are for.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "FakeProvider"
    sys_version = ""
    # Head and body leave together, at once: kept connections would wait 40 ms for an acknowledgement otherwise.
    disable_nagle_algorithm = True
    wbufsize = -1

    def __init__(self, provider: FakeProvider, *arguments: Any) -> None:
        self.provider = provider
        super().__init__(*arguments)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        match url.path:
            case "/authorize":
                self._send(self.provider.consent(url.query))
            case "/.well-known/openid-configuration" | "/.well-known/oauth-authorization-server":
                self._send(_json(metadata.document(self.provider)))
            case "/_log" if self._is_near():
                self._send(_json(control.log(self.provider, url.query)))
            case _:
                self._send(_json({"error": "not_found"}, status=404))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match urlsplit(self.path).path:
            case "/token":
                self._exchange("token", grants.token, body)
            case "/revoke":
                self._exchange("revoke", revocation.rfc7009, body)
            case "/api/auth.revoke":
                self._exchange("revoke", revocation.bearer, body)
            case "/_control" if self._is_near():
                self._control(body)
            case _:
                self._send(_json({"error": "not_found"}, status=404))

    def do_DELETE(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if urlsplit(self.path).path == f"/applications/{quote(self.provider.client_id, safe='')}/token":
            self._exchange("revoke", revocation.github, body)
        else:
            self._send(_json({"error": "not_found"}, status=404))

    def _is_near(self) -> bool:
        return is_loopback(str(self.client_address[0]))

    def _exchange(self, endpoint: str, work: Callable[[Issuer, TokenRequest], Reply], body: bytes) -> None:
        request = TokenRequest.parse(
            body, self.headers, at=time.time(), peer=_peer(self.connection), port=self.client_address[1]
        )
        handled = self.provider.handle(endpoint, request, work)
        if handled is None:
            self.close_connection = True
            return
        answer, reply = handled
        match answer.drop:
            case Drop.RESET:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                self.close_connection = True
            case Drop.CLOSED:
                self.close_connection = True
            case Drop.MID_ANSWER:
                self._send(reply, body=lambda: self.wfile.write(reply.body[: len(reply.body) // 2]))
                self.close_connection = True
            case None if answer.trickle:
                self._send(reply, body=lambda: self._trickle(reply.body, answer.trickle))
            case None:
                self._send(reply)

    def _control(self, body: bytes) -> None:
        try:
            control.apply(self.provider, json.loads(body))
        except (ValueError, TypeError, LookupError, AttributeError) as err:
            self._send(_json({"error": str(err)}, status=400))
        else:
            self._send(_json({"ok": True}))

    def _send(self, reply: Reply, *, body: Callable[[], object] | None = None) -> None:
        self.send_response(reply.status)
        if reply.status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body is None:
            self.wfile.write(reply.body)
        else:
            body()
        self.wfile.flush()

    def _trickle(self, body: bytes, seconds: float) -> None:
        for byte in body:
            self.wfile.flush()
            self.provider.pause(seconds)
            self.wfile.write(bytes([byte]))

    def log_message(self, *_: object) -> None:
        """Keep quiet: what came in is in `FakeProvider.requests`."""


def is_loopback(host: str) -> bool:
    """Whether only this machine has this address, or is called by this name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def _peer(connection: socket.socket) -> Peer | None:
    if not isinstance(connection, ssl.SSLSocket):
        return None
    raw, decoded = connection.getpeercert(binary_form=True), connection.getpeercert()
    return Peer(decoded or {}, hashlib.sha256(raw).hexdigest()) if raw else None


def _json(document: Any, *, status: int = 200) -> Reply:
    return Reply(status=status, body=json.dumps(document).encode())
