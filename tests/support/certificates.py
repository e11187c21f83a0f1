"""Certificate files of every kind, made of small EC keys. One chain per process: leaf, intermediate, root."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs7,
    pkcs12,
)
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Any = field(repr=False)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def der(self) -> str:
        """As base64, in lines, as `openssl base64` writes it."""
        return base64.encodebytes(self.certificate.public_bytes(Encoding.DER)).decode()

    def key_pem(self, passphrase: str | None = None, *, traditional: bool = False) -> str:
        style = PrivateFormat.TraditionalOpenSSL if traditional else PrivateFormat.PKCS8
        encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
        return self.key.private_bytes(Encoding.PEM, style, encryption).decode()

    def pkcs12(self, passphrase: str | None = None, *issuers: Issued, key: bool = True) -> str:
        encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
        others = [issuer.certificate for issuer in issuers]
        made = pkcs12.serialize_key_and_certificates(
            b"name",
            self.key if key else None,
            self.certificate if key else None,
            others if key else [self.certificate, *others],
            encryption,
        )
        return base64.b64encode(made).decode()


def issue(
    name: str,
    issuer: Issued | None = None,
    *,
    key: Any = None,
    days: tuple[float, float] = (-1, 90),
    serial: int = 255,
    ca: bool = False,
) -> Issued:
    """A certificate called ``name``, valid from and until so many days from now; self-signed without ``issuer``.

    ``ca``: a peer takes it for an authority.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer.key if issuer else key
    plain = isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(NOW + days[0] * DAY)
        .not_valid_after(NOW + days[1] * DAY)
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return Issued(builder.sign(signer, None if plain else hashes.SHA256()), key)


@cache
def chain() -> tuple[Issued, Issued, Issued]:
    """Leaf, intermediate, root."""
    root = issue("root")
    middle = issue("middle", root)
    return issue("leaf", middle), middle, root


def pkcs7_of(*issued: Issued, encoding: Encoding = Encoding.DER) -> str:
    made = pkcs7.serialize_certificates([each.certificate for each in issued], encoding)
    return made.decode() if encoding is Encoding.PEM else base64.b64encode(made).decode()
