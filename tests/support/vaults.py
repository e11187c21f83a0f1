"""Whole vaults for the journeys: a house of their own on the services that the suite runs on."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import requests

from tests.support.house import BASE_DIR, House, environment, running_house
from tests.support.workers import own_redis_databases, with_redis_database

# Databases of the suite's Redis that journeys take in turn.
_redis_databases = itertools.cycle(own_redis_databases()[1:])


def on_production_services() -> bool:
    """Whether the suite was given a PostgreSQL and a Redis."""
    return os.environ.get("DATABASE_URL", "").startswith("postgres")


@contextlib.contextmanager
def production_environment() -> Iterator[dict[str, str]]:
    """What a production machine's environment holds, on a database of its own that is dropped afterwards."""
    name = f"journey_{secrets.token_hex(6)}"
    url = urlsplit(os.environ["DATABASE_URL"])
    with psycopg.connect(url.geturl(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            yield {
                "DATABASE_URL": url._replace(path=f"/{name}").geturl(),
                "REDIS_URL": with_redis_database(os.environ["REDIS_URL"], next(_redis_databases)),
                "KNOXCALL_MASTER_KEYS": "k1:" + base64.b64encode(secrets.token_bytes(32)).decode(),
                "SECRET_KEY": secrets.token_urlsafe(64),
            }
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@dataclass(frozen=True)
class Vault:
    """A running vault and a caller of its API."""

    house: House
    env: Mapping[str, str]
    http: requests.Session

    @property
    def base_url(self) -> str:
        return self.house.base_url

    @property
    def api_key(self) -> str:
        return self.house.api_key

    def call(self, method: str, path: str, body: Any = None, **further: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.api_key}", **further.pop("headers", {})}
        return self.http.request(method, self.base_url + path, json=body, headers=headers, timeout=30, **further)

    def create_oauth2(self, **body: Any) -> dict[str, Any]:
        answer = self.call("POST", "/v1/secrets/oauth2", body)
        assert answer.status_code == 201, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    def token(self, secret_id: str, query: str = "") -> dict[str, Any]:
        answer = self.call("GET", f"/v1/secrets/{secret_id}/oauth2/token{query}")
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    def manage(self, *arguments: str) -> str:
        """What a `manage.py` command beside the vault prints."""
        env = environment(self.house.data_dir, self.house.port, self.env)
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(command, cwd=BASE_DIR, env=env, check=True, capture_output=True, text=True).stdout

    def execute(self, statement: str) -> None:
        """Change a row behind the vault's back, as time would."""
        if "DATABASE_URL" in self.env:
            with psycopg.connect(self.env["DATABASE_URL"]) as database:
                database.execute(statement)
        else:
            with contextlib.closing(sqlite3.connect(self.house.data_dir / "knoxcall.sqlite3")) as database, database:
                database.execute(statement)


@contextlib.contextmanager
def running_vault(data_dir: Path, env: Mapping[str, str] | None = None) -> Iterator[Vault]:
    """A vault as `make run` starts it, that may call providers on loopback."""
    with contextlib.ExitStack() as stack:
        services = stack.enter_context(production_environment()) if on_production_services() else {}
        variables = {"KNOXCALL_OUTBOUND_ALLOW": "127.0.0.0/8", **services, **(env or {})}
        http = stack.enter_context(requests.Session())
        http.trust_env = False
        house = stack.enter_context(running_house(data_dir, env=variables))
        yield Vault(house, variables, http)
