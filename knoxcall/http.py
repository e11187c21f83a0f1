"""The only door to the outside: every call to a provider leaves the vault through ``send``.

Built on urllib3's connections, without requests or a urllib3 pool above them: those read a redirect's body whole, put
query strings into logs, and do not say whether the request had left when they fail. Nothing is ever sent twice.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from urllib3 import HTTPHeaderDict

from knoxcall import connections
from knoxcall.addresses import UrlRefused, check_url, parse_url
from knoxcall.client_certificates import ClientCertificate
from knoxcall.outbound_errors import (
    AddressRefused,
    ClientCertificateRefused,
    ClientCertificateUnusable,
    ConnectFailed,
    NoAnswer,
    OutboundError,
    Unacceptable,
)
from knoxcall.sockets import MAX_ANSWER_BYTES, TOO_LARGE

__all__ = [
    "MAX_ANSWER_BYTES",
    "AddressRefused",
    "Answer",
    "ClientCertificateRefused",
    "ClientCertificateUnusable",
    "ConnectFailed",
    "NoAnswer",
    "OutboundError",
    "UrlRefused",
    "check_url",
    "send",
]

USER_AGENT = "KnoxCall-Vault"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer answered, redirects and errors included. Its ``repr`` shows the status only."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """Looked up in any case. The values of a header that came several times are joined with commas."""
    body: bytes = field(repr=False)
    """At most MAX_ANSWER_BYTES."""


def send(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    certificate: ClientCertificate | None = None,
    deadline: float = 20.0,
    connect_timeout: float = 5.0,
) -> Answer:
    """Send one request, once, and return its answer.

    ``certificate`` is shown to a peer that asks for one, over https only. The call ends within ``deadline`` seconds;
    name look-up, connection and TLS handshake together within ``connect_timeout``. Raises ``UrlRefused``,
    ``ValueError`` for a method or header that must not be sent, and the ``OutboundError`` that says what happened.
    """
    target = parse_url(url)
    fields = _request_headers(method, headers or {}, body)
    now = time.monotonic()
    connection = connections.pool().connect(target, certificate, by=now + min(connect_timeout, deadline))
    try:
        connection.begin_call(ends_at=now + deadline)
        connection.putrequest(method, target.path)
        for name, value in fields.items():
            connection.putheader(name, value)
        # So far this only filled a buffer. From here on the peer may have acted, whatever we get to see of it.
        try:
            connection.endheaders(body)
            # Past urllib3's own, which logs the URL with its query when it cannot read a header.
            with http.client.HTTPConnection.getresponse(connection) as response:
                answer = _read_answer(response)
        except (OSError, http.client.HTTPException, ValueError, Unacceptable) as error:
            if refusal := connection.find_refusal(error, certificate):
                raise refusal from None
            # Not chained: http.client's errors quote what they could not read, and that may be half a token.
            raise NoAnswer(f"{target.host} {_what_happened(error)}.") from None
    except BaseException:
        connection.close()
        raise
    connections.pool().keep(connection, response)
    return answer


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_FRAMING = {"connection", "content-length", "expect", "host", "te", "transfer-encoding", "upgrade"}
_SET_HERE = _FRAMING | {"accept-encoding", "user-agent"}


def _request_headers(method: str, headers: Mapping[str, str], body: bytes | None) -> dict[str, str]:
    """The headers to send; http.client adds `Host` and `Accept-Encoding: identity`. Raises ``ValueError``."""
    if not _TOKEN.fullmatch(method):
        raise ValueError("The method is not an HTTP token.")
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError("The name of a header is not an HTTP token.")
        if name.lower() in _SET_HERE:
            raise ValueError(f"The header {name} is not the caller's to set.")
        if not _FIELD_VALUE.fullmatch(value):
            raise ValueError(f"The value of the header {name} has a character that no header may have.")
    fields = {"User-Agent": USER_AGENT, **headers}
    if body is not None or method in ("POST", "PUT", "PATCH"):
        fields["Content-Length"] = str(len(body or b""))
    return fields


_FOLD = re.compile(r"[ \t]*[\r\n]+[ \t]*")


def _read_answer(response: http.client.HTTPResponse) -> Answer:
    """Read ``response`` to its end. Raises ``Unacceptable``, ``OSError`` and ``HTTPException``."""
    received = response.headers
    if response.status < 200:
        # http.client takes it for the final answer; the final one would then be taken for that to the next request.
        raise Unacceptable("sent an interim answer")
    if any(coding.strip().lower() not in ("", "identity") for coding in received.get_all("Content-Encoding", [])):
        raise Unacceptable("sent a compressed answer, which nobody asked for")
    if any(coding.strip().lower() != "chunked" for coding in received.get_all("Transfer-Encoding", [])):
        raise Unacceptable("sent an answer in a transfer coding that nobody asked for")
    if len(set(received.get_all("Content-Length", []))) > 1:
        raise Unacceptable("sent an answer with two lengths")
    if response.length is not None and response.length > MAX_ANSWER_BYTES:
        raise Unacceptable(TOO_LARGE)
    body = response.read(MAX_ANSWER_BYTES + 1)
    if len(body) > MAX_ANSWER_BYTES:
        raise Unacceptable(TOO_LARGE)
    if response.length:
        raise http.client.IncompleteRead(b"")
    headers = HTTPHeaderDict((name, _FOLD.sub(" ", value)) for name, value in received.items())
    return Answer(response.status, MappingProxyType(headers), body)


def _what_happened(error: Exception) -> str:
    """Continue a sentence that starts with the host, quoting nothing that the peer sent."""
    match error:
        case Unacceptable():
            return str(error)
        case TimeoutError():
            return "did not answer in time"
        case OSError() | http.client.IncompleteRead():
            return "closed the connection before its answer was complete"
    return "sent an answer that is not readable as HTTP"
