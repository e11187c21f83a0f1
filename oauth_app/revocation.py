"""Giving tokens back: what was disconnected or deleted is revoked at the provider, in the background, however long it is away.

The tokens leave their connection at once and wait, sealed, in a job (``oauth_app.given_up``); after 24 hours at most they are
erased there, too. Every job ends with an outcome that people can see. A new consent never revokes: providers count by user and
client, and would end the grant that was just made.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.db import connection as database
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from knoxcall.clock import database_now
from knoxcall.waiting import release_connection
from oauth_app import schedule
from oauth_app.calls import send
from oauth_app.given_up import Outcome, opened, record_outcome
from oauth_app.models import Connection, RevocationJob
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import WRONG_CREDENTIALS, ClientRefused, TokenRequestFailed
from oauth_app.protocol.revocation import RevocationFailed, read_revocation, revocation_of, revocation_requests
from secrets_app.crypto.cipher import Plaintext, SealBroken

logger = logging.getLogger(__name__)

LONGEST_TRY = timedelta(hours=24)
KEPT_FOR = timedelta(days=30)
# Longer than a job's calls may take: two of 20 s, and once more with the client secret that was replaced.
LEASE = timedelta(seconds=100)
AT_ONCE = 8


def revoke_due(limit: int = 50) -> int:
    """Carry out the jobs that are due, several at once; returns how many were tried."""
    due = list(_due()[:limit])
    if not due:
        return 0
    with ThreadPoolExecutor(max_workers=min(AT_ONCE, len(due)), thread_name_prefix="revoke") as threads:
        return sum(threads.map(_in_thread, due))


def prune() -> int:
    """Erase what could not be revoked in 24 hours, and delete the jobs that ended 30 days ago; returns how many were erased."""
    late = RevocationJob.objects.filter(outcome=Outcome.PENDING, created_at__lt=Now() - LONGEST_TRY)
    erased = sum(_finish(job, Outcome.FAILED, code="too_late") for job in late)
    RevocationJob.objects.filter(finished_at__lt=Now() - KEPT_FOR).delete()
    return erased


def _due() -> Any:
    free = Q(lease_expires_at=None) | Q(lease_expires_at__lt=Now())
    return RevocationJob.objects.filter(free, due_at__lte=Now()).order_by("due_at")


def _in_thread(job: RevocationJob) -> bool:
    try:
        return carry_out(job)
    finally:
        # The thread ends, and with it nobody would hold the connection that it opened.
        database.close()


def carry_out(job: RevocationJob) -> bool:
    """Claim ``job`` and try it. ``False``: it is not due any more, or somebody else holds it."""
    # Claimed when its turn has come: a lease would run out while it waits behind others.
    if not _claim(job):
        return False
    try:
        _revoke(job)
    except Exception:
        # The lease runs out, and the job is tried again.
        logger.exception("revocation %s: a fault of ours", job.pk)
    return True


def _claim(job: RevocationJob) -> bool:
    return bool(_due().filter(pk=job.pk).order_by().update(lease_expires_at=Now() + LEASE, attempts=F("attempts") + 1))


def _revoke(job: RevocationJob) -> None:
    if database_now() > job.created_at + LONGEST_TRY:
        _finish(job, Outcome.FAILED, code="too_late")
        return
    try:
        client, tokens, facts = opened(job)
    except SealBroken as err:
        logger.error("revocation %s: what is stored for it does not open: %s", job.pk, err)
        _finish(job, Outcome.FAILED, code="seal_broken")
        return
    revocation = revocation_of(client)
    if revocation is not None and revocation.ends_grant and _is_shared(job):
        _finish(job, Outcome.KEPT)
        return
    release_connection()
    try:
        was_told = _tell(client, tokens, facts)
    except RevocationFailed as failure:
        _failed(job, failure.code, retryable=failure.retryable, retry_after=failure.retry_after)
    except TokenRequestFailed as failure:
        # To end a token twice does no harm, so it matters not whether the request arrived.
        _failed(job, failure.code, retryable=not isinstance(failure, ClientRefused))
    else:
        _finish(job, Outcome.REVOKED if was_told else Outcome.NOT_SUPPORTED)


def _tell(client: OAuthClient, tokens: Mapping[str, Plaintext | None], facts: Mapping[str, Any]) -> bool:
    """Tell the provider; ``False`` where it has no way. Raises ``RevocationFailed`` and ``TokenRequestFailed``."""
    try:
        return _send(client, tokens, facts)
    except RevocationFailed as refusal:
        previous = client.previous_client_secret
        if previous is None or refusal.code not in WRONG_CREDENTIALS | {"http_401"}:
            raise
        try:
            return _send(replace(client, client_secret=previous), tokens, facts)
        except RevocationFailed:
            # Neither is known there: what is wrong is the new one.
            raise refusal from None


def _send(client: OAuthClient, tokens: Mapping[str, Plaintext | None], facts: Mapping[str, Any]) -> bool:
    revocation = revocation_of(client)
    requests = revocation_requests(client, **tokens, facts=facts)
    if revocation is None or not requests:
        return False
    for request in requests:
        answer = send(client, request.method, request)
        try:
            read_revocation(revocation, status=answer.status, headers=answer.headers, body=answer.body)
        except RevocationFailed as failure:
            if not (request.is_optional and failure.code == "unsupported_token_type"):
                raise
    return True


def _is_shared(job: RevocationJob) -> bool:
    """Whether a connection that lives holds tokens of the same grant. Asked as late as can be: both may be ending."""
    # The job's own connection counts, too, where somebody has consented anew since: whose grant that is may be unknown.
    same = Q(pk=job.connection_id, grant_digest=None)
    same |= Q(pk=job.connection_id) if job.grant_digest is None else Q(grant_digest=job.grant_digest)
    lives = Q(refresh_token__isnull=False) | Q(access_token__isnull=False, expires_at=None) | Q(expires_at__gt=Now())
    return Connection.objects.filter(same, lives).exists()


def _failed(job: RevocationJob, code: str, *, retryable: bool, retry_after: int | None = None) -> None:
    pause = schedule.backoff(job.attempts + 1, retry_after=retry_after)
    if retryable and database_now() + pause < job.created_at + LONGEST_TRY:
        RevocationJob.objects.filter(pk=job.pk, outcome=Outcome.PENDING).update(
            due_at=Now() + pause, lease_expires_at=None, failure_code=code[:64]
        )
        logger.warning("revocation %s failed: %s; it is tried again", job.pk, code)
        return
    _finish(job, Outcome.FAILED, code=code)


def _finish(job: RevocationJob, outcome: str, *, code: str = "") -> bool:
    """End the job and erase what it holds; once, however many try."""
    with transaction.atomic():
        ended = RevocationJob.objects.filter(pk=job.pk, outcome=Outcome.PENDING).update(
            outcome=outcome,
            failure_code=code[:64],
            document=None,
            due_at=None,
            lease_expires_at=None,
            finished_at=Now(),
        )
        if ended:
            job.outcome, job.failure_code = outcome, code[:64]
            record_outcome(job)
    if ended:
        logger.info("revocation %s ended: %s", job.pk, outcome)
    return bool(ended)
