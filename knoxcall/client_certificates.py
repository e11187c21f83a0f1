"""Client certificates (RFC 8705): how they get into a TLS context without a key on disk, and why a peer refuses one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from knoxcall.outbound_errors import ClientCertificateRefused, ClientCertificateUnusable


@dataclass(frozen=True, slots=True, repr=False)
class ClientCertificate:
    """A certificate with its private key, to be shown on behalf of one account."""

    owner: str
    """The account. What is the same for two owners is still two certificates: they share no connection."""
    chain: bytes
    """PEM, the leaf first, then what leads to an authority that the peer knows."""
    private_key: bytes
    """PEM, perhaps encrypted."""
    passphrase: bytes | None = None
    """Of the private key; ``None`` where that is not encrypted."""

    def __repr__(self) -> str:
        return f"<ClientCertificate {self.identity[:12]}>"

    @property
    def identity(self) -> str:
        """A digest that differs for every owner and every chain. The private key, which goes with the leaf, is not in it."""
        owner = self.owner.encode()
        return hashlib.sha256(len(owner).to_bytes(8) + owner + self.chain).hexdigest()

    @property
    def expires_at(self) -> datetime:
        """When the leaf expires, in UTC. Raises ``ClientCertificateUnusable``."""
        return self._certificates()[0].not_valid_after_utc

    def load_into(self, context: ssl.SSLContext) -> None:
        """Let ``context`` show this certificate. Raises ``ClientCertificateUnusable``, whose text quotes nothing."""
        # Written anew: nothing but certificates may come out, even if the text holds more.
        chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self._certificates())
        passphrase = secrets.token_hex(32)
        with _passing_file(chain + self._private_key_under(passphrase)) as path:
            try:
                # Always a callable: without one OpenSSL may ask on the terminal.
                context.load_cert_chain(path, password=lambda: passphrase)
            except ssl.SSLError as error:
                if error.reason == "KEY_VALUES_MISMATCH":
                    raise _unusable("its private key belongs to another certificate") from None
                # A weak key or digest, above all. The reason is OpenSSL's own name for it.
                reason = (error.reason or "no reason given").lower().replace("_", " ")
                raise _unusable(f"it is not accepted by OpenSSL ({reason})") from None

    def find_lapse(self) -> str | None:
        """Why the leaf is not valid today by our own clock, as a clause about "it"."""
        starts_at, now = self._certificates()[0].not_valid_before_utc, datetime.now(UTC)
        if self.expires_at < now:
            return f"it has expired (on {self.expires_at.date().isoformat()})"
        if starts_at > now:
            return f"it is not valid before {starts_at.date().isoformat()}"
        return None

    def _certificates(self) -> list[x509.Certificate]:
        try:
            return x509.load_pem_x509_certificates(self.chain)
        except ValueError:
            raise _unusable("it cannot be read") from None

    def _private_key_under(self, passphrase: str) -> bytes:
        """The private key as encrypted PKCS#8.

        OpenSSL takes a key from a file only, and even a file in memory may be swapped out. 256 random bits need no slow
        derivation of a key: the default, which takes a third of a millisecond, is plenty.
        """
        try:
            key = load_pem_private_key(self.private_key, self.passphrase)
            return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase.encode()))
        # TypeError: a passphrase is missing, or given for a key that is not encrypted.
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise _unusable("its private key, or the passphrase of that, is not valid") from None


def _unusable(cause: str) -> ClientCertificateUnusable:
    return ClientCertificateUnusable(f"The client certificate cannot be used: {cause}.")


@contextlib.contextmanager
def _passing_file(content: bytes) -> Iterator[str]:
    """The path of a file that only this process needs: in memory where the system can, and gone afterwards."""
    with contextlib.ExitStack() as stack:
        file: IO[bytes]
        if hasattr(os, "memfd_create"):
            # Closed on exec, which is the default.
            file = stack.enter_context(open(os.memfd_create("client-certificate"), "wb"))
            path = f"/proc/self/fd/{file.fileno()}"
        else:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            file = stack.enter_context(tempfile.NamedTemporaryFile(dir=directory))
            path = file.name
        file.write(content)
        file.flush()
        yield path


# What the alerts of RFC 8446 §6.2 say about a certificate that was shown, as clauses about "it".
_COMPLAINTS = {
    "BAD_CERTIFICATE": "it could not be verified there",
    "UNSUPPORTED_CERTIFICATE": "it is of a kind, or for a use, that {host} does not accept",
    "CERTIFICATE_REVOKED": "it has been revoked",
    "CERTIFICATE_EXPIRED": "it, or one that it was issued with, has expired by the clock of {host}",
    "CERTIFICATE_UNKNOWN": "{host} does not say why",
    "UNKNOWN_CA": "it was issued by an authority that {host} does not know",
    "ACCESS_DENIED": "it gives no access there",
    "HANDSHAKE_FAILURE": "{host} does not say why",
}
_EXPLAINED_BY_A_LAPSE = {"BAD_CERTIFICATE", "CERTIFICATE_EXPIRED", "CERTIFICATE_UNKNOWN", "HANDSHAKE_FAILURE"}
# What peers send that were shown none: the first in TLS 1.3, the others before, and some the second in both.
_DEMANDS = {"CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "HANDSHAKE_FAILURE"}


def find_refusal(alert: str, host: str, certificate: ClientCertificate | None) -> ClientCertificateRefused | None:
    """The error that ``alert`` means if it is about the certificate that ``host`` was shown, or about there being none."""
    if certificate is None:
        if alert in _DEMANDS:
            return ClientCertificateRefused(f"{host} demands a client certificate, and none was shown.")
        return None
    if alert == "CERTIFICATE_REQUIRED":
        # OpenSSL shows none when its key can make no signature that the peer takes.
        return ClientCertificateRefused(f"{host} demands a client certificate of another kind than ours.")
    if alert not in _COMPLAINTS:
        return None
    cause, lapse = _COMPLAINTS[alert].format(host=host), certificate.find_lapse()
    if lapse:
        cause = lapse if alert in _EXPLAINED_BY_A_LAPSE else f"{cause}, and {lapse}"
    return ClientCertificateRefused(f"{host} refused our client certificate: {cause}.")
