"""What happens around every request: its id, who sent it, and the headers of every answer."""

from __future__ import annotations

import ipaddress
import logging
import re
import uuid

import pytest
from django.http import HttpResponse
from django.test import Client, RequestFactory

from knoxcall.context import request_id
from knoxcall.middleware import API_VERSION, TrustedProxyMiddleware
from tests.factories import Caller


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


# Request ids


@pytest.mark.parametrize("offered", ["a", "x" * 128, "A-z_0.9", "0b8f5a1e-5d0c-4c55-b2a7-3e0f9a1c7d42"])
def test_a_well_formed_request_id_is_taken_over(client, offered):
    answer = client.get("/v1/nowhere", headers={"X-Request-Id": offered})
    assert answer["X-Request-Id"] == answer.json()["error"]["request_id"] == offered


@pytest.mark.parametrize("offered", ["", "x" * 129, "a b", "a\nb", "ä", "a/b", "<b>", "a:b", "a\x00"])
def test_any_other_request_id_is_replaced(client, offered):
    answer = client.get("/v1/nowhere", headers={"X-Request-Id": offered})
    assert uuid.UUID(answer["X-Request-Id"]).version == 4


def test_every_request_gets_an_id_of_its_own(client):
    assert client.get("/v1/nowhere")["X-Request-Id"] != client.get("/v1/nowhere")["X-Request-Id"]


@pytest.mark.parametrize("path", ["/", "/healthz", "/nowhere", "/admin/", "/v1/secrets"])
def test_every_answer_has_a_request_id(db, client, path):
    assert client.get(path)["X-Request-Id"]


def test_after_the_request_its_id_is_gone(client):
    client.get("/v1/nowhere")
    assert request_id.get() == "-"


# Proxies


@pytest.fixture
def seen(settings):
    """What the rest of the vault takes for the caller's address, and whether it came over https."""
    settings.KNOXCALL_TRUSTED_PROXIES = [ipaddress.ip_network(n) for n in ("10.0.0.0/8", "::1/128")]

    def seen(peer: str, **headers: str) -> tuple[str, bool]:
        found = []

        def look(request):
            found.append((request.META["REMOTE_ADDR"], request.is_secure()))
            return HttpResponse()

        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        TrustedProxyMiddleware(look)(RequestFactory().get("/", REMOTE_ADDR=peer, headers=sent))
        return found[0]

    return seen


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("::1", "2001:db8::7", "2001:db8::7"),
        ("10.0.0.1", " 203.0.113.7 ,", "203.0.113.7"),
        ("10.0.0.1", "203.0.113.7, nonsense", "10.0.0.1"),
        ("10.0.0.1", "nonsense, 203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "203.0.113.7:4711", "10.0.0.1"),
        ("10.0.0.1", "fe80::1%eth0", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("192.0.2.1", "203.0.113.7", "192.0.2.1"),
        ("2001:db8::1", "203.0.113.7", "2001:db8::1"),
        ("", "203.0.113.7", ""),
        ("nonsense", "203.0.113.7", "nonsense"),
    ],
)
def test_the_callers_address_is_the_last_one_that_is_no_trusted_proxy(seen, peer, forwarded, address):
    assert seen(peer, X_Forwarded_For=forwarded)[0] == address


@pytest.mark.parametrize(
    ("peer", "proto", "secure"),
    [
        ("10.0.0.1", "https", True),
        ("10.0.0.1", " HTTPS ", True),
        ("10.0.0.1", "http", False),
        ("10.0.0.1", "nonsense", False),
        ("192.0.2.1", "https", False),
    ],
)
def test_the_scheme_is_believed_of_a_trusted_proxy_only(seen, peer, proto, secure):
    assert seen(peer, X_Forwarded_Proto=proto)[1] is secure


# Headers


@pytest.mark.parametrize("path", ["/v1", "/v1/secrets", "/v1/nowhere"])
def test_answers_of_the_api_are_not_stored_and_name_the_version(caller, path):
    for answer in (caller.get(path), Client().get(path)):
        assert answer["Cache-Control"] == "no-store"
        assert answer["KnoxCall-Version"] == API_VERSION == "2026-08-05"


def test_the_version_may_be_asked_for(caller):
    assert caller.get("/v1/secrets", KnoxCall_Version="2026-08-05").status_code == 200


@pytest.mark.parametrize("version", ["2026-08-06", "1", "", "latest"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_version_is_400(caller, method, version):
    answer = caller.request(method, "/v1/secrets", {"name": "x", "value": "y"}, KnoxCall_Version=version)
    assert answer.status_code == 400
    assert set(answer.json()["fields"]) == {"KnoxCall-Version"}
    assert caller.get("/v1/secrets").json()["meta"]["total"] == 0


@pytest.mark.parametrize("path", ["/", "/nowhere", "/auth/oauth2/callback/00000000-0000-4000-8000-000000000000"])
def test_pages_run_no_script_and_are_framed_by_nobody(db, client, path):
    policy = client.get(path)["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_the_admin_runs_scripts_from_our_origin_only(db, client):
    policy = client.get("/admin/login/")["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


def test_the_api_has_a_policy_too(caller):
    assert "default-src 'none'" in caller.get("/v1/secrets")["Content-Security-Policy"]


def test_no_answer_may_be_sniffed_or_framed(db, client):
    for path in ("/", "/v1/nowhere", "/admin/login/"):
        answer = client.get(path)
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert answer["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize(
    ("path", "status"), [("/", 301), ("/admin/", 301), ("/v1", 404), ("/v1/secrets", 401), ("/healthz", 200)]
)
def test_https_is_asked_for_by_redirect_except_of_the_api(db, settings, path, status):
    settings.SECURE_SSL_REDIRECT = True
    assert Client().get(path).status_code == status


# The log


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "knoxcall.middleware"]

    return lines


def test_the_log_has_one_line_per_request_with_the_path_and_without_the_query(caller, lines):
    caller.get("/v1/secrets?name=planted&code=planted")
    (line,) = lines()
    assert re.fullmatch(r"GET /v1/secrets 200 \d+ ms", line)


def test_a_callback_leaves_no_code_and_no_state_in_the_log(db, client, caplog):
    caplog.set_level(logging.DEBUG)
    client.get("/auth/oauth2/callback/00000000-0000-4000-8000-000000000000?code=planted-code&state=planted-state")
    assert "planted" not in caplog.text


def test_no_key_is_in_the_log(caller, caplog):
    caplog.set_level(logging.DEBUG)
    caller.get("/v1/secrets")
    caller.post("/v1/secrets", {"name": "x", "value": "planted"})
    caller.get("/v1/secrets", X_Api_Key=caller.key)
    assert caller.key not in caplog.text
    assert "planted" not in caplog.text
