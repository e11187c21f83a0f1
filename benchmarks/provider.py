"""The provider that refreshes are measured against: a process of its own, with several token endpoints that are cheap to ask."""

from __future__ import annotations

from urllib.request import ProxyHandler, build_opener

from oauth_app.protocol.client import OAuthClient
from tests.support.processes import START_SECONDS, ServerProcess

# The vault bounds the calls that are under way at one host, which is a host name and a port.
HOSTS = 4

# The environment's proxies are not for loopback.
_opener = build_opener(ProxyHandler({}))


class LightProvider:
    """Token endpoints that answer every request alike after ``latency_ms``; a context manager."""

    def __init__(self, latency_ms: float = 0, *, hosts: int = HOSTS) -> None:
        self._server = ServerProcess("benchmarks.token_server", str(hosts), str(latency_ms))
        self.pid = self._server.pid
        self._base_urls = self._server.base_url.split()
        self.ports = [int(base_url.rpartition(":")[2]) for base_url in self._base_urls]
        self.token_urls = [f"{base_url}/token" for base_url in self._base_urls]

    def __enter__(self) -> LightProvider:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def answers(self) -> int:
        """How many token requests were answered so far."""
        with _opener.open(self._base_urls[0], timeout=START_SECONDS) as response:
            return int(response.read())


def client_at(token_url: str, client_id: str = "benchmark") -> OAuthClient:
    """A client that the vault is to the provider whose token endpoint this is."""
    return OAuthClient(
        provider="custom",
        grant_type="authorization_code",
        client_id=client_id,
        client_secret="benchmark",
        auth_url=token_url.replace("/token", "/authorize"),
        token_url=token_url,
    )
