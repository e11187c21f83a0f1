"""A client of the fake provider: its token requests, and its way through consent."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

from oauth_app.fake_provider import FakeProvider
from tests.support.fake_provider_process import FakeProviderProcess

REDIRECT_URI = "http://127.0.0.1:1/callback?keep=this"


def ask(http: requests.Session, provider: FakeProvider | FakeProviderProcess, **form: str) -> requests.Response:
    credentials = {"client_id": "fake-client", "client_secret": "fake-client-secret"}
    return http.post(provider.token_url, data=credentials | form, timeout=5)


def sign_in(http: requests.Session, provider: FakeProvider | FakeProviderProcess) -> dict[str, Any]:
    return ask(http, provider, grant_type="password", username="fake-user", password="fake-password").json()


def refresh(
    http: requests.Session, provider: FakeProvider | FakeProviderProcess, tokens: dict[str, Any]
) -> requests.Response:
    return ask(http, provider, grant_type="refresh_token", refresh_token=tokens["refresh_token"])


def consent(http: requests.Session, provider: FakeProvider, **parameters: str) -> dict[str, str]:
    """The parameters that the redirect after consent carries."""
    query = {"client_id": "fake-client", "redirect_uri": REDIRECT_URI, "response_type": "code", "state": "s"}
    answer = http.get(provider.authorize_url, params=query | parameters, allow_redirects=False, timeout=5)
    assert answer.status_code == 302
    url = urlsplit(answer.headers["Location"])
    return {name: value for name, [value] in parse_qs(url.fragment or url.query).items()}
