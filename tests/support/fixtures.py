"""Fixtures for the providers, the browser and a plain client, to be loaded as a plugin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from oauth_app.fake_provider import FakeProvider
from tests.support.browser import Browser
from tests.support.dot_provider import DotProvider
from tests.support.person import Person


@pytest.fixture(scope="session")
def dot() -> Iterator[DotProvider]:
    """A real OAuth2 server in a process of its own, shared: each test makes its own applications and users."""
    with DotProvider() as server:
        yield server


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """A provider that does what the test tells it, in a thread."""
    with FakeProvider() as fake:
        yield fake


@pytest.fixture
def browser() -> Browser:
    return Browser()


@pytest.fixture
def person(http: requests.Session) -> Person:
    return Person(http)


@pytest.fixture
def http() -> Iterator[requests.Session]:
    """A client that takes neither proxies nor certificates from the environment."""
    with requests.Session() as session:
        session.trust_env = False
        yield session
