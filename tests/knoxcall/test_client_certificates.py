from __future__ import annotations

import contextlib
import os
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat

from knoxcall import connections, sockets, tls
from knoxcall.client_certificates import ClientCertificate, find_refusal
from knoxcall.http import ClientCertificateRefused, ClientCertificateUnusable, ConnectFailed, NoAnswer, send
from tests.support.tls import NAME, Peer, ok, says, server_context

PASSPHRASE = b"hunter2-very-secret"
OLD = ssl.TLSVersion.TLSv1_2
NEW = ssl.TLSVersion.TLSv1_3
BOTH = pytest.mark.parametrize("version", [OLD, NEW], ids=["TLS 1.2", "TLS 1.3"])
LAPSED = datetime(2026, 1, 2, tzinfo=UTC)

pytestmark = pytest.mark.usefixtures("trusted", "pool", "names")


@pytest.fixture(scope="session")
def clients():
    """The authority of the clients that the peer knows."""
    return trustme.CA()


@pytest.fixture(scope="session")
def leaf(clients):
    return clients.issue_cert("vault.example")


@pytest.fixture(scope="session")
def lapsed(clients):
    return clients.issue_cert("vault.example", not_after=LAPSED)


@contextlib.contextmanager
def demanding(authority, clients, *, verify=ssl.CERT_REQUIRED, version=None, name=NAME):
    """A peer that asks for a certificate of ``clients``."""
    context = server_context(authority, name, clients=clients, verify=verify, version=version)
    with Peer(ok(), tls=context).listening() as peer:
        peer.url = f"https://{NAME}:{peer.port}/token"
        yield peer


def certificate_of(leaf, owner="one", **fields):
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    return ClientCertificate(**{"owner": owner, "chain": chain, "private_key": leaf.private_key_pem.bytes()} | fields)


def der(leaf):
    return ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())


def encrypted(leaf, form):
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    return key.private_bytes(Encoding.PEM, form, serialization.BestAvailableEncryption(PASSPHRASE))


def idle(pool):
    """The connections that wait for their next request."""
    return [connection for waiting in pool._idle.values() for _, connection in waiting]


@pytest.fixture
def _always_tidied(monkeypatch):
    """The pool looks through all of its connections at every call, and not once a second."""
    monkeypatch.setattr(connections, "TIDY_SECONDS", -1.0)


# Shown, and accepted


@BOTH
def test_the_peer_sees_the_certificate(authority, clients, leaf, version):
    with demanding(authority, clients, version=version) as peer:
        assert send("POST", peer.url, body=b"x", certificate=certificate_of(leaf)).status == 200
        assert peer.shown == [der(leaf)]


def test_a_chain_leads_to_an_authority_that_the_peer_knows(authority, clients):
    leaf = clients.create_child_ca().issue_cert("vault.example")
    with demanding(authority, clients) as peer:
        assert send("GET", peer.url, certificate=certificate_of(leaf)).status == 200
        alone = leaf.cert_chain_pems[0].bytes()
        with pytest.raises(ClientCertificateRefused, match="issued by an authority"):
            send("GET", peer.url, certificate=certificate_of(leaf, chain=alone))


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("key_type", trustme.KeyType)
def test_every_form_of_key_is_loaded(clients, key_type, form):
    leaf = clients.issue_cert("vault.example", key_type=key_type)
    certificate_of(leaf).load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    protected = certificate_of(leaf, private_key=encrypted(leaf, form), passphrase=PASSPHRASE)
    protected.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def test_an_rsa_key_signs_the_handshake(authority, clients):
    leaf = clients.issue_cert("vault.example", key_type=trustme.KeyType.RSA)
    with demanding(authority, clients) as peer:
        assert send("GET", peer.url, certificate=certificate_of(leaf)).status == 200


def test_a_peer_that_asks_for_none_is_shown_none(authority, leaf):
    with Peer(ok(), tls=server_context(authority, NAME)).listening() as peer:
        assert send("GET", f"https://{NAME}:{peer.port}/", certificate=certificate_of(leaf)).status == 200
        assert peer.shown == [None]


# Who shares a connection


def test_connections_are_shared_by_owner_and_certificate_only(authority, clients, leaf):
    with demanding(authority, clients, verify=ssl.CERT_OPTIONAL) as peer:
        for _ in range(2):
            for certificate in (certificate_of(leaf), certificate_of(leaf, owner="two"), None):
                send("GET", peer.url, certificate=certificate)
        assert peer.shown == [der(leaf), der(leaf), None]
        assert (peer.resumed, len(peer.requests)) == (0, 6)


