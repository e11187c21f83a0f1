"""A whole vault to ask over HTTP: a house as `make run` starts it, with secrets at a provider of ours."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.load import Load, Order
from tests.support.fake_provider_process import FakeProviderProcess
from tests.support.vaults import Vault, running_vault

WORKERS = 2
CLIENTS = 16
WARM_UP = 10


@contextlib.contextmanager
def a_vault() -> Iterator[Vault]:
    """A new vault with two web processes of 32 threads each."""
    with (
        tempfile.TemporaryDirectory(prefix="kc-vault-") as directory,
        running_vault(Path(directory) / "data", {"WEB_CONCURRENCY": str(WORKERS)}) as vault,
    ):
        yield vault


def add_secret(vault: Vault, provider: FakeProviderProcess, name: str) -> str:
    """Create an OAuth2 secret whose token is fetched at once; returns the path of that token."""
    secret = vault.create_oauth2(
        name=name,
        provider="custom",
        grant_type="client_credentials",
        client_id="fake-client",
        client_secret="fake-client-secret",
        token_url=provider.token_url,
    )
    return f"/v1/secrets/{secret['id']}/oauth2/token"


def load(vault: Vault, path: str, seconds: float, *, clients: int = CLIENTS, warm_up: int = WARM_UP) -> Load:
    """Clients that ask ``vault`` for the token at ``path``."""
    return Load(Order(vault.house.port, path, vault.api_key, clients, seconds, warm_up))
