"""Clients that show a certificate (RFC 8705): on every call, replaced without a break, and never taken away underneath."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.hashes import SHA256
from django.db.models.functions import Now

from knoxcall import connections
from oauth_app.claim import claim_one
from oauth_app.clients import open_client
from oauth_app.fake_provider import FakeProvider
from oauth_app.models import ClientRegistration, Connection, RevocationJob
from oauth_app.refresh import refresh
from oauth_app.revocation import revoke_due
from secrets_app.models import Certificate
from tests.factories import Caller, a_certificate, age, consent
from tests.oauth_app.test_change_client import change, path_of, refused_with, renew
from tests.support.certificates import Issued, issue
from tests.support.tls import server_context

PATH = "/v1/secrets/oauth2"
HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def root() -> Issued:
    """The authority of the clients that the provider knows."""
    return issue("clients", ca=True)


@pytest.fixture(scope="module")
def known(root) -> Issued:
    return issue("known", root)


@pytest.fixture(scope="module")
def following(root) -> Issued:
    return issue("following", root, serial=2)


@pytest.fixture
def _trusted(settings, authority, tmp_path, monkeypatch) -> Iterator[None]:
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    settings.KNOXCALL_OUTBOUND_CA_BUNDLE = str(bundle)
    pool = connections.Pool()
    monkeypatch.setattr(connections, "_pool", pool)
    yield
    pool.close_idle()


def demanding(authority: trustme.CA, root: Issued, tmp_path: Path, *, verify: ssl.VerifyMode) -> ssl.SSLContext:
    context = server_context(authority, HOST, "localhost")
    (tmp_path / "clients.pem").write_text(root.pem)
    context.load_verify_locations(tmp_path / "clients.pem")
    context.verify_mode = verify
    return context


@pytest.fixture
def bank(authority, root, tmp_path, _trusted) -> Iterator[FakeProvider]:
    """A provider whose every endpoint ends the handshake of who shows no certificate that it knows."""
    context = demanding(authority, root, tmp_path, verify=ssl.CERT_REQUIRED)
    with FakeProvider(ssl_context=context, requires_client_certificate=True) as provider:
        yield provider


@pytest.fixture
def open_bank(authority, root, tmp_path, _trusted) -> Iterator[FakeProvider]:
    """One that asks for a certificate and lets browsers and metadata pass without."""
    context = demanding(authority, root, tmp_path, verify=ssl.CERT_OPTIONAL)
    with FakeProvider(ssl_context=context, requires_client_certificate=True) as provider:
        yield provider


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.fixture
def certificate(caller, known) -> Certificate:
    return a_certificate(caller, known)


def body_for(provider: FakeProvider, certificate: Certificate | None, **further: Any) -> dict[str, Any]:
    body = {
        "name": "bank",
        "provider": "custom",
        "client_id": provider.client_id,
        "grant_type": "client_credentials",
        "token_url": provider.token_url,
        "revocation_url": provider.revoke_url,
        "mtls_certificate_id": certificate and str(certificate.pk),
        **further,
    }
    return {name: value for name, value in body.items() if value is not None}


def create(caller: Caller, body: dict[str, Any]) -> Connection:
    answer = caller.post(PATH, body)
    assert answer.status_code == 201, answer.content
    assert answer.json()["data"]["mtls_certificate_id"] == body.get("mtls_certificate_id")
    return Connection.objects.get(secret_id=answer.json()["data"]["id"])


def put(caller: Caller, certificate: Certificate, issued: Issued, **further: Any) -> Any:
    body = {"certificate_content": issued.pem, "private_key": issued.key_pem(), **further}
    body = {name: value for name, value in body.items() if value is not None}
    return caller.request("PUT", f"/v1/secrets/{certificate.pk}/certificate", body)


def shown(provider: FakeProvider) -> list[str | None]:
    """The fingerprints that token requests came with."""
    return [request.peer_sha256 for request in provider.requests]


def fingerprint(issued: Issued) -> str:
    return issued.certificate.fingerprint(SHA256()).hex()


def state_of(caller: Caller, connection: Connection) -> dict[str, Any]:
    state: dict[str, Any] = caller.get(path_of(connection)).json()["data"]
    return state


# Shown


@pytest.mark.parametrize("grant", ["client_credentials", "password", "authorization_code"])
def test_it_is_shown_on_every_grant_and_refresh_and_the_client_names_itself(
    caller, open_bank, certificate, known, http, authority, grant
):
    body = body_for(open_bank, certificate, grant_type=grant)
    body |= {"username": open_bank.username, "password": open_bank.password} if grant == "password" else {}
    body |= {"auth_url": open_bank.authorize_url} if grant == "authorization_code" else {}
    connection = create(caller, body)
    if grant == "authorization_code":
        with authority.cert_pem.tempfile() as trusted:
            http.verify = trusted
            consent(connection, http)
    assert renew(caller, connection).status_code == 200
    assert shown(open_bank) == [fingerprint(known)] * 2
    for request in open_bank.requests:
        assert (request.auth_method, request.form["client_id"]) == ("none", open_bank.client_id)
        assert "client_secret" not in request.form
    again = "client_credentials" if grant == "client_credentials" else "refresh_token"
    assert [request.grant_type for request in open_bank.requests] == [grant, again]


@pytest.mark.parametrize("method", [None, "client_secret_basic", "client_secret_post"])
def test_a_secret_beside_it_is_shown_too(caller, bank, certificate, method):
    create(caller, body_for(bank, certificate, client_secret=bank.client_secret, token_auth_method=method))
    (request,) = bank.requests
    assert request.auth_method == ("post" if method == "client_secret_post" else "basic")
    assert (request.client_secret, request.form["client_id"]) == (bank.client_secret, bank.client_id)
    assert request.peer_sha256 == Certificate.objects.get().fingerprint_sha256


def test_a_protected_key_is_opened_for_it(caller, bank, known):
    certificate = a_certificate(caller, known, passphrase="sesame-passphrase")
    assert create(caller, body_for(bank, certificate)).status == "connected"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("deleted", [False, True])
def test_it_is_shown_on_every_revocation(caller, bank, certificate, deleted):
    connection = create(caller, body_for(bank, certificate))
    token = connection.access_token.open().reveal()
    if deleted:
        # Not even the certificate need be left.
        caller.delete(f"/v1/secrets/{connection.secret_id}")
        assert caller.delete(f"/v1/secrets/{certificate.pk}").status_code == 200
    else:
        caller.post(f"{path_of(connection)}/disconnect", {})
    revoke_due()
    assert RevocationJob.objects.get().outcome == "revoked"
    assert not bank.is_live(token)


def test_discovered_addresses_for_it_are_used_with_it_and_no_others_without(caller, open_bank, bank, certificate):
    """Two hosts, as banks have them: one for everybody, one that demands a certificate."""
    open_bank.requires_client_certificate = False
    open_bank.mtls_endpoint_aliases = {"token_endpoint": bank.token_url, "revocation_endpoint": bank.revoke_url}
    body = body_for(open_bank, certificate, client_secret=open_bank.client_secret, issuer_url=open_bank.issuer)
    del body["token_url"], body["revocation_url"]
    connection = create(caller, body)
    assert (connection.status, bank.count("client_credentials"), open_bank.requests) == ("connected", 1, [])
    change(caller, connection, mtls_certificate_id=None)
    assert renew(caller, connection).status_code == 200
    assert (bank.count("client_credentials"), open_bank.count("client_credentials")) == (1, 1)


def test_an_issuer_that_takes_certificates_only_is_enough(caller, open_bank, certificate):
    body = body_for(open_bank, certificate, issuer_url=open_bank.issuer)
    del body["token_url"], body["revocation_url"]
    assert create(caller, body).status == "connected"
    assert open_client(ClientRegistration.objects.get()).token_auth_method == "none"


# Refused by the provider


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("stranger", "issued by an authority"),
        ("expired", "it has expired"),
        ("missing", "demands a client certificate"),
    ],
)
def test_what_the_provider_refuses_is_told_and_tried_again_with_another(
    caller, bank, root, known, following, kind, said
):
    issued = {"stranger": issue("stranger"), "expired": issue("expired", root, days=(-9, -1)), "missing": known}[kind]
    certificate = a_certificate(caller, issued)
    given = {"client_secret": bank.client_secret} if kind == "missing" else {}
    connection = create(caller, body_for(bank, None if kind == "missing" else certificate, **given))
    state = state_of(caller, connection)
    assert state["connection_status"] == "refresh_failing"
    assert (state["last_error"]["code"], state["last_error"]["reason"]) == (
        "client_certificate_refused",
        "provider_rejected",
    )
    assert said in state["last_error"]["message"]
    if kind == "missing":
        change(caller, connection, mtls_certificate_id=str(certificate.pk))
    else:
        assert put(caller, certificate, following).status_code == 200
    assert caller.get(f"{path_of(connection)}/token").status_code == 200
    assert shown(bank) == [fingerprint(known if kind == "missing" else following)]


def test_the_next_call_shows_the_new_one(caller, bank, certificate, known, following):
    connection = create(caller, body_for(bank, certificate))
    assert put(caller, certificate, following).status_code == 200
    age(connection, expires_in=-1)
    assert caller.get(f"{path_of(connection)}/token").status_code == 200
    assert shown(bank) == [fingerprint(known), fingerprint(following)]


def test_what_is_refused_while_it_is_replaced_is_tried_again_with_the_new_one(caller, bank, root, following):
    certificate = a_certificate(caller, issue("stranger"))
    connection = create(caller, body_for(bank, certificate))
    seen = ClientRegistration.objects.select_related("mtls_certificate").get()
    claimed = claim_one(connection)
    assert claimed
    assert put(caller, certificate, following).status_code == 200
    refresh(claimed, seen)
    assert state_of(caller, connection)["last_error"]["code"] == "client_certificate_refused"
    assert caller.get(f"{path_of(connection)}/token").status_code == 200


# Kept while it is used


def test_one_in_use_is_not_deleted(caller, bank, certificate):
    connection = create(caller, body_for(bank, certificate, client_secret=bank.client_secret))
    answer = caller.delete(f"/v1/secrets/{certificate.pk}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (409, "in_use")
    assert Certificate.objects.exists()
    assert refused_with(caller, connection, client_secret=None, mtls_certificate_id=None) == ["client_secret"]
    assert change(caller, connection, mtls_certificate_id=None)["mtls_certificate_id"] is None
    assert caller.delete(f"/v1/secrets/{certificate.pk}").status_code == 200


def test_the_one_before_is_free_after_a_change(caller, bank, certificate, following):
    connection = create(caller, body_for(bank, certificate))
    other = a_certificate(caller, following, "other")
    assert change(caller, connection, mtls_certificate_id=str(other.pk))["mtls_certificate_id"] == str(other.pk)
    renew(caller, connection)
    assert shown(bank)[-1] == fingerprint(following)
    assert caller.delete(f"/v1/secrets/{other.pk}").status_code == 409
    assert caller.delete(f"/v1/secrets/{certificate.pk}").status_code == 200


def test_its_private_key_is_not_taken_away_while_it_is_used(caller, bank, certificate, known):
    connection = create(caller, body_for(bank, certificate))
    answer = put(caller, certificate, known, private_key=None)
    assert (answer.status_code, list(answer.json()["fields"])) == (400, ["private_key"])
    assert Certificate.objects.get().version == 1
    assert renew(caller, connection).status_code == 200
    unused = a_certificate(caller, known, "unused")
    assert put(caller, unused, known, private_key=None).status_code == 200


def test_one_that_is_of_no_use_is_refused(caller, bank, known):
    strangers, tests = a_certificate(Caller(), known), a_certificate(Caller(caller.account, mode="test"), known)
    bare = a_certificate(caller, known, "bare", key=False)
    for useless in (strangers, tests, bare):
        answer = caller.post(PATH, body_for(bank, useless))
        assert (answer.status_code, list(answer.json()["fields"])) == (400, ["mtls_certificate_id"])
    for wrong in ("not-a-uuid", "00000000-0000-4000-8000-000000000000", 7, ["x"]):
        answer = caller.post(PATH, {**body_for(bank, None), "mtls_certificate_id": wrong})
        assert (answer.status_code, list(answer.json()["fields"])) == (400, ["mtls_certificate_id"])
    assert bank.requests == []


def test_rows_name_it_and_its_end_is_told_in_time(caller, bank, certificate):
    connection = create(caller, body_for(bank, certificate))
    assert state_of(caller, connection)["attention"] == []
    Certificate.objects.update(expires_at=Now())
    state = state_of(caller, connection)
    assert (state["mtls_certificate_id"], state["attention"][0]["code"]) == (
        str(certificate.pk),
        "certificate_expiring",
    )
    row = caller.get(f"/v1/secrets/{connection.secret_id}").json()["data"]
    assert row["mtls_certificate_id"] == str(certificate.pk)
    assert put(caller, certificate, issue("fresh")).status_code == 200
    assert state_of(caller, connection)["attention"] == []
