"""Throw-away certificates for a rehearsal of mutual TLS: a CA, a server's and a client's, in a directory."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=365)
LEAST_LEFT = timedelta(days=1)


@dataclass(frozen=True)
class Certificates:
    """Where the files are, all PEM but `upload`."""

    directory: Path

    @property
    def authority(self) -> Path:
        """The CA of both; its key was forgotten when they were made."""
        return self.directory / "ca.pem"

    @property
    def server(self) -> Path:
        """Certificate and key."""
        return self.directory / "server.pem"

    @property
    def client(self) -> Path:
        """Certificate and key."""
        return self.directory / "client.pem"

    @property
    def upload(self) -> Path:
        """The body of `POST /v1/secrets/certificate` for the client's."""
        return self.directory / "client.json"

    @property
    def client_sha256(self) -> str:
        return _read(self.client).fingerprint(hashes.SHA256()).hex()


def find_certificates(directory: Path, *, host: str) -> Certificates | None:
    """The certificates that an earlier start left, if they are good for another day and name ``host``."""
    files = Certificates(directory)
    try:
        server, client = _read(files.server), _read(files.client)
        names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        is_complete = files.authority.exists() and files.upload.exists()
    except (OSError, ValueError, x509.ExtensionNotFound):
        return None
    good_until = min(server.not_valid_after_utc, client.not_valid_after_utc)
    is_good = good_until - datetime.now(UTC) > LEAST_LEFT and _name(host) in list(names)
    return files if is_complete and is_good else None


def make_certificates(directory: Path, *, host: str) -> Certificates:
    """Make the directory and new files in it, readable by their owner only, over those that are there."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = Certificates(directory)
    authority = _Authority()
    served = {_name(name): None for name in ("127.0.0.1", "::1", "localhost", host)}
    server, server_key = authority.issue("provider for rehearsals", ExtendedKeyUsageOID.SERVER_AUTH, list(served))
    client, client_key = authority.issue(
        "client for rehearsals", ExtendedKeyUsageOID.CLIENT_AUTH, [x509.DNSName("client.invalid")]
    )
    upload = {
        "name": "rehearsal certificate",
        "certificate_content": client.decode(),
        "private_key": client_key.decode(),
    }
    _write(files.authority, authority.certificate.public_bytes(serialization.Encoding.PEM))
    _write(files.server, server + server_key)
    _write(files.client, client + client_key)
    _write(files.upload, json.dumps(upload).encode())
    return files


class _Authority:
    """A CA that lives as long as this object."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject("CA for rehearsals")
        signs = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        self.certificate = (
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **signs), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def issue(self, name: str, purpose: x509.ObjectIdentifier, names: list[x509.GeneralName]) -> tuple[bytes, bytes]:
        """A certificate and its key, in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            _builder(_subject(name), self._name, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        unencrypted = serialization.NoEncryption()
        return (
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unencrypted),
        )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A vault on another machine may have a clock that is a little behind.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
