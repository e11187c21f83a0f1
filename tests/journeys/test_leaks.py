"""Secrets planted everywhere, and everything that is left searched for them: database, log at DEBUG, broker, pages, spool."""

from __future__ import annotations

import os
import re
import sqlite3
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import requests

from oauth_app.fake_provider import FakeProvider
from tests.journeys.planted import AUTHORITY, IN_ROWS, PLANTED, end, found_in, signed_in, use
from tests.support.vaults import Vault, running_vault


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(
        client_id=PLANTED["client_id"],
        client_secret=PLANTED["client_secret"],
        username=PLANTED["username"],
        password=PLANTED["password"],
        expires_in=3,
        extra={"id_token": f"e30.eyJzdWIiOiAic29tZWJvZHkifQ.{PLANTED['id_token']}"},
    ) as fake:
        yield fake


@pytest.fixture(scope="module")
def tls_provider() -> Iterator[FakeProvider]:
    """One that asks for a client certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    AUTHORITY.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with FakeProvider(
        ssl_context=context, client_id=PLANTED["client_id"], requires_client_certificate=True, client_secret=None
    ) as fake:
        yield fake


@pytest.fixture(scope="module")
def used(
    tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider, tls_provider: FakeProvider
) -> Iterator[Vault]:
    """A vault of its own that has seen every way in which a secret comes to it, successes and failures."""
    directory = tmp_path_factory.mktemp("leaks")
    AUTHORITY.cert_pem.write_to_path(str(directory / "authority.pem"))
    env = {"KNOXCALL_LOG_LEVEL": "DEBUG", "KNOXCALL_OUTBOUND_CA_BUNDLE": str(directory / "authority.pem")}
    with running_vault(directory / "data", env) as vault:
        use(vault, provider)
        end(vault, provider, tls_provider)
        yield vault


def test_the_search_would_find_them():
    assert found_in(b"a planted-value-7f3a b") == ["value"]


def test_the_database_holds_none_in_the_clear(used):
    # What is meant to be there is found, so the search reaches every row.
    assert found_in(dump(used)) == [IN_ROWS]


def dump(vault: Vault) -> bytes:
    """Every row of every table as text, and on SQLite the files as they lie on disk."""
    if "DATABASE_URL" in vault.env:
        with psycopg.connect(vault.env["DATABASE_URL"]) as database:
            tables = database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            rows: list[Any] = []
            for (table,) in tables:
                rows += database.execute(f'SELECT * FROM "{table}"').fetchall()
        assert rows
        return "\n".join(repr(row) for row in rows).encode()
    path = vault.house.data_dir / "knoxcall.sqlite3"
    with sqlite3.connect(path) as database:
        text = "\n".join(database.iterdump()).encode()
    database.close()
    assert b"machine" in text
    return text + b"".join(file.read_bytes() for file in path.parent.glob("knoxcall.sqlite3*"))


def test_the_log_holds_none(used):
    log = used.house.log.read_bytes()
    assert b"refreshed connection" in log
    assert found_in(log) == []


def test_the_log_holds_the_key_once_where_it_was_shown(used):
    log = used.house.output
    # The first start prints it: in its own line and in the curl beside it.
    assert log.count(used.api_key) == 2


def test_the_data_directory_holds_none(used):
    for root, _, files in os.walk(used.house.data_dir):
        for name in files:
            path = Path(root) / name
            assert not path.is_file() or found_in(path.read_bytes(), but=IN_ROWS) == [], path


def test_the_broker_holds_none(used):
    url = used.env.get("REDIS_URL") or f"unix://{used.house.data_dir}/run/valkey.sock"
    seen = []
    with redis.Redis.from_url(url) as broker:
        for key in broker.scan_iter("*"):
            kind = broker.type(key).decode()
            read = {"string": broker.get, "list": lambda k: broker.lrange(k, 0, -1), "hash": broker.hgetall}
            read |= {"set": broker.smembers, "zset": lambda k: broker.zrange(k, 0, -1)}
            seen.append((key, read[kind](key)))
    assert seen
    assert found_in(repr(seen).encode()) == []


def test_no_page_of_the_admin_shows_any(used):
    with signed_in(used) as session:
        pages = crawl(session, used.base_url)
    assert len(pages) > 20
    for address, text in pages.items():
        assert found_in(text) == [], address


def crawl(session: requests.Session, base: str) -> dict[str, bytes]:
    """Every page under the admin that links lead to."""
    pages: dict[str, bytes] = {}
    waiting = ["/admin/"]
    while waiting:
        path = waiting.pop()
        if path in pages or "logout" in path or "password_change" in path:
            continue
        answer = session.get(base + path, timeout=30)
        assert answer.status_code == 200, path
        pages[path] = answer.content
        for link in re.findall(rb'href="([^"#]+)"', answer.content):
            target = link.decode().replace("&amp;", "&")
            if target.startswith("?"):
                target = path.split("?")[0] + target
            # One filter or order at a time: their combinations show the same rows.
            target = target.split("?_changelist_filters=")[0]
            if target.startswith("/admin/") and target.count("=") <= 1 and len(pages) + len(waiting) < 150:
                waiting.append(target)
    return pages


def test_no_answer_of_the_api_shows_any_but_the_token(used):
    rows = used.call("GET", "/v1/secrets?per_page=100").json()["data"]
    for row in rows:
        for path in ("", "/oauth2" if row["secret_type"] == "oauth2" else ""):
            answer = used.call("GET", f"/v1/secrets/{row['id']}{path}")
            assert answer.status_code == 200, answer.text
            assert found_in(answer.content) == []
    assert found_in(used.call("GET", "/v1/secrets").content) == []
    replayed = used.call(
        "POST", "/v1/secrets", {"name": "s", "value": PLANTED["value"]}, headers={"X-Idempotency-Key": "leaks"}
    )
    assert replayed.headers["Idempotent-Replayed"] == "true"
    assert found_in(replayed.content) == []
