"""The embedded default's own state: the data directory, and the keys that are made on the first start.

A production machine is given its keys; a laptop makes them once. Nothing else in the project writes key material to disk.
"""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured


def make_private_directory(path: Path) -> Path:
    """Create ``path`` readable by its owner only, and return it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def read_or_create_key_file(path: Path, *, content: str, guards: Path) -> str:
    """Return the text of the key file ``path``; on the first start write ``content`` into it, owner-only and synced.

    ``guards`` is the database whose values these keys open. If that exists and the key file does not, the file was lost:
    raises ``ImproperlyConfigured``, because fresh keys would make every stored value unreadable without saying so.
    """
    try:
        return path.read_text()
    except FileNotFoundError:
        # Looked for again after the database: another process may be making both, the keys first.
        if guards.exists() and not path.exists():
            raise ImproperlyConfigured(
                f"{path} is missing, but {guards} exists and was sealed with it. Put the key file back from your backup, "
                f"or move the database away to start afresh."
            ) from None
    make_private_directory(path.parent)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        # A link fails where the name exists: of two processes that start at once, the second one reads the first one's keys.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return path.read_text()


def new_master_keys() -> str:
    """A first ``KNOXCALL_MASTER_KEYS`` value: one key of 256 random bits, named ``k1``."""
    return f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}"
