"""The ledger of idempotent requests: the first run is recorded, a repeat gets its answer (contract §1).

A record is a lease on running the request. It is taken by one INSERT, so two requests with one key cannot both run; the loser
waits for the winner's answer. A run that was cut off leaves a lease that runs out and, if it had created its secret, the name
of that: whoever comes next answers with it.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from datetime import timedelta

from django.db import Error, IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now

from knoxcall.api.errors import DependencyUnavailable, IdempotencyKeyReused
from knoxcall.api.idempotency import Replay
from knoxcall.context import seconds_left
from knoxcall.waiting import NoPlaceToWait, place, poll
from secrets_app import data_keys
from secrets_app.crypto.cipher import Plaintext
from secrets_app.models import ApiKey, IdempotencyRecord

logger = logging.getLogger(__name__)

KEPT_FOR = timedelta(hours=24)
# Longer than any request may take: a lease that ran out belongs to a process that is gone.
LEASE = timedelta(seconds=30)
LONGEST_WAIT = 22.0
_DOMAIN = "idempotency"


class Ledger:
    """Opens attempts. Named in the settings, so that the ground need not import it."""

    @staticmethod
    def begin(*, api_key: ApiKey, key: str, method: str, path: str, body: bytes) -> LedgerAttempt:
        """Take the right to run the request, waiting for another run of it to end.

        Raises ``Replay`` with the first answer, ``IdempotencyKeyReused`` for another body under the same key, and
        ``DependencyUnavailable`` when the other run goes on for too long.
        """
        path_digest = hashlib.sha256(path.encode()).digest()
        scope = {"account_id": api_key.account_id, "mode": api_key.mode, "method": method, "path_digest": path_digest}
        attempt = _insert(scope, key, body) or _take_over(scope, key, body)
        if attempt is not None:
            return attempt
        try:
            with place():
                attempt = poll(
                    lambda: _insert(scope, key, body) or _take_over(scope, key, body),
                    seconds=seconds_left(LONGEST_WAIT),
                )
        except NoPlaceToWait:
            raise DependencyUnavailable("Too many requests are waiting. Try again in a second.") from None
        if attempt is None:
            raise DependencyUnavailable("The first request with this idempotency key is still running.")
        return attempt


class LedgerAttempt:
    """One running request. What it writes is fenced by its own id: a run that lost its lease changes nothing."""

    def __init__(
        self, record_id: uuid.UUID, attempt: uuid.UUID, account_id: uuid.UUID, resource_id: uuid.UUID | None
    ) -> None:
        self.resource_id = resource_id
        self._account_id = account_id
        self._record_id = record_id
        self._own = IdempotencyRecord.objects.filter(pk=record_id, attempt=attempt)

    def names(self, resource_id: uuid.UUID) -> None:
        """Record what this request creates; call it inside the transaction that does. Raises if the lease was lost."""
        if not self._own.update(resource_id=resource_id):
            raise DependencyUnavailable("The request took too long and was started again.")

    def finish(self, status: int, body: bytes) -> None:
        """Keep the answer, sealed, for 24 hours."""
        field = IdempotencyRecord._meta.get_field("answer")
        try:
            sealed = field.seal(Plaintext(body), account=self._account_id, row=self._record_id)
            self._own.update(status=status, answer=sealed, finished_at=Now(), attempt=None, attempt_expires_at=None)
        except Error:
            # The work is done and committed. A repeat finds what it made by the record once the lease has run out.
            logger.warning("An idempotent answer could not be kept.")

    def abandon(self) -> None:
        """Give the key back. Where something was created already, the record stays and names it."""
        try:
            self._own.filter(resource_id=None).delete()
            self._own.update(attempt=None, attempt_expires_at=None)
        except Error:
            logger.warning("An idempotency key could not be given back; its lease runs out by itself.")


def _insert(scope: dict[str, object], key: str, body: bytes) -> LedgerAttempt | None:
    """Record a first run; ``None`` where the key is known already."""
    if IdempotencyRecord.objects.filter(**scope, key=key).exists():
        return None
    pepper_id, digest = data_keys.keyed_digest(_DOMAIN, body)
    attempt = uuid.uuid4()
    try:
        with transaction.atomic():
            record = IdempotencyRecord.objects.create(
                **scope,
                key=key,
                body_digest=digest,
                pepper_id=pepper_id,
                attempt=attempt,
                attempt_expires_at=Now() + LEASE,
            )
    except IntegrityError:
        return None
    return LedgerAttempt(record.pk, attempt, record.account_id, None)


def _take_over(scope: dict[str, object], key: str, body: bytes) -> LedgerAttempt | None:
    """Answer from a known record, or take it over from a run that is gone; ``None`` while another run is alive."""
    record = IdempotencyRecord.objects.filter(**scope, key=key).first()
    if record is None:
        return None
    if not data_keys.matches_digest(_DOMAIN, body, record.pepper_id, bytes(record.body_digest)):
        raise IdempotencyKeyReused
    if record.status is not None:
        raise Replay(record.status, record.answer.open().reveal_bytes() if record.answer else b"{}")
    attempt = uuid.uuid4()
    taken = IdempotencyRecord.objects.filter(
        Q(attempt=None) | Q(attempt_expires_at__lt=Now()), pk=record.pk, status=None
    ).update(attempt=attempt, attempt_expires_at=Now() + LEASE)
    if not taken:
        return None
    # What the earlier run made was committed before its lease could be taken from it.
    record.refresh_from_db(fields=["resource_id"])
    return LedgerAttempt(record.pk, attempt, record.account_id, record.resource_id)


def prune() -> int:
    """Delete records older than 24 hours; returns how many."""
    deleted, _ = IdempotencyRecord.objects.filter(created_at__lt=Now() - KEPT_FOR).delete()
    return deleted
