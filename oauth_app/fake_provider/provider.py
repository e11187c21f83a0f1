"""The provider that listens: its switches and plans, and the record of what came in."""

from __future__ import annotations

import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import consent
from .answers import Answer, Reply
from .issuer import Issuer
from .record import Seen, TokenRequest
from .wire import Server

_STOP_SECONDS = 5
_ENDPOINTS = ("token", "revoke")
# Those who listen on every address are reached by this one.
_REACHED_BY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here


@dataclass
class _Plan:
    """An answer that waits for the requests it is meant for."""

    answer: Answer
    times: int
    endpoint: str
    grant_type: str | None

    def is_for(self, endpoint: str, request: TokenRequest) -> bool:
        return self.endpoint == endpoint and self.grant_type in (None, request.grant_type)


class FakeProvider(Issuer):
    """An OAuth2 provider that listens on a port of this machine and misbehaves on request.

    Use it as a context manager, or call `start()` and `stop()`. The switches of `Behaviour` are its attributes;
    `next()` plans answers; `requests` tells what came in. With an `ssl_context` it speaks https, and records the
    certificate that a client shows. `on_request` is called after every request, from any thread.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        on_request: Callable[[Seen], object] | None = None,
        **switches: Any,
    ) -> None:
        super().__init__(**switches)
        self._on_request = on_request
        self.requests: list[TokenRequest] = []
        self.peak_in_flight = 0
        """The most token requests that were under way at once."""
        self.under_way: list[TokenRequest] = []
        """The token requests that came in and have no answer yet."""
        self._plans: list[_Plan] = []
        self._gate = threading.Event()
        self._stopping = threading.Event()
        self._arrived = threading.Condition(self.lock)
        self._grant_types: Counter[str] = Counter()
        self._server = Server((host, port), self, ssl_context)
        reached_by = _REACHED_BY.get(host, host)
        name = f"[{reached_by}]" if ":" in reached_by else reached_by
        self.base_url = f"{'https' if ssl_context else 'http'}://{name}:{self._server.server_port}"
        self.issuer = self.base_url
        self.authorize_url = f"{self.base_url}/authorize"
        self.token_url = f"{self.base_url}/token"
        self.revoke_url = f"{self.base_url}/revoke"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="fake-provider", daemon=True
        )

    def __enter__(self) -> FakeProvider:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> FakeProvider:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Lose every connection, held ones too, and let go of the port."""
        self._stopping.set()
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_STOP_SECONDS)

    # What tests and operators plan and ask.

    def next(self, answer: Answer, *, times: int = 1, endpoint: str = "token", grant_type: str | None = None) -> None:
        """Answer the next requests this way: those to `token` or `revoke`, of one grant type or any. Plans queue up."""
        if endpoint not in _ENDPOINTS:
            raise ValueError(f"endpoint must be one of {', '.join(_ENDPOINTS)}.")
        with self.lock:
            self._plans.append(_Plan(answer, times, endpoint, grant_type))

    def forget_plans(self) -> None:
        with self.lock:
            self._plans.clear()

    def release(self) -> None:
        """Let every request that is held now have its answer."""
        with self.lock:
            gate, self._gate = self._gate, threading.Event()
        gate.set()

    def count(self, grant_type: str) -> int:
        """How many token requests of this type came in, whatever became of them."""
        with self.lock:
            return self._grant_types[grant_type]

    def wait_for_requests(self, count: int, *, timeout: float = 10) -> None:
        """Return when so many token requests have come in since the start; raises `TimeoutError`."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.requests) >= count, timeout):
                raise TimeoutError(f"{len(self.requests)} of {count} token requests came in within {timeout} s")

    # What the wire asks.

    def consent(self, query: str) -> Reply:
        """The answer of the authorization endpoint."""
        ended = consent.authorize(self, query)
        asked = consent.parameters_of(query)
        self._note("authorize", asked.get("response_type", ""), asked.get("client_id", ""), ended.outcome)
        return ended.reply

    def handle(
        self, endpoint: str, request: TokenRequest, work: Callable[[Issuer, TokenRequest], Reply]
    ) -> tuple[Answer, Reply] | None:
        """The answer to a request and the reply under it, when both are due; None if the provider stops first."""
        answer, gate = self._receive(endpoint, request)
        try:
            if answer.does_the_work():
                reply = work(self, request)
            else:
                request.outcome = "replaced"
                reply = Reply(status=200)
            if answer.held:
                gate.wait()
            self._stopping.wait(self.delay if answer.delay is None else answer.delay)
            if self._stopping.is_set():
                return None
            reply = answer.over(reply)
            ended = f"connection {answer.drop}" if answer.drop else f"status {reply.status}"
            self._note(endpoint, request.grant_type, request.client_id, f"{request.outcome}, {ended}")
            return answer, reply
        finally:
            with self.lock:
                # By identity: two requests may look alike.
                self.under_way = [other for other in self.under_way if other is not request]

    def _note(self, endpoint: str, kind: str, client_id: str, outcome: str) -> None:
        if self._on_request:
            self._on_request(Seen(time.time(), endpoint, kind, client_id, outcome))

    def pause(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    def _receive(self, endpoint: str, request: TokenRequest) -> tuple[Answer, threading.Event]:
        # In one step with the record: whoever was told of the request can release it.
        with self._arrived:
            plan = next((plan for plan in self._plans if plan.is_for(endpoint, request)), None)
            if plan is not None:
                plan.times -= 1
                if plan.times == 0:
                    self._plans.remove(plan)
            if endpoint == "token":
                self.requests.append(request)
                self._grant_types[request.grant_type] += 1
                self.under_way.append(request)
                self.peak_in_flight = max(self.peak_in_flight, len(self.under_way))
                self._arrived.notify_all()
            standing = self.answer if endpoint == "token" else None
            return (plan.answer if plan else standing or Answer()), self._gate
