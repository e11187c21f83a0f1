"""Data keys in use: which one seals for an account, opening what older ones sealed, and retiring them in time.

Unwrapped keys are kept in the process. A key made inside a transaction is kept only once that has committed: a value sealed
elsewhere under a key that was rolled back would never open again.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import TypeVar

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from secrets_app.crypto import cipher
from secrets_app.crypto.cipher import Ciphertext, Place, Plaintext, SealBroken
from secrets_app.crypto.keyring import RootKeys, new_data_key, wrapping_label
from secrets_app.models import DataKey

# A random 96-bit nonce may seal 2³² values under one key before a collision is worth fearing (NIST SP 800-38D §8.3). We stop
# at a quarter of that; counting is by blocks that a process reserves, so that sealing costs no statement.
MAX_SEALS = 2**30
SEAL_BLOCK = 2**14
MAX_AGE = timedelta(days=30)
_KEPT_KEYS = 10_000

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True, repr=False)
class _Current:
    """The key that seals for an account, and how many seals this process may still make under it."""

    key_id: uuid.UUID
    key: bytes
    created_at: datetime
    seals_left: int = 0


_lock = threading.Lock()
# Keys made in transactions that have not committed (or never will): to be used there, and kept nowhere.
_uncommitted: set[uuid.UUID] = set()
_opened: OrderedDict[uuid.UUID, bytes] = OrderedDict()
_current: OrderedDict[tuple[uuid.UUID | None, str], _Current] = OrderedDict()


@lru_cache(maxsize=4)
def root_keys(text: str) -> RootKeys:
    """The root keys of the setting ``text``, parsed once per process."""
    return RootKeys.parse(text)


def seal(plaintext: Plaintext, place: Place) -> Ciphertext:
    """Seal ``plaintext`` for ``place`` under its account's current data key."""
    current = _take_seal(place.account, DataKey.Purpose.SEAL)
    return cipher.seal(current.key, current.key_id, plaintext, place)


class Reserved:
    """Seals of one account that were counted beforehand: whoever holds them can seal while the database is away."""

    __slots__ = ("_keys",)

    def __init__(self, keys: list[_Current]) -> None:
        self._keys = keys

    def seal(self, plaintext: Plaintext, place: Place) -> Ciphertext:
        """Seal ``plaintext`` for ``place``. Raises ``IndexError`` once all that was reserved is used."""
        current = self._keys.pop()
        return cipher.seal(current.key, current.key_id, plaintext, place)


def reserve(account_id: uuid.UUID, seals: int) -> Reserved:
    """Count ``seals`` under the account's current data key, to be made later, whatever becomes of the database by then.

    Those that are not made are lost, which costs nothing.
    """
    return Reserved([_take_seal(account_id, DataKey.Purpose.SEAL) for _ in range(seals)])


def unseal(sealed: bytes, place: Place) -> Plaintext:
    """Open ``sealed``. Raises ``SealBroken``; a key of another account does not open it, whatever it says of itself."""
    return cipher.unseal(_key(cipher.key_id_of(sealed)), sealed, place)


def keyed_digest(domain: str, data: bytes) -> tuple[uuid.UUID, bytes]:
    """HMAC-SHA-256 of ``data`` under the installation's current pepper; returns the pepper's id with it.

    ``domain`` keeps digests made for one purpose from meaning anything for another.
    """
    pepper = _current_key(None, DataKey.Purpose.PEPPER)
    return pepper.key_id, _digest(pepper.key, domain, data)


def matches_digest(domain: str, data: bytes, pepper_id: uuid.UUID, digest: bytes) -> bool:
    """Whether ``digest`` was made of ``data`` under that pepper, compared in constant time."""
    return hmac.compare_digest(_digest(_key(pepper_id), domain, data), digest)


def ensure_keys(account_id: uuid.UUID | None) -> None:
    """Make the first data key of an account (or of the installation), so that its first seal makes none."""
    _current_key(account_id, DataKey.Purpose.PEPPER if account_id is None else DataKey.Purpose.SEAL)


def check_opens(row: DataKey) -> None:
    """Raise ``SealBroken`` unless the root keys unwrap ``row``."""
    _unwrap(row)


def forget() -> None:
    """Drop every key that this process holds; they are read again when needed."""
    with _lock:
        _opened.clear()
        _current.clear()


def _digest(pepper: bytes, domain: str, data: bytes) -> bytes:
    return hmac.new(pepper, domain.encode() + b"\0" + data, hashlib.sha256).digest()


