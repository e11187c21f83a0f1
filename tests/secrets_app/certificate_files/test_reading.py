"""Reading certificate files: every format, every way to send the key, and everything that is refused."""

from __future__ import annotations

import base64
import contextlib
import ssl
from datetime import timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from secrets_app.certificate_files.formats import CERTIFICATE_TYPES, Unreadable
from secrets_app.certificate_files.reading import LONGEST_NAME, Reading, read
from tests.support.certificates import NOW, Issued, chain, issue, pkcs7_of

# The library says when it takes a file of an older form, such as PKCS#7 whose certificates are not sorted.
pytestmark = pytest.mark.filterwarnings("ignore:PKCS#", "ignore:The parsed certificate")

LEAF, MIDDLE, ROOT = chain()
STRANGER = issue("stranger")
PLANTED = "planted-7f3a"


def reading(content: str, certificate_type: str = "pem", **further: str | None) -> Reading:
    given_too = {"private_key": None, "passphrase": None, **further}
    return read(content, certificate_type=certificate_type, **given_too)


def refused(content: str, certificate_type: str = "pem", **further: str | None) -> str:
    """The field that is blamed."""
    with pytest.raises(Unreadable) as caught:
        reading(content, certificate_type, **further)
    assert PLANTED not in caught.value.message
    return caught.value.field


def subjects(read_: Reading) -> list[str]:
    certificates = x509.load_pem_x509_certificates(read_.chain.encode())
    return [certificate.subject.rfc4514_string() for certificate in certificates]


# What is taken


def test_a_certificate_is_described_by_its_leaf():
    read_ = reading(LEAF.pem)
    assert read_.chain == LEAF.pem
    assert read_.private_key is None
    assert (read_.subject, read_.issuer) == ("CN=leaf", "CN=middle")
    assert read_.serial_number == "ff"
    assert read_.fingerprint_sha256 == LEAF.certificate.fingerprint(hashes.SHA256()).hex()
    assert read_.not_before == (NOW - timedelta(days=1)).isoformat()
    assert read_.expires_at == (NOW + timedelta(days=90)).isoformat()


@pytest.mark.parametrize(
    ("certificate_type", "content"),
    [
        *((kind, content) for kind in ("pem", "crt", "cer") for content in (LEAF.pem, LEAF.der)),
        ("pfx", LEAF.pkcs12()),
        ("p12", LEAF.pkcs12(None, key=False)),
        *((kind, pkcs7_of(LEAF)) for kind in ("pkcs7", "p7b", "p7c")),
        ("p7b", pkcs7_of(LEAF, encoding=Encoding.PEM)),
        ("key", LEAF.key_pem() + LEAF.pem),
        ("pem", f"Bag Attributes\n  friendlyName: leaf\n{LEAF.pem}"),
        ("pem", LEAF.pem.replace("\n", "\r\n")),
        ("pem", "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + LEAF.pem),
    ],
)
def test_every_kind_of_file_is_read(certificate_type, content):
    assert reading(content, certificate_type).chain == LEAF.pem


@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize("passphrase", [None, "pass phrase ü"])
def test_a_key_beside_the_certificate_is_kept_under_its_passphrase(passphrase, traditional):
    key = LEAF.key_pem(passphrase, traditional=traditional)
    kept = reading(LEAF.pem, private_key=key, passphrase=passphrase).private_key
    assert kept
    assert ("ENCRYPTED" in kept) == (passphrase is not None)
    opened = load_pem_private_key(kept.encode(), passphrase.encode() if passphrase else None)
    assert opened.public_key() == LEAF.key.public_key()


def test_a_passphrase_encrypts_a_key_that_is_not():
    kept = reading(LEAF.pem, private_key=LEAF.key_pem(), passphrase="p").private_key
    assert kept
    assert load_pem_private_key(kept.encode(), b"p")


@pytest.mark.parametrize(
    ("certificate_type", "content", "passphrase"),
    [
        ("pem", LEAF.pem + LEAF.key_pem() + ROOT.pem + MIDDLE.pem, None),
        ("pem", ROOT.pem + MIDDLE.pem + LEAF.pem + LEAF.key_pem("p"), "p"),
        ("key", LEAF.key_pem("p", traditional=True) + MIDDLE.pem + LEAF.pem + ROOT.pem, "p"),
        ("pfx", LEAF.pkcs12("p", ROOT, MIDDLE), "p"),
        ("p12", LEAF.pkcs12(None, ROOT, MIDDLE), None),
    ],
)
def test_the_chain_is_ordered_and_the_key_found_wherever_they_stand(certificate_type, content, passphrase, tmp_path):
    read_ = reading(content, certificate_type, passphrase=passphrase)
    assert subjects(read_) == ["CN=leaf", "CN=middle", "CN=root"]
    # What TLS makes of it.
    file = tmp_path / "both.pem"
    file.write_text(read_.chain + (read_.private_key or ""))
    ssl.create_default_context().load_cert_chain(file, password=lambda: passphrase or "")


def test_without_a_key_the_leaf_is_the_one_that_issued_none():
    assert subjects(reading(pkcs7_of(ROOT, LEAF, MIDDLE), "p7b")) == ["CN=leaf", "CN=middle", "CN=root"]


def test_a_certificate_that_is_sent_twice_counts_once():
    assert reading(LEAF.pem + MIDDLE.pem + LEAF.pem).chain == LEAF.pem + MIDDLE.pem


def test_of_a_cross_signed_issuer_both_certificates_are_kept():
    other_root = issue("other root")
    crossed = issue("middle", other_root, key=MIDDLE.key)
    content = other_root.pem + crossed.pem + LEAF.pem + ROOT.pem + MIDDLE.pem
    names = subjects(reading(content))
    assert names[:3] == ["CN=leaf", "CN=middle", "CN=middle"]
    assert sorted(names[3:]) == ["CN=other root", "CN=root"]


def test_an_expired_certificate_is_read():
    expired = issue("expired", days=(-20, -10))
    assert reading(expired.pem).expires_at == (NOW - timedelta(days=10)).isoformat()


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
        ed448.Ed448PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=lambda key: type(key).__name__,
)
def test_every_key_that_tls_can_use_is_taken(key):
    own = issue("own", key=key)
    assert reading(own.pem, private_key=own.key_pem()).private_key


