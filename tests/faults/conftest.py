"""Faults of the refresh engine, with real processes: on a PostgreSQL of their own, which they stop, and on Valkey."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.faults.stage import Stage, forget_connections, new_database, working_on
from tests.support.house import BASE_DIR, environment
from tests.support.stoppable import Stoppable, StoppablePostgres, stoppable_postgresql, stoppable_valkey
from tests.support.vaults import on_production_services

# What is killed here is production's: the embedded vault has neither a server to stop nor a second worker.
collect_ignore_glob = [] if on_production_services() else ["test_*.py"]
TEMPLATE = "faults_template"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the processes logged."""
    report = yield
    stage = getattr(item, "funcargs", {}).get("stage")
    if report.when == "call" and report.failed and stage is not None:
        report.sections.append(("The processes logged", stage.logs()))
    return report


@pytest.fixture(scope="session")
def _cluster() -> Iterator[StoppablePostgres]:
    """A durable PostgreSQL with a migrated database that the tests copy."""
    with stoppable_postgresql() as cluster:
        with psycopg.connect(cluster.url, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {TEMPLATE}")
        url = cluster.url.rpartition("/")[0] + f"/{TEMPLATE}"
        given = {"DATABASE_URL": url, "REDIS_URL": "redis://127.0.0.1:1/0"}
        env = environment(Path("/nonexistent"), 1, given | _keys())
        migrate = [sys.executable, "manage.py", "migrate", "--no-input", "--verbosity", "0"]
        subprocess.run(migrate, cwd=BASE_DIR, env=env, check=True)
        yield cluster


def _keys() -> dict[str, str]:
    from django.conf import settings

    return {"KNOXCALL_MASTER_KEYS": settings.KNOXCALL_MASTER_KEYS, "SECRET_KEY": settings.SECRET_KEY}


@pytest.fixture
def postgres(_cluster: StoppablePostgres) -> StoppablePostgres:
    """Running, whatever the test before did to it."""
    _cluster.start()
    return _cluster


@pytest.fixture
def valkey() -> Iterator[Stoppable]:
    with stoppable_valkey() as server:
        yield server


@pytest.fixture(autouse=True)
def _quiet_here() -> Iterator[None]:
    """What this process does is set-up: the log of the others tells the story."""
    logger = logging.getLogger("oauth_app")
    logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def stage(tmp_path: Path, postgres: StoppablePostgres, valkey: Stoppable, django_db_blocker: Any) -> Iterator[Stage]:
    """An empty vault on which nothing runs yet; this process's models are its rows."""
    with new_database(postgres.url, TEMPLATE) as url, django_db_blocker.unblock(), working_on(url):
        stage = Stage(tmp_path, url, valkey.url)
        stage.spool.parent.mkdir()
        try:
            yield stage
        finally:
            stage.stop()
            postgres.start()
            forget_connections()
