"""Somebody with a browser, in process: opens our pages, consents at the fake provider, and comes back with what it sends."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from django.conf import settings
from django.test import Client

from oauth_app.models import Connection
from tests.support.browser import FORM_ENCODED


class Person:
    """One browser profile. Nothing follows a redirect by itself, and no script runs but where it is said."""

    def __init__(self, http: Any) -> None:
        self.client = Client()
        self.http = http

    def start(self, connection: Connection) -> Any:
        return self.client.get(f"/auth/oauth2/callback/{connection.secret_id}")

    def open(self, address: str) -> Any:
        """Open an address of ours."""
        parts = urlsplit(address)
        return self.client.get(f"{parts.path}?{parts.query}")

    def at_provider(self, started: Any) -> str:
        """Where the provider sends the browser back to."""
        address: str = self.http.get(started["Location"], allow_redirects=False).headers["Location"]
        return address

    def consent(self, connection: Connection) -> Any:
        return self.open(self.at_provider(self.start(connection)))

    def consent_by(self, link: str) -> Any:
        return self.open(self.at_provider(self.open(link)))

    def hand_over(self, address: str, *, fragment: str | None = None, **headers: str | None) -> Any:
        """What the implicit grant's script does: post the fragment of ``address`` to it. A header of ``None`` is not sent."""
        parts = urlsplit(address)
        sent = {"Origin": settings.KNOXCALL_BASE_URL, **headers}
        return self.client.generic(
            "POST",
            parts.path,
            (parts.fragment if fragment is None else fragment).encode(),
            content_type=FORM_ENCODED,
            headers={name: value for name, value in sent.items() if value is not None},
        )


def text_of(page: Any) -> str:
    """What a page shows, without its markup."""
    return re.sub(r"<[^>]+>", " ", page.content.decode())


def query_of(address: str) -> dict[str, str]:
    """The parameters of an address; of one that comes twice the first."""
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


def changed(address: str, **parameters: str | None) -> str:
    """``address`` with other parameters; without those that are ``None``."""
    query = {**query_of(address), **parameters}
    kept = {name: value for name, value in query.items() if value is not None}
    return urlsplit(address)._replace(query=urlencode(kept)).geturl()
