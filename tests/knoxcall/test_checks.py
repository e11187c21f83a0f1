"""The numbered checks: each finds what it is for, and a sound production passes."""

from __future__ import annotations

import base64
import ipaddress

import pytest
from django.core.checks import Tags, run_checks
from django.core.exceptions import ImproperlyConfigured

from knoxcall.checks import check_master_keys, check_production, is_loopback, refuse_unsafe_settings

pytestmark = pytest.mark.django_db

SOUND = {
    "EMBEDDED": False,
    "KNOXCALL_BASE_URL": "https://vault.example",
    "SECRET_KEY": "abcdefghij" * 5,
    "VALKEY_SOCKET": None,
    "REDIS_URL": "rediss://broker.example",
    "KNOXCALL_OUTBOUND_ALLOW": [],
    "KNOXCALL_TRUSTED_PROXIES": [ipaddress.ip_network("10.0.0.0/8")],
    "DEBUG": False,
    "KNOXCALL_MASTER_KEYS": "k1:" + base64.b64encode(b"1" * 32).decode(),
}


@pytest.fixture
def production(settings):
    for name, value in SOUND.items():
        setattr(settings, name, value)
    return settings


def networks(*texts: str) -> list:
    return [ipaddress.ip_network(text) for text in texts]


def found() -> list[str]:
    return [message.id for message in [*check_production(None), *check_master_keys(None)]]


def test_a_sound_production_passes(production):
    assert found() == []
    refuse_unsafe_settings()


@pytest.mark.parametrize(
    ("changed", "number"),
    [
        ({"KNOXCALL_BASE_URL": "http://vault.example"}, "knoxcall.E001"),
        ({"KNOXCALL_BASE_URL": "http://10.0.0.1:8000"}, "knoxcall.E001"),
        ({"KNOXCALL_BASE_URL": "http://localhost.example"}, "knoxcall.E001"),
        ({"SECRET_KEY": "short"}, "knoxcall.E002"),
        ({"SECRET_KEY": "x" * 60}, "knoxcall.E002"),
        ({"VALKEY_SOCKET": "/anywhere/valkey.sock", "REDIS_URL": "unix:///anywhere/valkey.sock"}, "knoxcall.E003"),
        ({"KNOXCALL_OUTBOUND_ALLOW": networks("0.0.0.0/0")}, "knoxcall.E004"),
        ({"KNOXCALL_OUTBOUND_ALLOW": networks("10.0.0.0/8", "::/0")}, "knoxcall.E004"),
        ({"KNOXCALL_TRUSTED_PROXIES": networks("0.0.0.0/0")}, "knoxcall.E005"),
        ({"KNOXCALL_TRUSTED_PROXIES": networks("::/0")}, "knoxcall.E005"),
        ({"DEBUG": True}, "knoxcall.E006"),
        ({"KNOXCALL_MASTER_KEYS": ""}, "knoxcall.E007"),
        ({"KNOXCALL_MASTER_KEYS": "k1:short"}, "knoxcall.E007"),
    ],
)
def test_an_unsafe_setting_is_found_and_refused(production, changed, number):
    for name, value in changed.items():
        setattr(production, name, value)
    assert found() == [number]
    with pytest.raises(ImproperlyConfigured, match=number):
        refuse_unsafe_settings()


def test_a_broker_of_its_own_beside_a_long_data_directory_is_found(production, tmp_path):
    # Where the data directory's name is too long for a socket, that one is elsewhere.
    production.VALKEY_SOCKET = tmp_path / "knoxcall-0-0123456789abcdef" / "valkey.sock"
    production.REDIS_URL = f"unix://{production.VALKEY_SOCKET}"
    assert found() == ["knoxcall.E003"]


def test_loopback_exempt_from_the_filter_is_a_warning_and_no_refusal(production):
    production.KNOXCALL_OUTBOUND_ALLOW = networks("127.0.0.0/8")
    assert found() == ["knoxcall.W001"]
    refuse_unsafe_settings()


def test_loopback_exempt_from_the_filter_is_fine_on_one_machine(production):
    production.KNOXCALL_OUTBOUND_ALLOW = networks("127.0.0.0/8")
    production.KNOXCALL_BASE_URL = "http://localhost:8000"
    assert found() == []


@pytest.mark.parametrize(
    "base", ["http://localhost:8000", "http://127.0.0.1", "http://[::1]:8000", "https://v.example"]
)
def test_plain_http_is_let_through_on_a_loopback_host_only(production, base):
    production.KNOXCALL_BASE_URL = base
    assert found() == []


def test_the_embedded_default_is_not_production(production):
    production.EMBEDDED = True
    production.DEBUG = True
    production.KNOXCALL_BASE_URL = "http://vault.example"
    assert found() == []


def test_bad_root_keys_are_refused_in_the_embedded_default_too(production):
    production.EMBEDDED = True
    production.KNOXCALL_MASTER_KEYS = "nonsense"
    with pytest.raises(ImproperlyConfigured) as caught:
        refuse_unsafe_settings()
    assert "nonsense" not in str(caught.value)


def test_every_error_is_named_at_once(production):
    production.DEBUG = True
    production.SECRET_KEY = "short"
    with pytest.raises(ImproperlyConfigured) as caught:
        refuse_unsafe_settings()
    assert "E002" in str(caught.value)
    assert "E006" in str(caught.value)


def test_the_checks_are_run_by_check_deploy(production):
    production.DEBUG = True
    messages = run_checks(tags=[Tags.security], include_deployment_checks=True)
    assert "knoxcall.E006" in [message.id for message in messages]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("", False),
    ],
)
def test_what_can_only_mean_this_machine(host, loopback):
    assert is_loopback(host) is loopback
