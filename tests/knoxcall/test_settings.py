"""What settings make of the environment."""

from __future__ import annotations

import runpy

import pytest

from knoxcall import settings as loaded


@pytest.mark.parametrize(
    ("given", "base_url"),
    [
        ("https://Vault.Example.com/", "https://vault.example.com"),
        ("https://vault.example.com:443", "https://vault.example.com"),
        ("HTTP://localhost:80", "http://localhost"),
        ("https://vault.example.com:8443", "https://vault.example.com:8443"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_the_base_url_is_the_origin_that_browsers_name(monkeypatch, given, base_url):
    monkeypatch.setenv("KNOXCALL_BASE_URL", given)
    assert runpy.run_path(loaded.__file__)["KNOXCALL_BASE_URL"] == base_url