def test_a_replaced_certificate_takes_effect_on_the_next_call(authority, clients, leaf):
    following = clients.issue_cert("vault.example")
    with demanding(authority, clients) as peer:
        for each in (leaf, following, following):
            send("GET", peer.url, certificate=certificate_of(each))
        assert peer.shown == [der(leaf), der(following)]


@BOTH
def test_no_session_is_resumed(authority, clients, leaf, version):
    with demanding(authority, clients, version=version) as peer:
        peer.say = says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        for owner in ("one", "one", "two"):
            send("GET", peer.url, certificate=certificate_of(leaf, owner=owner))
        assert peer.shown == [der(leaf)] * 3
        assert peer.resumed == 0


def test_an_identity_is_that_of_an_owner_and_a_chain(leaf):
    one = certificate_of(leaf, owner="a")
    others = [
        certificate_of(leaf, owner="b"),
        certificate_of(leaf, owner="a", chain=one.chain + b"\n"),
        certificate_of(leaf, owner="a" + one.chain.decode()[0], chain=one.chain[1:]),
    ]
    assert len({each.identity for each in [one, *others]}) == 4
    assert certificate_of(leaf, owner="a", private_key=b"another").identity == one.identity


# Contexts, kept and dropped


def test_a_context_is_built_once(authority, clients, leaf, monkeypatch):
    built = []
    load = ClientCertificate.load_into
    monkeypatch.setattr(ClientCertificate, "load_into", lambda self, context: built.append(self) or load(self, context))
    with demanding(authority, clients) as peer, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: send("GET", peer.url, certificate=certificate_of(leaf)), range(16)))
    assert len(built) == 1


@pytest.mark.usefixtures("_always_tidied")
def test_the_context_that_is_unused_for_longest_is_dropped_with_its_connections(
    authority, clients, leaf, monkeypatch, pool
):
    monkeypatch.setattr(tls, "MAX_CONTEXTS", 2)
    with demanding(authority, clients) as peer:
        for owner in ("one", "two", "one", "three"):
            send("GET", peer.url, certificate=certificate_of(leaf, owner=owner))
        assert (peer.connections, len(idle(pool))) == (3, 2)
        for owner, number in (("one", 3), ("three", 3), ("two", 4)):
            send("GET", peer.url, certificate=certificate_of(leaf, owner=owner))
            assert peer.connections == number


@pytest.mark.usefixtures("_always_tidied")
def test_a_context_that_nobody_uses_is_dropped_with_its_connections(authority, clients, leaf, monkeypatch, pool):
    with demanding(authority, clients, verify=ssl.CERT_OPTIONAL) as peer:
        send("GET", peer.url, certificate=certificate_of(leaf))
        (left,) = idle(pool)
        monkeypatch.setattr(tls, "MAX_UNUSED_SECONDS", 0.0)
        send("GET", peer.url)
        assert left.sock is None
        assert len(idle(pool)) == 1


def test_a_connection_whose_context_was_dropped_during_its_call_is_closed(authority, clients, leaf, monkeypatch, pool):
    monkeypatch.setattr(tls, "MAX_CONTEXTS", 1)
    with demanding(authority, clients) as peer:
        answer = peer.say

        def say(connection, request):
            peer.say = answer
            send("GET", peer.url, certificate=certificate_of(leaf, owner="two"))
            return answer(connection, request)

        peer.say = say
        send("GET", peer.url, certificate=certificate_of(leaf))
        assert len(idle(pool)) == 1
        send("GET", peer.url, certificate=certificate_of(leaf, owner="two"))
        assert peer.connections == 2


# Refused

REFUSALS = {
    "none": "demands a client certificate, and none was shown.",
    "foreign": "refused our client certificate: it was issued by an authority that provider.example does not know.",
    "lapsed": "refused our client certificate: it has expired (on 2026-01-02).",
}


@BOTH
@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_names_its_cause(authority, clients, lapsed, version, kind):
    leaf = {"foreign": trustme.CA().issue_cert("vault.example"), "lapsed": lapsed}.get(kind)
    with demanding(authority, clients, version=version) as peer:
        with pytest.raises(ClientCertificateRefused) as caught:
            send("POST", peer.url, body=b"refresh_token=r", certificate=leaf and certificate_of(leaf))
        assert str(caught.value) == f"provider.example {REFUSALS[kind]}"
        assert not caught.value.sent
        assert peer.requests == []


def test_a_refusal_while_we_are_still_writing_names_its_cause(authority, clients):
    with demanding(authority, clients, version=NEW) as peer:
        with pytest.raises(ClientCertificateRefused, match="none was shown"):
            send("POST", peer.url, body=b"x" * 20_000_000)
        assert peer.requests == []


