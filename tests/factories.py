"""Things that tests are about, made through the core, so that sealed fields are really sealed."""

from __future__ import annotations

import itertools
import json
import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from django.db.models.functions import Now
from django.test import Client

from billing_app.accounts import create_account
from billing_app.models import Account
from knoxcall.api.idempotency import NoKey
from oauth_app.authorize import Started, create_link, start_bare, start_by_link
from oauth_app.complete import Callback, complete
from oauth_app.configure import Configuration
from oauth_app.models import Connection, GrantType
from oauth_app.protocol.client import OAuthClient
from oauth_app.providers import CUSTOM, PROVIDERS
from oauth_app.registrations import create_oauth2_secret
from secrets_app.api_keys import create_api_key
from secrets_app.audit import Actor
from secrets_app.certificate_files.reading import read
from secrets_app.certificates import ParsedCertificate, create_certificate, parsed_from
from secrets_app.crypto.cipher import Plaintext
from secrets_app.models import ApiKey, Certificate, Mode, Secret
from secrets_app.vault import NewSecret, Scope, create_string
from tests.support.certificates import Issued, chain

_numbers = itertools.count(1)


def an_account(*, plan: str = "pro", slug: str | None = None) -> Account:
    return create_account(slug or f"account-{next(_numbers)}-{uuid.uuid4().hex[:8]}", plan=plan)


class Caller:
    """Somebody with an API key: speaks JSON to the API in process."""

    def __init__(
        self, account: Account | None = None, *, mode: str = Mode.LIVE, role: str = ApiKey.Role.EDITOR
    ) -> None:
        self.account = account or an_account()
        self.row, self.key = create_api_key(self.account.pk, name="test", mode=mode, role=role)
        self.client = Client(raise_request_exception=False)

    @property
    def scope(self) -> Scope:
        return Scope(self.account.pk, self.row.mode, Actor(self.row.key_id))

    def get(self, path: str, **headers: str) -> Any:
        return self.request("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Any:
        return self.request("POST", path, body, **headers)

    def patch(self, path: str, body: Any, **headers: str) -> Any:
        return self.request("PATCH", path, body, **headers)

    def delete(self, path: str, **headers: str) -> Any:
        return self.request("DELETE", path, **headers)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """``headers`` with underscores for hyphens; ``body`` is sent as JSON, bytes as they are."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        content_type = sent.pop("Content-Type", "application/json")
        return self.client.generic(
            method,
            path,
            b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode(),
            content_type=content_type,
            headers={"Authorization": f"Bearer {self.key}", **sent},
        )


def a_string(caller: Caller, name: str = "a-string", value: str = "plain", **further: Any) -> Secret:
    return create_string(caller.scope, NewSecret(name=name, **further), Plaintext(value), attempt=NoKey())


def a_certificate(
    caller: Caller,
    issued: Issued | None = None,
    name: str = "a-certificate",
    *,
    passphrase: str | None = None,
    key: bool = True,
    **further: Any,
) -> Certificate:
    """A certificate secret with the key of ``issued``, by default the chain's leaf, read in this process: it is quicker."""
    parsed = a_parsed_certificate(issued or chain()[0], passphrase=passphrase, key=key)
    secret = create_certificate(caller.scope, NewSecret(name=name, **further), parsed, attempt=NoKey())
    return Certificate.objects.get(secret=secret)


def a_parsed_certificate(issued: Issued, *, passphrase: str | None = None, key: bool = True) -> ParsedCertificate:
    private_key = issued.key_pem(passphrase) if key else None
    return parsed_from(
        read(issued.pem, certificate_type="pem", private_key=private_key, passphrase=passphrase),
        content=issued.pem,
        certificate_type="pem",
        passphrase=passphrase,
    )


def a_client(provider: Any, **further: Any) -> OAuthClient:
    """A client of the fake ``provider``; authorization code unless told otherwise."""
    values = {
        "provider": "custom",
        "grant_type": "authorization_code",
        "client_id": provider.client_id,
        "client_secret": provider.client_secret,
        "auth_url": provider.authorize_url,
        "token_url": provider.token_url,
    } | further
    if values["grant_type"] == "password":
        values = {"username": provider.username, "password": provider.password, **values}
    return OAuthClient(**values)


def a_preset_client(name: str, provider: Any, **given: Any) -> OAuthClient:
    """A client with all that the preset ``name`` says, but the addresses of the fake ``provider``; authorization code."""
    credentials = {"client_id": provider.client_id, "client_secret": provider.client_secret}
    addresses = {"auth_url": provider.authorize_url, "token_url": provider.token_url}
    if name == CUSTOM:
        return a_client(provider, **given)
    configuration = Configuration(PROVIDERS[name], GrantType.AUTHORIZATION_CODE, {**credentials, **given})
    return replace(configuration.client(uuid.uuid4()), **addresses)


def an_oauth2_secret(
    caller: Caller,
    client: OAuthClient,
    name: str = "an-oauth2",
    *,
    certificate: Certificate | None = None,
    **further: Any,
) -> Connection:
    """The connection of a new OAuth2 secret in its base environment."""
    secret = create_oauth2_secret(
        caller.scope, NewSecret(name=name, **further), client, certificate=certificate, attempt=NoKey()
    )
    return Connection.objects.get(secret=secret)


def consent(connection: Connection, browser: Any) -> Connection:
    """Let a person consent to ``connection`` at the fake provider, by the bare start; returns the row as it is after that."""
    return _consented(connection, browser, start_bare(connection.secret_id, actor=Actor("browser")))


def consent_by_link(
    caller: Caller, connection: Connection, browser: Any, *, environment: str | None = None
) -> Connection:
    """The same by a consent link; returns the connection of ``environment``, the base environment unless named."""
    link = create_link(caller.scope, connection.secret_id, environment=environment)
    token = query_of(link.url)["link"]
    return _consented(link.connection, browser, start_by_link(token, actor=Actor("browser")))


def _consented(connection: Connection, browser: Any, started: Any) -> Connection:
    assert isinstance(started, Started), started
    answer = browser.get(started.url, allow_redirects=False)
    callback = Callback.of(query_of(answer.headers["Location"]))
    outcome = complete(connection.secret_id, callback, cookie=started.cookie_value, actor=Actor("browser"))
    assert outcome.code.startswith("connected"), outcome
    return Connection.objects.get(pk=connection.pk)


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


def age(connection: Connection, *, expires_in: float, lifetime: float = 3600) -> Connection:
    """Let ``connection``'s token have ``expires_in`` seconds left of its ``lifetime``, and be due."""
    Connection.objects.filter(pk=connection.pk).update(
        issued_at=Now() - timedelta(seconds=lifetime - expires_in),
        expires_at=Now() + timedelta(seconds=expires_in),
        refresh_due_at=Now() - timedelta(seconds=1),
    )
    connection.refresh_from_db()
    return connection
