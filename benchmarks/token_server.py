"""Token endpoints that cost next to nothing: what is measured is the vault, not the provider.

`python -m benchmarks.token_server PORTS LATENCY_MS` listens on so many ports of loopback, prints their base URLs on one line,
and ends when standard input closes. Whatever a request asks, its answer is a new access token and a refresh token that was
never given before. `GET` is answered at once with the number of answers given so far.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys

from benchmarks.tokens import ACCESS_TOKEN

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: %d\r\n\r\n"
_LENGTH = b"content-length:"
_REFRESH_TOKEN_LENGTH = 64


def _halves() -> tuple[bytes, bytes]:
    """Head and body of an answer, as far as they are always the same: before and after the refresh token."""
    mark = "_" * _REFRESH_TOKEN_LENGTH
    token = {"access_token": ACCESS_TOKEN, "refresh_token": mark, "token_type": "Bearer", "expires_in": 3600}
    body = json.dumps(token).encode()
    before, after = (_HEAD % len(body) + body).split(mark.encode())
    return before, after


class TokenEndpoint(asyncio.Protocol):
    """One connection of a client, kept for as long as that likes; it asks again when it was answered (no pipelining)."""

    numbers = itertools.count(1)
    answers = 0
    before, after = _halves()

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._call_later = asyncio.get_running_loop().call_later
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        if head.startswith(b"GET"):
            self._received = b""
            count = b"%d" % TokenEndpoint.answers
            self._transport.write(_HEAD % len(count) + count)
        elif len(body) >= _body_length(head):
            self._received = b""
            self._call_later(self._latency, self._answer)

    def _answer(self) -> None:
        if self._transport.is_closing():
            return
        TokenEndpoint.answers += 1
        self._transport.write(self.before + b"%064d" % next(self.numbers) + self.after)


def _body_length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.find(_LENGTH)
    return 0 if start < 0 else int(lowered[start + len(_LENGTH) :].partition(b"\r\n")[0])


async def serve(ports: int, latency: float) -> None:
    """Listen until standard input closes."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: TokenEndpoint(latency), "127.0.0.1", 0) for _ in range(ports)]
    print(" ".join(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    for server in servers:
        server.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