def test_a_reading_does_not_print_its_key():
    assert "PRIVATE KEY" not in repr(reading(LEAF.pem, private_key=LEAF.key_pem()))


def test_a_long_name_is_cut():
    long = issue("x" * 64)
    names = [x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, f"{n:064}") for n in range(30)]
    built = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(x509.Name(names))
        .public_key(long.key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW)
        .sign(long.key, hashes.SHA256())
    )
    assert len(reading(Issued(built, long.key).pem).subject) == LONGEST_NAME


# What is refused


@cache
def weak() -> Issued:
    return issue("weak", key=rsa.generate_private_key(65537, 1024))


NONSENSE = ["", " ", PLANTED, "\0", "🔑", "AAAA", "MAA=", base64.b64encode(b"\x30\x80\x00\x00").decode(), "-----BEGIN"]


@pytest.mark.parametrize("certificate_type", CERTIFICATE_TYPES)
@pytest.mark.parametrize("content", NONSENSE, ids=ascii)
def test_nonsense_is_refused(certificate_type, content):
    assert refused(content, certificate_type) == "certificate_content"


@pytest.mark.parametrize(
    ("certificate_type", "content"),
    [
        ("pfx", LEAF.pem),
        ("pfx", LEAF.der),
        ("p12", pkcs7_of(LEAF)),
        ("p7b", LEAF.pem),
        ("p7b", LEAF.der),
        ("pkcs7", LEAF.pkcs12()),
        ("pem", LEAF.pkcs12()),
        ("crt", pkcs7_of(LEAF)),
        ("cer", pkcs7_of(LEAF, encoding=Encoding.PEM)),
        ("key", LEAF.pem),
        ("key", LEAF.der),
    ],
)
def test_a_file_of_another_kind_than_was_said_is_refused(certificate_type, content):
    assert refused(content, certificate_type) == "certificate_content"


@pytest.mark.parametrize("certificate_type", ["pem", "key"])
def test_a_key_alone_is_no_certificate(certificate_type):
    assert refused(LEAF.key_pem(), certificate_type) == "certificate_content"


def with_junk(content: str) -> str:
    return base64.b64encode(base64.b64decode(content) + b"junk").decode()