def _take_seal(account_id: uuid.UUID | None, purpose: str) -> _Current:
    """Count one seal and return the key to make it with, reserving a block or starting a new key where one is used up."""
    while True:
        current = _current_key(account_id, purpose)
        with _lock:
            if current.seals_left > 0:
                current.seals_left -= 1
                return current
        reserved = DataKey.objects.filter(
            pk=current.key_id, retired_at=None, seals_reserved__lte=MAX_SEALS - SEAL_BLOCK
        ).update(seals_reserved=F("seals_reserved") + SEAL_BLOCK)
        if reserved:
            # Only a committed reservation counts for others: one that is rolled back must leave nothing to seal with.
            transaction.on_commit(partial(_grant, current))
            return current
        # Used up, or retired by another process: drop it, and read or make its successor.
        _retire(current.key_id)
        with _lock:
            _current.pop((account_id, purpose), None)


def _grant(current: _Current) -> None:
    """Let this process make the rest of a block's seals; the first one was made by whoever reserved it."""
    with _lock:
        current.seals_left += SEAL_BLOCK - 1


def _current_key(account_id: uuid.UUID | None, purpose: str) -> _Current:
    with _lock:
        kept = _current.get((account_id, purpose))
        if kept is not None:
            _current.move_to_end((account_id, purpose))
    if kept is None:
        row = _current_rows(account_id, purpose).first()
        kept = _remember(row or _create(account_id, purpose))
    if purpose == DataKey.Purpose.SEAL and timezone.now() - kept.created_at > MAX_AGE:
        _retire(kept.key_id)
        kept = _remember(_create(account_id, purpose))
    return kept


def _current_rows(account_id: uuid.UUID | None, purpose: str) -> QuerySet[DataKey]:
    owner = Q(account=None) if account_id is None else Q(account_id=account_id)
    return DataKey.objects.filter(owner, purpose=purpose, retired_at=None)


def _retire(key_id: uuid.UUID) -> None:
    """Stop sealing under a key. It opens what it sealed for as long as that is stored."""
    DataKey.objects.filter(pk=key_id, retired_at=None).update(retired_at=timezone.now())


def _create(account_id: uuid.UUID | None, purpose: str) -> DataKey:
    key_id = uuid.uuid4()
    label = wrapping_label(key_id=key_id, account=account_id, purpose=purpose)
    root_key_id, wrapped = root_keys(settings.KNOXCALL_MASTER_KEYS).wrap(new_data_key(), label=label)
    _uncommitted.add(key_id)
    try:
        with transaction.atomic():
            row = DataKey.objects.create(
                id=key_id, account_id=account_id, purpose=purpose, root_key_id=root_key_id, wrapped_key=wrapped
            )
            transaction.on_commit(lambda: _uncommitted.discard(key_id))
            return row
    except IntegrityError:
        _uncommitted.discard(key_id)
        # Another process made one at the same moment; there is one current key per account and purpose. Under load that
        # one may be used up and retired before we look: then the next one may be ours.
        return _current_rows(account_id, purpose).first() or _create(account_id, purpose)


def _remember(row: DataKey) -> _Current:
    current = _Current(key_id=row.pk, key=_unwrap(row), created_at=row.created_at)
    if row.pk not in _uncommitted:
        with _lock:
            _keep(_current, (row.account_id, row.purpose), current)
            _keep(_opened, row.pk, current.key)
    return current


def _key(key_id: uuid.UUID) -> bytes:
    with _lock:
        key = _opened.get(key_id)
        if key is not None:
            _opened.move_to_end(key_id)
            return key
    row = DataKey.objects.filter(pk=key_id).first()
    if row is None:
        raise SealBroken("sealed under a data key that is not there")
    key = _unwrap(row)
    if key_id not in _uncommitted:
        with _lock:
            _keep(_opened, key_id, key)
    return key


def _keep(kept: OrderedDict[K, V], name: K, value: V) -> None:
    """Remember ``value``, forgetting the one that was not used for longest where there are too many. Under the lock."""
    kept[name] = value
    while len(kept) > _KEPT_KEYS:
        kept.popitem(last=False)


def _unwrap(row: DataKey) -> bytes:
    label = wrapping_label(key_id=row.pk, account=row.account_id, purpose=row.purpose)
    return root_keys(settings.KNOXCALL_MASTER_KEYS).unwrap(row.root_key_id, bytes(row.wrapped_key), label=label)
