"""Secrets planted everywhere, and everything that is left searched for them: database, log at DEBUG, broker, pages, spool."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import requests

from oauth_app.fake_provider import Answer, FakeProvider
from tests.support.browser import Browser
from tests.support.certificates import chain
from tests.support.vaults import Vault, running_vault

LEAF = chain()[0]
PLANTED = {
    "value": "planted-value-7f3a",
    "client_id": "planted-client-id-7f3a",
    "client_secret": "planted-client-secret-7f3a",
    "username": "planted-username-7f3a",
    "password": "planted-password-7f3a",
    "token_param": "planted-token-param-7f3a",
    "bad_secret": "planted-bad-secret-7f3a",
    "certificate_content": "planted-content-7f3a",
    "private_key": "planted-key-7f3a",
    "key_line": LEAF.key_pem().split("\n")[1],
    "passphrase": "planted-passphrase-7f3a",
    "access": "fake-access-",
    "refresh": "fake-refresh-",
    "code": "fake-code-",
}


def found_in(text: bytes) -> list[str]:
    return [name for name, planted in PLANTED.items() if planted.encode() in text]


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(
        client_id=PLANTED["client_id"],
        client_secret=PLANTED["client_secret"],
        username=PLANTED["username"],
        password=PLANTED["password"],
        expires_in=3,
    ) as fake:
        yield fake


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider) -> Iterator[Vault]:
    """A vault of its own that has seen every way in which a secret comes to it, successes and failures."""
    env = {"KNOXCALL_LOG_LEVEL": "DEBUG"}
    with running_vault(tmp_path_factory.mktemp("leaks") / "data", env) as vault:
        use(vault, provider)
        yield vault


def use(vault: Vault, provider: FakeProvider) -> None:
    client = {
        "provider": "custom",
        "client_id": PLANTED["client_id"],
        "client_secret": PLANTED["client_secret"],
        "auth_url": provider.authorize_url,
        "token_url": provider.token_url,
        "token_params": {"planted": PLANTED["token_param"]},
    }
    keyed = {"headers": {"X-Idempotency-Key": "leaks"}}
    assert vault.call("POST", "/v1/secrets", {"name": "s", "value": PLANTED["value"]}, **keyed).status_code == 201
    file = {
        "certificate_content": f"{PLANTED['certificate_content']}\n{LEAF.pem}",
        "private_key": f"{PLANTED['private_key']}\n{LEAF.key_pem()}",
        "passphrase": PLANTED["passphrase"],
    }
    certificate = vault.call("POST", "/v1/secrets/certificate", {"name": "certificate", **file}).json()["data"]
    assert vault.call("PUT", f"/v1/secrets/{certificate['id']}/certificate", file).status_code == 200
    machine = vault.create_oauth2(name="machine", grant_type="client_credentials", **client)
    person = {"username": PLANTED["username"], "password": PLANTED["password"]}
    by_password = vault.create_oauth2(name="password", grant_type="password", **person, **client)
    by_consent = vault.create_oauth2(name="consent", **client)
    page = Browser().open(by_consent["redirect_uri"])
    assert page.status == 200, page.text
    for made in (machine, by_password, by_consent):
        token = vault.token(made["id"], "?force_refresh=true")
        assert token["access_token"].startswith(PLANTED["access"])
    # The failures, where values tend to be quoted: bad bodies, refused clients, providers that repeat what they got.
    bad = {
        **client,
        "client_secret": PLANTED["bad_secret"],
        "password": PLANTED["bad_secret"],
        "grant_type": "password",
    }
    assert vault.call("POST", "/v1/secrets/oauth2", {"name": "bad", **bad}).status_code == 400
    assert vault.call("POST", "/v1/secrets", {"name": "bad", "value": [PLANTED["value"]]}).status_code == 400
    broken = f'{{"name": "x", "value": "{PLANTED["value"]}'
    assert (
        vault.call("POST", "/v1/secrets", data=broken, headers={"Content-Type": "application/json"}).status_code == 400
    )
    for field in ("certificate_content", "private_key"):
        bad_file = {"name": "bad", **file, field: f"{LEAF.pem}{PLANTED[field]}"}
        assert vault.call("POST", "/v1/secrets/certificate", bad_file).status_code == 400
    echo = Answer.json({"error": "fake-refresh-echo", "error_description": PLANTED["client_secret"]}, status=400)
    provider.next(echo, times=3, endpoint="token")
    time.sleep(3)
    vault.call("GET", f"/v1/secrets/{by_consent['id']}/oauth2/token?force_refresh=true")
    provider.revoke_grants()
    vault.call("GET", f"/v1/secrets/{by_consent['id']}/oauth2/token?force_refresh=true")
    denied = vault.create_oauth2(name="denied", **client)
    provider.next(echo, endpoint="token")
    Browser().open(denied["redirect_uri"])
    # The worker has refreshed some of it meanwhile.
    time.sleep(2)


def test_the_search_would_find_them():
    assert found_in(b"a planted-value-7f3a b") == ["value"]


def test_the_database_holds_none_in_the_clear(used):
    assert found_in(dump(used)) == []


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
            assert not path.is_file() or found_in(path.read_bytes()) == [], path


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
    name, password = used.house.operator
    with requests.Session() as session:
        session.trust_env = False
        login = f"{used.base_url}/admin/login/"
        session.get(login)
        form = {"username": name, "password": password, "csrfmiddlewaretoken": session.cookies["csrftoken"]}
        session.post(login, data=form, headers={"Referer": login})
        pages = crawl(session, used.base_url)
    assert len(pages) > 20
    for address, text in pages.items():
        assert found_in(text) == [], address


def crawl(session: requests.Session, base: str) -> dict[str, bytes]:
    """Every page under the admin that links lead to."""
    import re

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
        answer = used.call("GET", f"/v1/secrets/{row['id']}")
        assert found_in(answer.content) == []
    assert found_in(used.call("GET", "/v1/secrets").content) == []
    replayed = used.call(
        "POST", "/v1/secrets", {"name": "s", "value": PLANTED["value"]}, headers={"X-Idempotency-Key": "leaks"}
    )
    assert replayed.headers["Idempotent-Replayed"] == "true"
    assert found_in(replayed.content) == []