@pytest.mark.parametrize(
    ("certificate_type", "content"),
    [
        ("pem", LEAF.pem + PLANTED),
        ("pem", LEAF.pem + LEAF.pem[: len(LEAF.pem) // 2]),
        ("pem", LEAF.pem[:100] + LEAF.pem),
        ("pem", LEAF.pem.replace("END", "END X509")),
        ("pem", LEAF.pem.replace("CERTIFICATE", "CERTIFICATE REQUEST")),
        ("pem", LEAF.pem.replace("\nMII", "\n!II")),
        ("cer", with_junk(LEAF.der)),
        ("pfx", with_junk(LEAF.pkcs12())),
        ("p7b", with_junk(pkcs7_of(LEAF))),
        ("p7b", pkcs7_of(LEAF, encoding=Encoding.PEM) * 2),
    ],
)
def test_what_is_cut_or_followed_by_something_else_is_refused(certificate_type, content):
    assert refused(content, certificate_type) == "certificate_content"


@pytest.mark.parametrize(
    ("content", "private_key"),
    [
        (LEAF.pem, STRANGER.key_pem()),
        (LEAF.pem, LEAF.key_pem() * 2),
        (LEAF.pem, LEAF.pem),
        (LEAF.pem, LEAF.key_pem() + LEAF.pem),
        (LEAF.pem, PLANTED),
        (LEAF.pem, LEAF.key_pem().replace("\nM", "\nN")),
        (LEAF.pem + LEAF.key_pem(), LEAF.key_pem()),
        (LEAF.pem + STRANGER.key_pem(), None),
    ],
)
def test_a_key_that_does_not_fit_is_refused(content, private_key):
    assert refused(content, private_key=private_key) == "private_key"


def test_two_keys_or_two_certificates_of_the_key_are_refused():
    assert refused(LEAF.pem + LEAF.key_pem() + STRANGER.key_pem()) == "certificate_content"
    renewed = issue("renewed", MIDDLE, key=LEAF.key)
    assert refused(LEAF.pem + renewed.pem, private_key=LEAF.key_pem()) == "certificate_content"


@pytest.mark.parametrize("passphrase", [None, f"{PLANTED}-wrong", "", "p\0", "p" * 1024])
@pytest.mark.parametrize(
    ("certificate_type", "content", "private_key"),
    [
        ("pem", LEAF.pem, LEAF.key_pem("p")),
        ("pem", LEAF.pem, LEAF.key_pem("p", traditional=True)),
        ("pem", LEAF.key_pem("p") + LEAF.pem, None),
        ("pfx", LEAF.pkcs12("p"), None),
        ("pfx", LEAF.pkcs12("p", key=False), None),
    ],
)
def test_a_wrong_or_missing_passphrase_is_refused(certificate_type, content, private_key, passphrase):
    assert refused(content, certificate_type, private_key=private_key, passphrase=passphrase) == "passphrase"


@pytest.mark.parametrize(
    ("certificate_type", "content"), [("pem", LEAF.pem), ("p7b", pkcs7_of(LEAF)), ("pfx", LEAF.pkcs12())]
)
def test_a_passphrase_that_opens_nothing_is_refused(certificate_type, content):
    assert refused(content, certificate_type, passphrase=PLANTED) == "passphrase"


@pytest.mark.parametrize(
    "content",
    [
        LEAF.pem + STRANGER.pem,
        LEAF.pem + LEAF.key_pem() + STRANGER.pem,
        LEAF.pem + LEAF.key_pem() + issue("middle").pem,
        MIDDLE.pem + MIDDLE.key_pem() + LEAF.pem,
    ],
    ids=["two leaves", "a stranger", "another key under the issuer's name", "what the leaf issued"],
)
def test_a_certificate_that_is_not_of_the_chain_is_refused(content):
    assert refused(content) == "certificate_content"


def test_more_than_twenty_certificates_are_refused():
    content = "".join(issue(f"c{number}", key=LEAF.key).pem for number in range(21))
    assert refused(content) == "certificate_content"


def test_a_key_that_tls_should_not_use_is_refused():
    assert refused(weak().pem, private_key=weak().key_pem()) == "certificate_content"
    assert refused(weak().pem) == "certificate_content"
    odd = issue("odd", key=ec.generate_private_key(ec.SECP256K1()))
    assert refused(odd.pem) == "certificate_content"


# Any bytes

SEEDS = [
    ("pem", LEAF.pem + LEAF.key_pem("p") + MIDDLE.pem),
    ("crt", LEAF.der),
    ("pfx", LEAF.pkcs12("p", MIDDLE)),
    ("pfx", LEAF.pkcs12()),
    ("p7b", pkcs7_of(LEAF, MIDDLE)),
]


@settings(max_examples=150)
@given(st.data())
def test_damaged_files_are_refused_and_nothing_else_is_raised(data):
    certificate_type, content = data.draw(st.sampled_from(SEEDS))
    is_pem = content.startswith("-----")
    raw = bytearray(content.encode() if is_pem else base64.b64decode(content))
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=4)):
        raw[place] = byte
    del raw[data.draw(st.integers(0, len(raw)) | st.just(len(raw))) :]
    content = raw.decode("latin-1") if is_pem else base64.b64encode(raw).decode()
    private_key = data.draw(st.none() | st.just(LEAF.key_pem()))
    passphrase = data.draw(st.sampled_from([None, "p"]))
    with contextlib.suppress(Unreadable):
        assert reading(content, certificate_type, private_key=private_key, passphrase=passphrase).chain


@given(st.sampled_from(CERTIFICATE_TYPES), st.text() | st.binary().map(lambda b: base64.b64encode(b).decode()))
def test_any_text_is_refused_and_nothing_else_is_raised(certificate_type, content):
    refused(content, certificate_type)
