"""The fake provider in a process of its own, for callers that outlive a test's threads or must not share its lock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from oauth_app.fake_provider import Answer
from oauth_app.fake_provider.control import answer_to_json
from tests.support.processes import ServerProcess


class FakeProviderProcess:
    """The same switches as `FakeProvider`, set from another process; a context manager."""

    def __init__(self, **switches: Any) -> None:
        self._server = ServerProcess("oauth_app.fake_provider", "--until-stdin-closes")
        self.pid = self._server.pid
        self.base_url = self._server.base_url
        self.authorize_url = f"{self.base_url}/authorize"
        self.token_url = f"{self.base_url}/token"
        self.revoke_url = f"{self.base_url}/revoke"
        self.set(**switches)

    def __enter__(self) -> FakeProviderProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def set(self, **switches: Any) -> None:
        if isinstance(switches.get("answer"), Answer):
            switches["answer"] = answer_to_json(switches["answer"])
        self._server.post("/_control", {"set": switches})

    def next(self, answer: Answer, **plan: Any) -> None:
        self._server.post("/_control", {"next": [{"answer": answer_to_json(answer), **plan}]})

    def forget_plans(self) -> None:
        self._server.post("/_control", {"forget_plans": True})

    def release(self) -> None:
        self._server.post("/_control", {"release": True})

    def revoke_grants(self) -> None:
        self._server.post("/_control", {"revoke_grants": True})

    def log(self, *, after: int = 0) -> Mapping[str, Any]:
        """Counters, and under `requests` the token requests from number `after` on."""
        return self._server.get(f"/_log?after={after}")

    def wait_for_requests(self, count: int, *, timeout: float = 10) -> None:
        """Return when so many token requests have come in since the start; raises `TimeoutError`."""
        deadline = time.monotonic() + timeout
        while (received := self.log(after=count)["received"]) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{received} of {count} token requests came in within {timeout} s")
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.stop()
