"""Root keys, and the wrapping of data keys under them. Knows no model.

`KNOXCALL_MASTER_KEYS` is `id:base64,id:base64`, 32 bytes each, newest first: the first one wraps, all of them unwrap.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import uuid
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.core.exceptions import ImproperlyConfigured

from secrets_app.crypto.cipher import KEY_BYTES, NONCE_BYTES, SealBroken

_ID = re.compile(r"[A-Za-z0-9_.-]{1,32}")


@dataclass(frozen=True, slots=True, repr=False)
class RootKeys:
    """The root keys by id, newest first."""

    keys: dict[str, bytes]

    def __repr__(self) -> str:
        return f"RootKeys({', '.join(self.keys)})"

    @classmethod
    def parse(cls, text: str) -> RootKeys:
        """Read the setting. Raises ``ImproperlyConfigured``, quoting nothing but ids."""
        keys: dict[str, bytes] = {}
        for entry in (part.strip() for part in re.split(r"[,\n]", text)):
            if not entry:
                continue
            key_id, colon, encoded = entry.partition(":")
            if not colon or not _ID.fullmatch(key_id):
                raise ImproperlyConfigured("KNOXCALL_MASTER_KEYS: each entry is id:base64, with a plain id.")
            try:
                key = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                raise ImproperlyConfigured(f"KNOXCALL_MASTER_KEYS: key `{key_id}` is not base64.") from None
            if len(key) != KEY_BYTES:
                raise ImproperlyConfigured(
                    f"KNOXCALL_MASTER_KEYS: key `{key_id}` has {len(key)} bytes instead of {KEY_BYTES}."
                )
            if key_id in keys:
                raise ImproperlyConfigured(f"KNOXCALL_MASTER_KEYS: two keys are called `{key_id}`.")
            keys[key_id] = key
        if not keys:
            raise ImproperlyConfigured("KNOXCALL_MASTER_KEYS names no key.")
        return cls(keys)

    @property
    def newest(self) -> str:
        """The id of the key that wraps."""
        return next(iter(self.keys))

    def wrap(self, data_key: bytes, *, label: bytes) -> tuple[str, bytes]:
        """Wrap ``data_key`` for the row that ``label`` names; returns the root key's id and `nonce | ciphertext and tag`."""
        nonce = os.urandom(NONCE_BYTES)
        return self.newest, nonce + AESGCM(self.keys[self.newest]).encrypt(nonce, data_key, label)

    def unwrap(self, root_key_id: str, wrapped: bytes, *, label: bytes) -> bytes:
        """Unwrap a data key. Raises ``SealBroken`` when the root key is not there or the wrapping was tampered with."""
        root = self.keys.get(root_key_id)
        if root is None:
            raise SealBroken(f"the root key `{root_key_id}` is not among KNOXCALL_MASTER_KEYS")
        try:
            return AESGCM(root).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], label)
        except (InvalidTag, ValueError):
            raise SealBroken(f"a data key does not unwrap under the root key `{root_key_id}`") from None


def new_data_key() -> bytes:
    """256 random bits."""
    return os.urandom(KEY_BYTES)


def wrapping_label(*, key_id: uuid.UUID, account: uuid.UUID | None, purpose: str) -> bytes:
    """What a wrapped data key is bound to: its own row, its account and its purpose."""
    return b"|".join((b"data-key", key_id.bytes, account.bytes if account else b"", purpose.encode()))