def test_a_handshake_that_fails_over_something_else_blames_no_certificate(authority, clients, leaf):
    context = server_context(authority, NAME, clients=clients, version=OLD)
    context.set_ciphers("ECDHE-ECDSA-AES128-CCM")
    with Peer(ok(), tls=context).listening() as peer:
        for certificate in (None, certificate_of(leaf)):
            with pytest.raises(ConnectFailed, match="TLS handshake"):
                send("GET", f"https://{NAME}:{peer.port}/", certificate=certificate)


def alert(name="TLSV1_ALERT_ACCESS_DENIED"):
    error = ssl.SSLError(ssl.SSL_ERROR_SSL, name)
    error.reason = name
    return error


@pytest.mark.parametrize(
    ("version", "kept", "error"),
    [
        (NEW, True, alert()),
        (OLD, False, alert()),
        (NEW, False, alert("TLSV1_ALERT_INTERNAL_ERROR")),
        (NEW, False, alert("SSLV3_ALERT_HANDSHAKE_FAILURE")),
        (NEW, False, ConnectionResetError()),
        (NEW, False, ssl.SSLEOFError()),
        (NEW, False, TimeoutError()),
    ],
)
def test_what_does_not_prove_a_refusal_leaves_the_outcome_unknown(
    authority, clients, leaf, monkeypatch, version, kept, error
):
    def read(*_):
        raise error

    with demanding(authority, clients, version=version) as peer:
        if kept:
            send("GET", peer.url, certificate=certificate_of(leaf))
        monkeypatch.setattr(sockets.BoundedTLSSocket, "read", read)
        with pytest.raises(NoAnswer) as caught:
            send("GET", peer.url, certificate=certificate_of(leaf))
        assert peer.connections == 1
    assert caught.value.sent


def test_an_alert_after_the_first_byte_of_an_answer_is_no_refusal(authority, clients, leaf, monkeypatch):
    read = sockets.BoundedTLSSocket.read
    parts = []

    def read_once(self, *given):
        if parts:
            raise alert()
        parts.append(read(self, 5, given[1]))
        return parts[0]

    monkeypatch.setattr(sockets.BoundedTLSSocket, "read", read_once)
    with demanding(authority, clients, version=NEW) as peer, pytest.raises(NoAnswer):
        send("GET", peer.url, certificate=certificate_of(leaf))
    assert parts == [5]


EXPIRED = "it has expired (on 2026-01-02)"
FOR_ANOTHER_USE = "it is of a kind, or for a use, that example.com does not accept"


@pytest.mark.parametrize(
    ("name", "cause", "where_it_has_lapsed"),
    [
        ("BAD_CERTIFICATE", "it could not be verified there", EXPIRED),
        ("CERTIFICATE_EXPIRED", "it, or one that it was issued with, has expired by the clock of example.com", EXPIRED),
        ("CERTIFICATE_UNKNOWN", "example.com does not say why", EXPIRED),
        ("HANDSHAKE_FAILURE", "example.com does not say why", EXPIRED),
        ("CERTIFICATE_REVOKED", "it has been revoked", f"it has been revoked, and {EXPIRED}"),
        ("ACCESS_DENIED", "it gives no access there", f"it gives no access there, and {EXPIRED}"),
        ("UNSUPPORTED_CERTIFICATE", FOR_ANOTHER_USE, f"{FOR_ANOTHER_USE}, and {EXPIRED}"),
    ],
)
def test_an_alert_is_told_in_plain_words(leaf, lapsed, name, cause, where_it_has_lapsed):
    for each, said in ((leaf, cause), (lapsed, where_it_has_lapsed)):
        refusal = find_refusal(name, "example.com", certificate_of(each))
        assert str(refusal) == f"example.com refused our client certificate: {said}."


def test_an_alert_about_a_certificate_is_no_refusal_of_none():
    assert find_refusal("CERTIFICATE_REVOKED", NAME, None) is None
    assert "none was shown" in str(find_refusal("BAD_CERTIFICATE", NAME, None))


def test_a_certificate_that_is_not_valid_yet_is_said_to_be_that(clients):
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    early = clients.issue_cert("a.example", not_before=tomorrow, not_after=tomorrow + timedelta(days=1))
    said = str(find_refusal("BAD_CERTIFICATE", NAME, certificate_of(early)))
    assert f"not valid before {tomorrow.date()}" in said


def test_a_key_that_can_sign_nothing_the_peer_takes_is_said(leaf):
    assert "another kind" in str(find_refusal("CERTIFICATE_REQUIRED", NAME, certificate_of(leaf)))


