"""The official Python client, unchanged, in an environment of its own."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import chain
from tests.support.house import BASE_DIR, environment
from tests.support.vaults import Vault

CLIENT = BASE_DIR / ".venv-client" / "bin" / "python"
LEAF = chain()[0]
SCRIPT = Path(__file__).with_name("official_client.py")


def manage(vault: Vault, *arguments: str) -> str:
    """Run a command beside the vault, on its data."""
    env = environment(vault.house.data_dir, vault.house.port, vault.env)
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(command, cwd=BASE_DIR, env=env, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def mark() -> str:
    return secrets.token_hex(4)


@pytest.fixture(scope="module")
def seen(vault: Vault, mark: str) -> dict[str, Any]:
    """What the client saw, driven once through all its calls."""
    from oauth_app.fake_provider import FakeProvider

    created = json.loads(manage(vault, "create_account", f"free-{mark}", "--plan", "free", "--json"))
    assert created["account"]["subscription_plan"] == "free"
    with FakeProvider() as provider:
        oauth2 = {
            "name": f"client {mark}",
            "provider": "custom",
            "client_id": provider.client_id,
            "client_secret": provider.client_secret,
            "grant_type": "client_credentials",
            "auth_url": provider.authorize_url,
            "token_url": provider.token_url,
            "scopes": ["read"],
        }
        settings = {
            "oauth2": oauth2,
            "unconnected": {**oauth2, "name": f"unconnected {mark}", "grant_type": "authorization_code"},
            "string_name": f"string {mark}",
            "certificate": {
                "name": f"certificate {mark}",
                "certificate_content": LEAF.pkcs12("a passphrase"),
                "certificate_type": "pfx",
                "passphrase": "a passphrase",
            },
            "environment": {"name": f"stage-{mark}", "is_default": False},
            "free_key": created["api_key"],
        }
        ran = subprocess.run(
            [CLIENT, SCRIPT, vault.base_url, vault.api_key, json.dumps(settings)],
            env={"PATH": os.environ["PATH"], "HOME": str(vault.house.data_dir), "KNOXCALL_AUTOSTART": "off"},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ran.returncode == 0, ran.stderr
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


def test_it_creates_an_oauth2_secret(seen, mark, vault):
    made = seen["create_oauth2"]
    assert made["name"] == f"client_{mark}"
    assert made["connection_status"] == "connected"
    assert made["redirect_uri"] == f"{vault.base_url}/auth/oauth2/callback/{made['id']}"


def test_it_creates_a_string(seen):
    assert seen["create"]["secret_type"] == "string"
    assert seen["create"]["environment_count"] == 1
    assert "planted-value" not in json.dumps(seen)


def test_it_creates_a_certificate(seen):
    made = seen["create_certificate"]
    assert (made["secret_type"], made["certificate_type"]) == ("certificate", "pfx")
    assert made["metadata"]["subject"] == "CN=leaf"
    assert made["metadata"]["has_private_key"] is True
    assert "a passphrase" not in json.dumps(seen)


def test_it_creates_and_lists_environments(seen, mark):
    assert seen["create_environment"]["name"] == f"stage-{mark}"
    assert {"production", f"stage-{mark}"} <= {row["name"] for row in seen["environments"]}


def test_it_lists_and_iterates(seen, mark):
    assert set(seen["list"]["meta"]) == {"total", "page", "per_page", "total_pages", "request_id"}
    assert len(seen["list"]["data"]) == 2
    assert len(seen["iterate"]) == seen["list"]["meta"]["total"]
    assert seen["iterate"] == sorted(seen["iterate"])
    assert {f"client_{mark}", f"string_{mark}"} <= set(seen["iterate"])


def test_it_gets_one_with_its_environments(seen):
    assert [e["environment_name"] for e in seen["get"]["environments"]] == ["production"]


def test_it_reads_the_token(seen):
    assert seen["token"]["access_token"].startswith("fake-access-")
    assert seen["token"]["token_type"] == "Bearer"
    assert seen["token"]["connection_status"] == "connected"
    assert seen["token_in"]["access_token"] == seen["token"]["access_token"]


def test_it_deletes(seen):
    assert seen["delete"] is None
    assert seen["after_delete"]["class"] == "NotFoundError"


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        ("400", "KnoxCallError", "validation_error"),
        ("401", "AuthenticationError", "unauthorized"),
        ("403", "PermissionDeniedError", "plan_limit"),
        ("404", "NotFoundError", "not_found"),
        ("409", "ConflictError", "conflict"),
        ("500", "ServerError", "token_error"),
    ],
)
def test_its_typed_errors(seen, status, error, code):
    assert (seen[status]["class"], seen[status]["status"], seen[status]["code"]) == (error, int(status), code)
    assert seen[status]["request_id"]


def test_a_token_error_says_why(seen):
    assert seen["500"]["body"]["error"]["reason"] == "not_connected"
