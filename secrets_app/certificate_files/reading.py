"""From what was sent to what is kept: opened, checked, and described."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from secrets_app.certificate_files.chain import check_strength, order
from secrets_app.certificate_files.formats import (
    CONTENT,
    KEY_TYPE,
    PASSPHRASE,
    PKCS12_TYPES,
    PRIVATE_KEY,
    Contents,
    Unreadable,
    open_content,
    open_pem,
)

MOST_CERTIFICATES = 20
# What OpenSSL takes from a callback, less its closing zero.
LONGEST_PASSPHRASE_BYTES = 1023
LONGEST_NAME = 1000
# RFC 5280 §4.1.2.2: at most 20 octets.
LONGEST_SERIAL_BITS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A certificate with its chain and key. Plain strings, so that it can be passed on as JSON.

    ``chain`` is PEM, leaf first; ``private_key`` is PEM of PKCS#8, encrypted under the passphrase where one was given. Times
    are ISO-8601 with their offset, numbers are lower-case hex, names are RFC 4514 strings, cut at 1,000 characters.
    """

    chain: str
    private_key: str | None = field(repr=False)
    subject: str
    issuer: str
    serial_number: str
    fingerprint_sha256: str
    not_before: str
    expires_at: str


def read(content: str, *, certificate_type: str, private_key: str | None, passphrase: str | None) -> Reading:
    """Read a certificate file and the private key in or beside it. Raises ``Unreadable``, whatever the bytes are.

    A passphrase must open what is encrypted; given with a key that is not, it encrypts that; given with neither it is refused.
    A certificate that has expired is read like any other.
    """
    try:
        _check_passphrase(passphrase)
        contents = open_content(content, certificate_type=certificate_type, passphrase=passphrase)
        key = _the_key(contents, private_key, passphrase)
        if certificate_type == KEY_TYPE and not contents.keys:
            raise Unreadable(CONTENT, "Holds no private key.")
        if passphrase is not None and key is None and certificate_type not in PKCS12_TYPES:
            raise Unreadable(PASSPHRASE, "Protects nothing: there is no private key.")
        if not contents.certificates:
            raise Unreadable(CONTENT, "Holds no certificate.")
        if len(contents.certificates) > MOST_CERTIFICATES:
            raise Unreadable(CONTENT, f"Holds more than {MOST_CERTIFICATES} certificates.")
        chain = order(contents.certificates, key)
        check_strength(chain[0])
        return _describe(chain, key, passphrase)
    except Unreadable:
        raise
    except Exception as err:
        # The library reads much of a certificate only when asked for it, and has no one error for what it finds.
        raise Unreadable(CONTENT, "Cannot be read.") from err


def _check_passphrase(passphrase: str | None) -> None:
    if passphrase is None:
        return
    if len(passphrase.encode()) > LONGEST_PASSPHRASE_BYTES:
        raise Unreadable(PASSPHRASE, f"Must be at most {LONGEST_PASSPHRASE_BYTES} bytes of UTF-8.")
    if not passphrase or "\0" in passphrase:
        # OpenSSL would read it up to there only.
        raise Unreadable(PASSPHRASE, "Must have at least one character, and no NUL.")


def _the_key(contents: Contents, private_key: str | None, passphrase: str | None) -> PrivateKeyTypes | None:
    keys = list(contents.keys)
    if private_key is not None:
        beside = open_pem(private_key, where=PRIVATE_KEY, passphrase=passphrase)
        if beside.certificates or len(beside.keys) != 1:
            raise Unreadable(PRIVATE_KEY, "Must be PEM text of one private key.")
        if keys:
            raise Unreadable(PRIVATE_KEY, "The content holds a private key already.")
        keys = beside.keys
    if len(keys) > 1:
        raise Unreadable(CONTENT, "Holds more than one private key.")
    return keys[0] if keys else None


def _describe(chain: list[x509.Certificate], key: PrivateKeyTypes | None, passphrase: str | None) -> Reading:
    leaf = chain[0]
    serial = leaf.serial_number
    if serial < 0 or serial.bit_length() > LONGEST_SERIAL_BITS:
        raise Unreadable(CONTENT, "Its serial number is negative or longer than 20 octets.")
    return Reading(
        chain="".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in chain),
        private_key=None if key is None else _encode_key(key, passphrase),
        subject=leaf.subject.rfc4514_string()[:LONGEST_NAME],
        issuer=leaf.issuer.rfc4514_string()[:LONGEST_NAME],
        serial_number=f"{serial:x}",
        fingerprint_sha256=leaf.fingerprint(hashes.SHA256()).hex(),
        not_before=leaf.not_valid_before_utc.isoformat(),
        expires_at=leaf.not_valid_after_utc.isoformat(),
    )


def _encode_key(key: PrivateKeyTypes, passphrase: str | None) -> str:
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()