def test_the_certificate_of_the_peer_is_still_checked(authority, clients, leaf, settings):
    with demanding(authority, clients, name="other.example") as peer:
        with pytest.raises(ConnectFailed, match="was not accepted"):
            send("GET", peer.url, certificate=certificate_of(leaf))
        settings.KNOXCALL_OUTBOUND_CA_BUNDLE = ""
        with pytest.raises(ConnectFailed, match="was not accepted"):
            send("GET", peer.url, certificate=certificate_of(leaf))
        assert peer.shown == []


# Unusable


def test_a_certificate_needs_https(leaf):
    with Peer(ok()).listening() as peer:
        with pytest.raises(ConnectFailed, match="needs https"):
            send("GET", f"http://127.0.0.1:{peer.port}/", certificate=certificate_of(leaf))
        assert peer.connections == 0


GARBLED = b"-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"
UNUSABLE = {
    "a garbled key": lambda leaf: {"private_key": GARBLED},
    "no key": lambda leaf: {"private_key": b""},
    "no passphrase": lambda leaf: {"private_key": encrypted(leaf, PrivateFormat.PKCS8)},
    "a wrong passphrase": lambda leaf: {"private_key": encrypted(leaf, PrivateFormat.PKCS8), "passphrase": b"hunter2"},
    "a passphrase for nothing": lambda leaf: {"passphrase": b"hunter2"},
    "another's key": lambda leaf: {"private_key": trustme.CA().issue_cert("a.example").private_key_pem.bytes()},
    "a garbled certificate": lambda leaf: {"chain": b"hunter2"},
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_certificate_that_cannot_be_used_is_said_and_nothing_is_sent(authority, clients, leaf, kind):
    certificate = certificate_of(leaf, **UNUSABLE[kind](leaf))
    with demanding(authority, clients) as peer:
        for _ in range(2):
            with pytest.raises(ClientCertificateUnusable) as caught:
                send("GET", peer.url, certificate=certificate)
        assert peer.connections == 0
    assert not caught.value.sent
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


# The private key stays in memory


class Loads:
    """In place of a context: reads the file as OpenSSL would, and keeps what it saw."""

    def load_cert_chain(self, path, password):
        self.path, self.content, self.passphrase = Path(path), Path(path).read_bytes(), password()
        self.found_at = os.path.realpath(path)
        self.modes = [stat.S_IMODE(each.stat().st_mode) for each in (self.path, self.path.parent)]


def check_content(seen, leaf):
    """The file holds the certificate, and the key under a passphrase of this one time."""
    assert leaf.cert_chain_pems[0].bytes() in seen.content
    assert seen.content.count(b"PRIVATE KEY-----") == seen.content.count(b"ENCRYPTED PRIVATE KEY-----") == 2
    key = serialization.load_pem_private_key(seen.content, seen.passphrase.encode())
    given = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    assert key.private_numbers() == given.private_numbers()


def test_openssl_is_handed_the_key_encrypted_and_in_memory(leaf):
    seen = Loads(), Loads()
    # Not even a key among the certificates gets through as it is.
    careless = certificate_of(leaf, chain=leaf.cert_chain_pems[0].bytes() + leaf.private_key_pem.bytes())
    for each in seen:
        careless.load_into(each)
        assert each.found_at.startswith("/memfd:client-certificate")
        check_content(each, leaf)
    assert seen[0].passphrase != seen[1].passphrase


def test_without_files_in_memory_a_private_one_is_gone_at_once(leaf, monkeypatch, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    seen = Loads()
    certificate_of(leaf).load_into(seen)
    check_content(seen, leaf)
    assert seen.path.is_relative_to(scratch)
    assert seen.modes == [0o600, 0o700]
    certificate_of(leaf).load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    with pytest.raises(ClientCertificateUnusable):
        certificate_of(leaf, chain=trustme.CA().cert_pem.bytes()).load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert list(scratch.iterdir()) == []


def test_loading_leaves_no_file_open(leaf):
    another = trustme.CA().cert_pem.bytes()

    def load(number):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if number % 2:
            certificate_of(leaf).load_into(context)
        else:
            with pytest.raises(ClientCertificateUnusable):
                certificate_of(leaf, chain=another).load_into(context)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(load, range(64)))
    opened = [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]
    assert not [file for file in opened if "client-certificate" in file]


def test_a_certificate_shows_neither_itself_nor_its_key(leaf):
    certificate = certificate_of(leaf, owner="acme", passphrase=PASSPHRASE)
    assert repr(certificate) == f"{certificate}" == f"<ClientCertificate {certificate.identity[:12]}>"


def test_the_expiry_is_that_of_the_leaf(lapsed):
    assert certificate_of(lapsed).expires_at == LAPSED
