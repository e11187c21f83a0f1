"""What every test stands on: loopback sockets only, fresh keys, nothing skipped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from pytest_socket import socket_allow_hosts

from tests.support.workers import WORKER

pytest_plugins = ["tests.support.fixtures", "tests.support.chromium_plugin"]

# Speed is judged in benchmarks: a busy machine must not fail a property.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_runtest_setup(item: pytest.Item) -> None:
    socket_allow_hosts(["127.0.0.0/8", "::1", "localhost"], allow_unix_socket=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers take whole files, in this order: a journey that began last would leave the others with nothing to do."""
    if WORKER:
        items.sort(key=lambda item: not item.nodeid.startswith("tests/journeys/"))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the run when anything was skipped: a service that is missing must not look like a pass."""
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped") and exitstatus == 0:
        reporter.write_line("skipped tests count as failures here", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    from tests.settings import SCRATCH

    shutil.rmtree(SCRATCH, ignore_errors=True)


@pytest.fixture(autouse=True)
def _fresh_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget between tests what a process keeps: hosts, and data keys, whose rows are rolled back with the test."""
    from knoxcall import connections
    from oauth_app import claim, hosts, outage, storing, tokens
    from secrets_app import data_keys
    from secrets_app.api import authentication

    data_keys.forget()
    authentication.uses.forget()
    tokens.uses.forget()
    hosts.forget(shared=True)
    monkeypatch.setattr(outage, "_since", None)
    # The suite's own database has just been started.
    monkeypatch.setattr(claim, "SPOOLS_FIRST", timedelta(0))
    yield
    storing.close()
    data_keys.forget()
    # The provider at the other end is gone with the test.
    connections.pool().close_idle()
