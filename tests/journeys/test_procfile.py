"""The Procfile's lines as they stand, started by hand one by one, on PostgreSQL and Redis: and a token read through them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import requests

from oauth_app.fake_provider import FakeProvider
from tests.support.house import BASE_DIR
from tests.support.procfile import running_procfile
from tests.support.services import free_port
from tests.support.vaults import production_environment


def test_release_web_worker_and_beat_serve_a_token_and_keep_it_fresh(tmp_path: Path, http: requests.Session):
    port = free_port()
    with production_environment() as services, FakeProvider(expires_in=4) as provider:
        env = {
            **services,
            "PORT": str(port),
            "KNOXCALL_BASE_URL": f"http://localhost:{port}",
            "KNOXCALL_OUTBOUND_ALLOW": "127.0.0.0/8",
        }
        with running_procfile(tmp_path, env) as vault:
            command = [sys.executable, "manage.py", "create_account", "acme", "--plan", "pro", "--json"]
            made = subprocess.run(command, cwd=BASE_DIR, env=vault.env, check=True, capture_output=True, text=True)
            http.headers["Authorization"] = f"Bearer {json.loads(made.stdout)['api_key']}"
            body = {
                "name": "crm",
                "provider": "custom",
                "client_id": provider.client_id,
                "client_secret": provider.client_secret,
                "grant_type": "client_credentials",
                "token_url": provider.token_url,
            }
            created = http.post(f"{vault.base_url}/v1/secrets/oauth2", json=body, timeout=30)
            assert created.status_code == 201, created.text
            path = f"{vault.base_url}/v1/secrets/{created.json()['data']['id']}/oauth2/token"
            deadline = time.monotonic() + 30
            # The worker renews it: every read finds it valid.
            while (data := http.get(path, timeout=30).json()["data"])["generation"] < 4:
                assert data["connection_status"] == "connected"
                assert time.monotonic() < deadline, vault.output
                time.sleep(0.2)
            assert provider.is_live(data["access_token"])
            assert provider.count("client_credentials") == data["generation"]
