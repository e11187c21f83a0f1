"""Journeys go through a whole running vault, from outside."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from oauth_app.fake_provider import FakeProvider
from tests.support.vaults import Vault, on_production_services, running_vault

# The Procfile is production's: its lines need PostgreSQL, which the embedded run does not have.
collect_ignore = [] if on_production_services() else ["test_procfile.py"]
if sys.platform != "linux":
    # It looks for processes in /proc, and only Linux ends the children of a killed parent.
    collect_ignore.append("test_house.py")


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """A running vault that journeys share: each makes secrets of its own. Its log is at DEBUG, for those who search it."""
    env = {"KNOXCALL_LOG_LEVEL": "DEBUG"}
    with running_vault(tmp_path_factory.mktemp("vault") / "data", env) as running:
        yield running


@pytest.fixture
def allowed_origin(vault: Vault, provider: FakeProvider) -> str:
    """An origin that the account of ``vault`` lists for return addresses; the provider's server stands in for the app there."""
    vault.manage("allow_origin", "default", provider.base_url)
    return provider.base_url
