"""Sealing one value: AES-256-GCM with a random 96-bit nonce, bound to the place it is stored in. Knows no model.

A sealed value is ``version (1 byte) | data key id (16) | nonce (12) | ciphertext and tag``. The additional authenticated data
is the header and the place, so a value moved to another account, table, column or row does not open.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION = 1
NONCE_BYTES = 12
KEY_BYTES = 32
_HEADER_BYTES = 1 + 16
_OVERHEAD_BYTES = _HEADER_BYTES + NONCE_BYTES + 16


class SealBroken(Exception):
    """A sealed value did not open: changed, moved from its place, of an unknown version, or under a key that is not there."""


class Ciphertext(bytes):
    """A sealed value as bytes: the only bytes that a sealed column stores."""

    def __repr__(self) -> str:
        return "<sealed>"


class Plaintext:
    """A decrypted value on its way to the one caller who asked. Prints ``****``; does not pickle, compare or serialise."""

    __slots__ = ("_value",)

    def __init__(self, value: str | bytes) -> None:
        self._value = value.encode() if isinstance(value, str) else value

    def reveal(self) -> str:
        """The value as text."""
        return self._value.decode()

    def reveal_bytes(self) -> bytes:
        """The value as bytes."""
        return self._value

    def __repr__(self) -> str:
        return "****"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "****"

    def __reduce__(self) -> str:
        raise TypeError("a plaintext is not pickled")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed value lives. ``account`` is ``None`` for what belongs to the installation."""

    account: uuid.UUID | None
    table: str
    column: str
    row: uuid.UUID

    def encode(self) -> bytes:
        """An unambiguous encoding: each part with its length before it."""
        parts = (self.account.bytes if self.account else b"", self.table.encode(), self.column.encode(), self.row.bytes)
        return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def seal(key: bytes, key_id: uuid.UUID, plaintext: Plaintext, place: Place) -> Ciphertext:
    """Seal ``plaintext`` under a 32-byte data key, for ``place``."""
    header = bytes([VERSION]) + key_id.bytes
    nonce = os.urandom(NONCE_BYTES)
    return Ciphertext(header + nonce + AESGCM(key).encrypt(nonce, plaintext.reveal_bytes(), header + place.encode()))


def key_id_of(sealed: bytes) -> uuid.UUID:
    """The data key that ``sealed`` names. Raises ``SealBroken`` for anything that is not a sealed value."""
    if len(sealed) < _OVERHEAD_BYTES:
        raise SealBroken("too short to be a sealed value")
    if sealed[0] != VERSION:
        raise SealBroken(f"sealed in version {sealed[0]}, which this release does not know")
    return uuid.UUID(bytes=sealed[1:_HEADER_BYTES])


def unseal(key: bytes, sealed: bytes, place: Place) -> Plaintext:
    """Open ``sealed``. Raises ``SealBroken``, never returns anything else in its stead."""
    key_id_of(sealed)
    header, nonce = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES : _HEADER_BYTES + NONCE_BYTES]
    try:
        return Plaintext(AESGCM(key).decrypt(nonce, sealed[_HEADER_BYTES + NONCE_BYTES :], header + place.encode()))
    except InvalidTag:
        raise SealBroken(f"a value of {place.table}.{place.column} does not open in its place") from None
