"""Providers that forgive nothing, each a process of its own, and what they say of every grant."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oauth_app.fake_provider import RefreshTokens
from tests.faults.stage import Process
from tests.support.fake_provider_process import FakeProviderProcess


@dataclass(frozen=True)
class Replay:
    """A consumed refresh token that came again, in seconds since the epoch."""

    at: float
    refresh_token_sha256: str
    is_forgiven: bool


@dataclass(frozen=True)
class GrantRecord:
    """What a provider knows of one grant."""

    first_refresh_token_sha256: str
    latest_refresh_token_sha256: str
    refreshes: int
    refreshed_at: float | None
    replays: tuple[Replay, ...]
    is_revoked: bool


class StrictProvider(FakeProviderProcess):
    """Every refresh token is for one use; a replay is recorded, and ends the grant unless it comes within ``reuse_grace``."""

    def __init__(self, **switches: Any) -> None:
        strict = {"refresh_tokens": RefreshTokens.ROTATED, "reuse_revokes": True, "reuse_grace": 0}
        self.client_id, self.client_secret = "fake-client", "fake-client-secret"
        super().__init__(**{**strict, **switches})

    def told(self, *parts: str) -> dict[str, Any]:
        """Some parts of its record."""
        record: dict[str, Any] = self._server.get(f"/_log?only={','.join(parts)}")
        return record

    @property
    def reuses(self) -> int:
        """Replays that were not forgiven."""
        count: int = self.told("reuses")["reuses"]
        return count

    @property
    def received(self) -> int:
        """Token requests since the start."""
        count: int = self.told("received")["received"]
        return count

    def grants(self) -> dict[str, GrantRecord]:
        """Every grant with a refresh token, by the digest of its first."""
        records = [
            GrantRecord(**{**told, "replays": tuple(Replay(**replay) for replay in told["replays"])})
            for told in self.told("grants")["grants"]
        ]
        return {record.first_refresh_token_sha256: record for record in records}

    def repeated_grants(self) -> int:
        """Tokens given out by a grant that needs no person."""
        told = self.told("issued", "refreshes", "grants")
        count: int = told["issued"] - told["refreshes"] - len(told["grants"])
        return count

    def callers(self) -> list[int]:
        """The ports from which the requests came that it has not answered yet."""
        ports: list[int] = self.told("under_way")["under_way"]
        return ports


def calls_of(process: Process, ports: list[int]) -> int:
    """How many of these ports of 127.0.0.1 are ``process``'s ends of a connection. Linux only."""
    inodes = {inode for port, inode in _sockets() if port in ports}
    held = 0
    for descriptor in Path(f"/proc/{process.pid}/fd").glob("*"):
        try:
            held += os.readlink(descriptor) in inodes
        except OSError:
            continue  # It was closed meanwhile.
    return held


def _sockets() -> list[tuple[int, str]]:
    """Local port and name of every TCP socket of this machine."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [(int(row[1].rpartition(":")[2], 16), f"socket:[{row[9]}]") for row in rows]
