"""Whose account was connected: what is read of an `id_token` and of facts, and where people see it."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from oauth_app.models import Connection
from oauth_app.protocol.identity import Identity, account_name, read_id_token, shown, subject_of
from oauth_app.providers import PROVIDERS
from secrets_app.models import AuditEvent
from tests.factories import Caller, a_client, an_oauth2_secret


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def a_token(claims: Any) -> str:
    raw = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return f"{encoded(b'{}')}.{encoded(raw)}.sig"


@pytest.mark.parametrize(
    "token",
    [
        None,
        7,
        {},
        "",
        "..",
        "one",
        "one.two",
        "a.b.c.d",
        "a.!!!.c",
        "a.é.c",
        "a.e.c",
        a_token(b"\xff\xfe\xff"),
        a_token(b"not json"),
        a_token(b"1" * 5000),
        a_token(b"[" * 40_000),
        a_token([]),
        a_token("text"),
        a_token(None),
        a_token({"sub": "x" * 70_000}),
    ],
)
def test_what_is_no_identity_token_names_nobody(token):
    assert read_id_token(token) == Identity()


@pytest.mark.parametrize(
    ("claims", "subject", "name"),
    [
        ({"sub": "1", "email": "ada@example.com", "name": "Ada"}, "1", "ada@example.com"),
        ({"sub": "1", "name": "Ada", "preferred_username": "ada"}, "1", "ada"),
        ({"sub": "1", "upn": "ada@corp", "name": "Ada"}, "1", "ada@corp"),
        ({"sub": 7, "name": "Ada"}, "7", "Ada"),
        ({"sub": True, "email": ["ada@example.com"], "name": {"first": "Ada"}}, "", ""),
        ({"sub": "a\nb", "email": "ada\x00@example.com", "name": "Ada"}, "", "Ada"),
        # Right to left, a name would read as another.
        ({"sub": "1", "email": "ada\u202emoc.live@elpmaxe", "name": "a\u2028b"}, "1", ""),
        ({"sub": "\ud800", "name": ""}, "", ""),
        ({"sub": 10**40, "email": 1.5}, "", ""),
        ({"sub": "s" * 300, "email": "e" * 300}, "s" * 255, "e" * 255),
        ({}, "", ""),
    ],
)
def test_claims_are_taken_if_they_can_be_shown_and_the_best_name_first(claims, subject, name):
    assert read_id_token(a_token(claims)) == Identity(subject, name)


@given(st.text(max_size=80) | st.binary(max_size=80).map(a_token))
def test_any_text_is_an_identity_or_none(token):
    identity = read_id_token(token)
    assert shown(identity.subject) == identity.subject
    assert shown(identity.name) == identity.name


def test_an_identity_prints_nobody():
    assert "ada" not in repr(Identity("ada", "ada"))


@pytest.mark.parametrize(
    ("provider", "identity", "facts", "name", "subject"),
    [
        ("slack", Identity(), {"team": {"name": "Crew", "id": "T1"}}, "Crew", ""),
        ("slack", Identity(), {"team": {"id": "T1"}, "enterprise": {"name": "Corp"}}, "Corp", ""),
        ("slack", Identity(), {"team": "no object"}, "", ""),
        ("slack", Identity("U1", "ada@example.com"), {"team": {"name": "Crew"}}, "ada@example.com", "U1"),
        ("salesforce", Identity(), {"id": "https://login/id/1"}, "https://login/id/1", "https://login/id/1"),
        ("quickbooks", Identity(), {"realmId": "9341"}, "9341", "9341"),
        ("asana", Identity(), {"data": {"email": "ada@example.com", "gid": "12"}}, "ada@example.com", "12"),
        ("google", Identity("108"), {}, "108", "108"),
        ("github", Identity(), {"anything": "x"}, "", ""),
    ],
)
def test_an_account_is_named_by_its_token_or_by_the_providers_facts(provider, identity, facts, name, subject):
    preset = PROVIDERS[provider]
    assert (account_name(preset, identity, facts), subject_of(preset, identity, facts)) == (name, subject)


def consented(http: Any, connection: Connection, **brought: str) -> Any:
    """The page that somebody sees who consented; ``brought`` is added to what the provider sends the browser back with."""
    browser = Client()
    started = browser.get(f"/auth/oauth2/callback/{connection.secret_id}")
    back = urlsplit(http.get(started["Location"], allow_redirects=False).headers["Location"])
    query = {name: values[0] for name, values in parse_qs(back.query).items()} | brought
    page = browser.get(f"{back.path}?{urlencode(query)}")
    assert page.status_code == 200
    connection.refresh_from_db()
    return page


def state_of(caller: Caller, connection: Connection) -> Any:
    return caller.get(f"/v1/secrets/{connection.secret_id}/oauth2").json()["data"]


@pytest.mark.django_db
def test_who_consented_is_shown_on_the_page_in_the_api_and_in_the_audit_record(provider, http):
    provider.id_token = {"sub": "248289", "email": "<ada>@example.com"}
    caller = Caller()
    connection = an_oauth2_secret(caller, a_client(provider, scopes=("openid",)))
    page = consented(http, connection).content.decode()
    assert "&lt;ada&gt;@example.com" in page
    assert "<ada>" not in page
    assert state_of(caller, connection)["connected_as"] == "<ada>@example.com"
    assert AuditEvent.objects.get(action="consent.completed").details["connected_as"] == "<ada>@example.com"
    assert connection.subject == "248289"
    # A name is no key: what tells that two connections share a grant says nothing of whom.
    assert b"248289" not in bytes(connection.grant_digest)


@pytest.mark.django_db
def test_an_identity_token_that_cannot_be_read_connects_all_the_same(provider, http):
    provider.extra = {"id_token": "a.!!!.c"}
    caller = Caller()
    connection = an_oauth2_secret(caller, a_client(provider))
    consented(http, connection)
    assert state_of(caller, connection)["connected_as"] is None
    assert (connection.subject, connection.grant_digest) == ("", None)


@pytest.mark.django_db
def test_a_company_that_the_redirect_names_is_kept_among_the_facts(provider, http):
    caller = Caller()
    connection = an_oauth2_secret(caller, replace(a_client(provider), provider="quickbooks", pkce=False))
    page = consented(http, connection, realmId="9341452", junk="x")
    assert "9341452" in re.sub(r"<[^>]+>", " ", page.content.decode())
    data = state_of(caller, connection)
    assert (data["connected_as"], data["metadata"]) == ("9341452", {"realmId": "9341452"})
    assert connection.grant_digest is not None
