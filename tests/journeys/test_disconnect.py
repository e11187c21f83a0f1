"""Ending connections in a running vault: its worker tells the provider, whether the secret is still there or not."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

from oauth_app.fake_provider import FakeProvider
from tests.support.vaults import Vault


def eventually(look: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
    return seen


def connected(vault: Vault, provider: FakeProvider) -> str:
    """The id of a secret with both tokens."""
    made = vault.create_oauth2(
        name=f"ending {secrets.token_hex(4)}",
        provider="custom",
        grant_type="password",
        client_id=provider.client_id,
        client_secret=provider.client_secret,
        username=provider.username,
        password=provider.password,
        token_url=provider.token_url,
        revocation_url=provider.revoke_url,
    )
    assert made["connection_status"] == "connected"
    return str(made["id"])


def test_the_worker_revokes_what_was_disconnected_and_what_was_deleted(vault, provider):
    ended, deleted = connected(vault, provider), connected(vault, provider)
    answer = vault.call("POST", f"/v1/secrets/{ended}/oauth2/disconnect", {})
    assert answer.json()["data"]["connection_status"] == "disconnected"
    assert vault.call("GET", f"/v1/secrets/{ended}/oauth2/token").json()["error"]["reason"] == "not_connected"
    assert vault.call("DELETE", f"/v1/secrets/{deleted}").status_code == 200

    def outcome() -> bool:
        shown = vault.call("GET", f"/v1/secrets/{ended}/oauth2").json()["data"]["revocation"]["outcome"]
        return bool(shown == "revoked")

    eventually(outcome)
    eventually(lambda: len(provider.revocations) == 4)
    assert not provider.grants_by_access_token
    assert all(grant.is_revoked for grant in provider.grants_by_refresh_token.values())
