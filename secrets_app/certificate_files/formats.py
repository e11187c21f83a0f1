"""The formats: PEM text (RFC 7468), DER, PKCS#12 (RFC 7292) and PKCS#7 (RFC 2315), opened into certificates and private keys."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs7 import load_der_pkcs7_certificates
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

CONTENT = "certificate_content"
PRIVATE_KEY = "private_key"
PASSPHRASE = "passphrase"

PKCS12_TYPES = ("pfx", "p12")
PKCS7_TYPES = ("pkcs7", "p7b", "p7c")
KEY_TYPE = "key"
CERTIFICATE_TYPES = ("pem", *PKCS12_TYPES, "crt", "cer", KEY_TYPE, *PKCS7_TYPES)

_CERTIFICATE_LABELS = ("CERTIFICATE", "X509 CERTIFICATE")
_PKCS7_LABELS = ("PKCS7", "CMS")
_ENCRYPTED_LABEL = "ENCRYPTED PRIVATE KEY"
_KEY_LABELS = ("PRIVATE KEY", _ENCRYPTED_LABEL, "RSA PRIVATE KEY", "EC PRIVATE KEY")
# OpenSSL writes it before an EC key, which names its curve itself.
_IGNORED_LABELS = ("EC PARAMETERS",)

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----(.*?)-----END \1-----", re.DOTALL)
_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
_PKCS12_VERSION = bytes.fromhex("020103")


class Unreadable(Exception):
    """What was sent is not what it should be. ``field`` says where; ``message`` quotes nothing of it."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        self.message = message
        super().__init__(f"{field}: {message}")


@dataclass
class Contents:
    """The certificates and private keys of a file, in its order."""

    certificates: list[x509.Certificate] = field(default_factory=list)
    keys: list[PrivateKeyTypes] = field(default_factory=list, repr=False)


def open_content(content: str, *, certificate_type: str, passphrase: str | None) -> Contents:
    """Open the content as the kind of file that ``certificate_type`` says it is. Raises ``Unreadable``."""
    if certificate_type in PKCS12_TYPES:
        return _open_pkcs12(_decode(content, "PKCS#12"), passphrase)
    if certificate_type in PKCS7_TYPES:
        return _open_pkcs7(content)
    if "-----BEGIN" in content:
        return open_pem(content, where=CONTENT, passphrase=passphrase)
    if certificate_type == KEY_TYPE:
        raise Unreadable(CONTENT, "Must be PEM text that holds a private key and its certificate.")
    return _open_der(_decode(content, "DER"))


def open_pem(text: str, *, where: str, passphrase: str | None) -> Contents:
    """Open PEM text of certificates and private keys, in any order. Raises ``Unreadable`` about ``where``."""
    contents = Contents()
    for label, block in _blocks(text, where):
        if label in _CERTIFICATE_LABELS:
            contents.certificates.append(_load_certificate(_body(block, where), where))
        elif label in _KEY_LABELS:
            contents.keys.append(_load_key(block, where, passphrase))
        elif label in _PKCS7_LABELS:
            raise Unreadable(where, f"Holds PKCS#7, whose certificate_type is one of: {', '.join(PKCS7_TYPES)}.")
        elif label not in _IGNORED_LABELS:
            raise Unreadable(where, "Holds a block that is neither a certificate nor a private key.")
    return contents


def _blocks(text: str, where: str) -> Iterator[tuple[str, str]]:
    """The blocks of PEM text. What explains a block stands before it, so nothing may follow the last (RFC 7468 §2)."""
    end = 0
    for match in _BLOCK.finditer(text):
        if "-----" in text[end : match.start()] or "-----" in match[2]:
            raise Unreadable(where, "Holds a block whose BEGIN and END lines do not belong together.")
        end = match.end()
        yield match[1], match[0]
    if text[end:].strip():
        raise Unreadable(where, "Is not PEM text to its end." if end else "Must be PEM text.")


def _body(block: str, where: str) -> bytes:
    inner = _BLOCK.fullmatch(block)
    return _unbase64(inner[2] if inner else "", where, "Holds a block that is not base64.")


