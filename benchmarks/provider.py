"""The provider that refreshes are measured against: a process of its own that answers every refresh the same way."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.rows import ACCESS_TOKEN
from oauth_app.fake_provider import Answer
from oauth_app.protocol.client import OAuthClient
from tests.support.fake_provider_process import FakeProviderProcess

# Brings a new refresh token each time: the longest way through a store.
ROTATED = {"access_token": ACCESS_TOKEN, "refresh_token": "n" * 64, "token_type": "Bearer", "expires_in": 3600}


def rotating_provider(latency_ms: float = 0) -> FakeProviderProcess:
    """A provider that takes any refresh token, and ``latency_ms`` for its answer; a context manager."""
    return FakeProviderProcess(answer=Answer.json(ROTATED), delay=latency_ms / 1000)


def client_at(token_url: str) -> OAuthClient:
    """The client that the vault is to the provider whose token endpoint this is."""
    return OAuthClient(
        provider="custom",
        grant_type="authorization_code",
        client_id="benchmark",
        client_secret="benchmark",
        auth_url=token_url.replace("/token", "/authorize"),
        token_url=token_url,
    )


def cpu_seconds(pid: int) -> float | None:
    """The CPU time that a process has used, in user and kernel; ``None`` where the system does not say (no `/proc`)."""
    try:
        # After the name in brackets, which may hold spaces; utime and stime are fields 14 and 15 (proc(5)).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
