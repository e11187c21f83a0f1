"""`/healthz`."""

from __future__ import annotations

import pytest
from django.db import InterfaceError, OperationalError

from knoxcall import health


@pytest.mark.parametrize("host", ["localhost", "10.0.0.7:8000"])
def test_a_vault_whose_database_answers_is_healthy(db, client, host):
    answer = client.get("/healthz", headers={"host": host})
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert answer["Cache-Control"] == "no-store"


@pytest.mark.parametrize("error", [OperationalError("planted"), InterfaceError("planted")])
def test_a_vault_whose_database_is_away_is_not(client, monkeypatch, error):
    class Away:
        def cursor(self):
            raise error

    monkeypatch.setattr(health, "connection", Away())
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["status"] == "unavailable"
    assert answer["Cache-Control"] == "no-store"
    assert "planted" not in answer.content.decode()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_health_is_only_read(client, method):
    assert client.generic(method, "/healthz").status_code == 405
