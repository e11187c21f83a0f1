"""Keys to the API: making one, and telling whether one that was shown is real.

A key is `tk_live_` (or `tk_test_`), 12 characters that identify it, 43 characters that carry 256 random bits, and a checksum
of 6, so that a scanner of leaked text knows one without asking us. Stored is HMAC-SHA-256 under the installation's pepper.
"""

from __future__ import annotations

import secrets
import string
import uuid
import zlib
from datetime import datetime

from django.db import transaction

from secrets_app import audit, data_keys
from secrets_app.models import ApiKey, Mode

_ALPHABET = string.digits + string.ascii_letters
_ID_LENGTH = 12
_SECRET_LENGTH = 43  # 62⁴³ > 2²⁵⁶
_CHECKSUM_LENGTH = 6  # 62⁶ > 2³²
_DOMAIN = "api-key"


def create_api_key(
    account_id: uuid.UUID,
    *,
    name: str,
    actor: audit.Actor = audit.COMMAND_LINE,
    mode: str = Mode.LIVE,
    role: str = ApiKey.Role.EDITOR,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Create a key; returns its row and, this once, the key itself. Raises ``ValueError`` for a name that is too long."""
    if not 1 <= len(name) <= 255:
        raise ValueError("A key's name has 1 to 255 characters.")
    prefix = f"tk_{mode}_" + _random(_ID_LENGTH)
    body = prefix + _random(_SECRET_LENGTH)
    key = body + _checksum(body)
    pepper_id, digest = data_keys.keyed_digest(_DOMAIN, key.encode())
    with transaction.atomic():
        row = ApiKey.objects.create(
            account_id=account_id,
            mode=mode,
            name=name,
            role=role,
            key_id=prefix,
            digest=digest,
            pepper_id=pepper_id,
            expires_at=expires_at,
        )
        audit.record(
            audit.Action.API_KEY_CREATED,
            account_id=account_id,
            mode=mode,
            resource_type="api_key",
            resource_id=row.pk,
            actor=actor,
            details={"key_id": prefix, "role": role},
        )
    return row, key


def find_api_key(shown: str) -> ApiKey | None:
    """Return the live key that was shown, with its account, in one statement; ``None`` for anything else.

    A text that is no key by its form or checksum costs no statement.
    """
    mode = shown[3:7] if shown.startswith("tk_") else ""
    if mode not in Mode.values or len(shown) != len("tk_live_") + _ID_LENGTH + _SECRET_LENGTH + _CHECKSUM_LENGTH:
        return None
    # Anyone can make a fitting checksum, so it does not keep a NUL from PostgreSQL, which would refuse the question.
    if not (shown.isascii() and shown[len("tk_live_") :].isalnum()):
        return None
    if _checksum(shown[:-_CHECKSUM_LENGTH]) != shown[-_CHECKSUM_LENGTH:]:
        return None
    key_id = shown[: len("tk_live_") + _ID_LENGTH]
    try:
        row: ApiKey = ApiKey.objects.live().select_related("account").get(key_id=key_id)
    except ApiKey.DoesNotExist:
        return None
    if not data_keys.matches_digest(_DOMAIN, shown.encode(), row.pepper_id, bytes(row.digest)):
        return None
    return row


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    number, text = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        text = _ALPHABET[digit] + text
    return text
