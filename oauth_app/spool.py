"""The spool: outcomes that the database could not take yet, sealed and synced to disk, one file for each attempt.

A rotated refresh token exists nowhere but in the answer that brought it. What lies here survives the process; any worker that
works in this directory stores it (``oauth_app.storing``). A file is removed once its outcome is stored or is known not to be
needed, and never otherwise.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import models

from knoxcall.embedded import make_private_directory
from oauth_app.models import Connection
from oauth_app.outcome import Event, Outcome
from secrets_app import data_keys
from secrets_app.crypto.cipher import Ciphertext, Place, Plaintext

ENDING = ".outcome"
# What a database refused for what it is, and nobody takes up again.
REFUSED = ".refused"
VERSION = 1
_TABLE = "spool"
_COLUMN = "outcome"
# Version, account, connection: what has to be known before the rest can be opened.
_HEADER_BYTES = 1 + 16 + 16


class Unreadable(Exception):
    """A file of the spool that does not open or does not say what it should. It stays where it is."""


def directory() -> Path:
    """The directory of the spool: it belongs to the machine, or to those that share it."""
    path: Path = settings.SPOOL_DIR
    return path


def files() -> list[Path]:
    """The outcomes on disk, in no order."""
    try:
        with os.scandir(directory()) as entries:
            return [Path(entry.path) for entry in entries if entry.name.endswith(ENDING)]
    except FileNotFoundError:
        return []


def path_of(outcome: Outcome) -> Path:
    """Where ``outcome`` lies, or would."""
    return directory() / f"{outcome.connection_id}.{outcome.attempt}{ENDING}"


def sealed(outcome: Outcome, seal: Callable[[Plaintext, Place], Ciphertext]) -> bytes:
    """What a file says of ``outcome``: one seal, made by ``seal``, after what has to be known to open it."""
    document = seal(_document(outcome), _place(outcome.account_id, outcome.connection_id))
    return bytes([VERSION]) + outcome.account_id.bytes + outcome.connection_id.bytes + document


def write(outcome: Outcome, content: bytes) -> Path:
    """Write ``outcome``, sealed as ``content``, and sync it: it survives a crash from when this returns. Raises ``OSError``."""
    path = path_of(outcome)
    if not path.parent.exists():
        make_private_directory(path.parent)
        _sync(path.parent.parent)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    _sync(path.parent)
    return path


def read(path: Path) -> Outcome:
    """The outcome in ``path``. Raises ``Unreadable``, ``SealBroken``, ``FileNotFoundError``, and what the database raises."""
    content = path.read_bytes()
    if len(content) <= _HEADER_BYTES or content[0] != VERSION:
        raise Unreadable("it is of another version, or cut off")
    account, connection = uuid.UUID(bytes=content[1:17]), uuid.UUID(bytes=content[17:_HEADER_BYTES])
    document = data_keys.unseal(content[_HEADER_BYTES:], _place(account, connection))
    return _outcome(document, account, connection)


def remove(path: Path) -> None:
    """Remove what is stored, or not needed any more."""
    path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Keep what is in ``path`` under a name that nobody adopts; returns that. Raises ``OSError``."""
    return path.replace(path.with_suffix(REFUSED))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _place(account: uuid.UUID, connection: uuid.UUID) -> Place:
    return Place(account=account, table=_TABLE, column=_COLUMN, row=connection)


def _document(outcome: Outcome) -> Plaintext:
    event = outcome.event
    return Plaintext(
        json.dumps(
            {
                "secret_id": str(outcome.secret_id),
                "attempt": str(outcome.attempt),
                "generation": outcome.generation,
                "is_token": outcome.is_token,
                "columns": {name: _spelt(value) for name, value in outcome.columns.items()},
                "stamps": outcome.stamps,
                "event": event and [event.previous_status, event.status, event.code, event.message],
                "line": outcome.line,
            }
        )
    )


def _outcome(document: Plaintext, account: uuid.UUID, connection: uuid.UUID) -> Outcome:
    try:
        data = json.loads(document.reveal())
        return Outcome(
            connection_id=connection,
            account_id=account,
            secret_id=uuid.UUID(data["secret_id"]),
            attempt=uuid.UUID(data["attempt"]),
            generation=data["generation"],
            is_token=data["is_token"],
            columns={name: _meant(name, value) for name, value in data["columns"].items()},
            stamps=tuple(_column(name).attname for name in data["stamps"]),
            event=Event(*data["event"]) if data["event"] else None,
            line=data["line"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        # Written by a newer release, maybe.
        raise Unreadable(f"it names what this release does not know ({type(err).__name__})") from None


def _spelt(value: Any) -> Any:
    """``value`` as JSON has it."""
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case datetime():
            return value.isoformat()
        case uuid.UUID():
            return str(value)
    return value


def _meant(name: str, value: Any) -> Any:
    """What the column ``name`` means by a value of JSON. Raises ``ValueError`` for a column that there is not."""
    match _column(name):
        case _ if value is None:
            return None
        case models.BinaryField():
            return Ciphertext(base64.b64decode(value, validate=True))
        case models.DateTimeField():
            return datetime.fromisoformat(value)
        case models.UUIDField():
            return uuid.UUID(value)
    return value


def _column(name: str) -> Any:
    column = next((column for column in Connection._meta.concrete_fields if column.attname == name), None)
    if column is None:
        raise ValueError("an unknown column")
    return column