def _unbase64(text: str, where: str, message: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable(where, message) from None


def _decode(content: str, what: str) -> bytes:
    """The bytes of one whole ASN.1 value, sent as base64."""
    if not content.strip() or "-----BEGIN" in content:
        raise Unreadable(CONTENT, f"Must be base64 of {what}.")
    der = _unbase64(content, CONTENT, f"Must be base64 of {what}" + (", or PEM text." if what == "DER" else "."))
    if not _is_whole(der):
        raise Unreadable(CONTENT, f"Is not {what}, or not to its end.")
    return der


def _is_whole(der: bytes) -> bool:
    """Whether ``der`` is one SEQUENCE and nothing behind it: OpenSSL, asked for the older formats, reads on past anything."""
    start = _value_start(der)
    if start is None:
        return False
    if der[1] == 0x80:
        # BER of no stated length, as some programs write PKCS#7 and PKCS#12, ends with two zeros (X.690 §8.1.5).
        return der.endswith(b"\0\0")
    length = der[1] if der[1] < 0x80 else int.from_bytes(der[2:start], "big")
    return start + length == len(der)


def _value_start(der: bytes) -> int | None:
    """Where the value inside the outermost SEQUENCE starts; ``None`` where there is no SEQUENCE."""
    if len(der) < 2 or der[0] != 0x30:
        return None
    start = 2 + (der[1] & 0x7F if der[1] > 0x80 else 0)
    return start if start <= len(der) else None


def _open_der(der: bytes) -> Contents:
    value = der[_value_start(der) or 0 :]
    if value.startswith(_PKCS12_VERSION):
        raise Unreadable(CONTENT, f"Is PKCS#12, whose certificate_type is one of: {', '.join(PKCS12_TYPES)}.")
    if value.startswith(_SIGNED_DATA):
        raise Unreadable(CONTENT, f"Is PKCS#7, whose certificate_type is one of: {', '.join(PKCS7_TYPES)}.")
    return Contents([_load_certificate(der, CONTENT)])


def _open_pkcs12(der: bytes, passphrase: str | None) -> Contents:
    if not der[_value_start(der) or 0 :].startswith(_PKCS12_VERSION):
        raise Unreadable(CONTENT, "Is not PKCS#12.")
    try:
        opened = load_pkcs12(der, None if passphrase is None else passphrase.encode())
    except ValueError:
        # The library tells a wrong passphrase from a damaged file no more than the file itself does.
        if passphrase is None:
            message = "The PKCS#12 content needs its passphrase, or is damaged."
        else:
            message = "Does not open the PKCS#12 content, or that is damaged."
        raise Unreadable(PASSPHRASE, message) from None
    own = [opened.cert] if opened.cert else []
    return Contents(
        [bag.certificate for bag in (*own, *opened.additional_certs)], [opened.key] if opened.key is not None else []
    )


def _open_pkcs7(content: str) -> Contents:
    if "-----BEGIN" in content:
        blocks = list(_blocks(content, CONTENT))
        if len(blocks) != 1 or blocks[0][0] not in _PKCS7_LABELS:
            raise Unreadable(CONTENT, "Must be one block of PKCS#7.")
        der = _body(blocks[0][1], CONTENT)
    else:
        der = _decode(content, "PKCS#7")
    if not _is_whole(der) or not der[_value_start(der) or 0 :].startswith(_SIGNED_DATA):
        raise Unreadable(CONTENT, "Is not PKCS#7 with certificates, or not to its end.")
    try:
        return Contents(load_der_pkcs7_certificates(der))
    except ValueError:
        raise Unreadable(CONTENT, "Is not PKCS#7 with certificates.") from None


def _load_certificate(der: bytes, where: str) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion):
        raise Unreadable(where, "Holds something that should be a certificate and is none.") from None


def _load_key(block: str, where: str, passphrase: str | None) -> PrivateKeyTypes:
    encrypted = block.startswith(f"-----BEGIN {_ENCRYPTED_LABEL}") or "Proc-Type: 4,ENCRYPTED" in block
    if encrypted and passphrase is None:
        raise Unreadable(PASSPHRASE, "The private key is encrypted and needs its passphrase.")
    secret = passphrase.encode() if encrypted and passphrase is not None else None
    try:
        return load_pem_private_key(block.encode(), secret)
    except (ValueError, TypeError) as err:
        if encrypted:
            raise Unreadable(PASSPHRASE, "Does not open the private key, or that is damaged.") from err
        raise Unreadable(where, "Holds a private key that cannot be read.") from err
