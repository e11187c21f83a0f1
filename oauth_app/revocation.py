"""Giving tokens back: what was disconnected or deleted is revoked at the provider, in the background, however long it is away.

The tokens leave their connection at once and wait, sealed, in a job; after 24 hours at most they are erased there, too. Every job
ends with an outcome that people can see. A new consent never revokes: providers count by user and client, and would end the
grant that was just made.
"""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from knoxcall.client_certificates import ClientCertificate
from knoxcall.clock import database_now
from knoxcall.waiting import release_connection
from oauth_app import schedule
from oauth_app.calls import send
from oauth_app.models import Connection, RevocationJob
from oauth_app.protocol.answers import TokenAnswer
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import ClientRefused, TokenRequestFailed
from oauth_app.protocol.identity import subject_of
from oauth_app.protocol.revocation import RevocationFailed, read_revocation, revocation_of, revocation_requests
from secrets_app import audit
from secrets_app.crypto.cipher import Plaintext, SealBroken
from secrets_app.data_keys import keyed_digest
from secrets_app.models import Secret

logger = logging.getLogger(__name__)

LONGEST_TRY = timedelta(hours=24)
KEPT_FOR = timedelta(days=30)
# Longer than a job's calls may take: two of 20 s.
LEASE = timedelta(seconds=60)
AT_ONCE = 8
VAULT = audit.Actor("vault")

Outcome = RevocationJob.Outcome


def grant_digest(client: OAuthClient, answer: TokenAnswer, facts: dict[str, Any]) -> bytes | None:
    """Names a grant without telling of whom: provider, client and subject. ``None`` where the provider tells no subject."""
    subject = subject_of(client.preset, answer.identity, facts)
    if not subject:
        return None
    _, digest = keyed_digest("grant", "\0".join((client.provider, client.client_id, subject)).encode())
    return digest


def give_up(
    connection: Connection,
    client: OAuthClient,
    *,
    secret_name: str,
    access_token: Plaintext | None,
    refresh_token: Plaintext | None,
    is_deleted: bool = False,
) -> RevocationJob | None:
    """Make the job that revokes these tokens of ``connection``; ``None`` if there are none.

    Belongs into the transaction that takes them away from the connection, which may be about to be deleted, or ``is_deleted``.
    """
    if access_token is None and refresh_token is None:
        return None
    job = RevocationJob(
        account_id=connection.account_id,
        mode=connection.environment.mode,
        connection_id=None if is_deleted else connection.pk,
        secret_id=connection.secret_id,
        secret_name=secret_name,
        environment_name=connection.environment.name,
        provider=client.provider,
        grant_digest=connection.grant_digest,
    )
    if revocation_of(client) is None:
        job.outcome, job.due_at, job.finished_at = Outcome.NOT_SUPPORTED, None, database_now()
    else:
        job.document = _document(client, access_token, refresh_token, connection.facts)
    job.save(force_insert=True)
    return job


def give_up_stored(connection: Connection, client: OAuthClient, *, secret_name: str) -> RevocationJob | None:
    """The same for the tokens that are stored with ``connection``. Tokens that do not open cannot be revoked by anybody."""
    try:
        access_token = connection.access_token.open() if connection.access_token else None
        refresh_token = connection.refresh_token.open() if connection.refresh_token else None
    except SealBroken as err:
        logger.error("the tokens of connection %s cannot be revoked: %s", connection.pk, err)
        return None
    return give_up(connection, client, secret_name=secret_name, access_token=access_token, refresh_token=refresh_token)


def give_up_late(connection: Connection, client: OAuthClient, answer: TokenAnswer) -> None:
    """Revoke what a provider answered to a request that was on the wire while its connection was ended.

    Where the connection lives, on a newer token, nothing is revoked: that could end the newer one.
    """
    with transaction.atomic():
        row = Connection.objects.filter(pk=connection.pk).select_for_update().first()
        if row is not None and row.status != Connection.Status.DISCONNECTED:
            return
        give_up(
            connection,
            client,
            secret_name=Secret.objects.filter(pk=connection.secret_id).values_list("name", flat=True).first() or "",
            access_token=answer.access_token,
            refresh_token=answer.refresh_token,
            is_deleted=row is None,
        )


def revoke_due(limit: int = 50) -> int:
    """Carry out the jobs that are due, several at once; returns how many were tried."""
    claimed = [job for job in _due()[:limit] if _claim(job)]
    if claimed:
        with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="revoke") as threads:
            list(threads.map(_run, claimed))
    return len(claimed)


def prune() -> int:
    """Erase what could not be revoked in 24 hours, and delete the jobs that ended 30 days ago; returns how many were erased."""
    late = RevocationJob.objects.filter(outcome=Outcome.PENDING, created_at__lt=Now() - LONGEST_TRY)
    erased = sum(_finish(job, Outcome.FAILED, code="too_late") for job in late)
    RevocationJob.objects.filter(finished_at__lt=Now() - KEPT_FOR).delete()
    return erased


def _due() -> Any:
    free = Q(lease_expires_at=None) | Q(lease_expires_at__lt=Now())
    return RevocationJob.objects.filter(free, due_at__lte=Now()).order_by("due_at")


def _claim(job: RevocationJob) -> bool:
    """Take ``job`` for a minute; somebody else may have, since it was read."""
    return bool(_due().filter(pk=job.pk).order_by().update(lease_expires_at=Now() + LEASE, attempts=F("attempts") + 1))


def _run(job: RevocationJob) -> None:
    try:
        _revoke(job)
    except Exception:
        # The lease runs out, and the job is tried again.
        logger.exception("revocation %s: a fault of ours", job.pk)
    finally:
        release_connection()


def _revoke(job: RevocationJob) -> None:
    if database_now() > job.created_at + LONGEST_TRY:
        _finish(job, Outcome.FAILED, code="too_late")
        return
    try:
        client, tokens, facts = _opened(job)
    except SealBroken as err:
        logger.error("revocation %s: what is stored for it does not open: %s", job.pk, err)
        _finish(job, Outcome.FAILED, code="seal_broken")
        return
    revocation = revocation_of(client)
    if revocation is None:
        _finish(job, Outcome.NOT_SUPPORTED)
        return
    if revocation.ends_grant and _is_shared(job):
        _finish(job, Outcome.KEPT)
        return
    release_connection()
    try:
        requests = revocation_requests(client, facts=facts, **tokens)
        for request in requests:
            answer = send(client, request.method, request)
            read_revocation(revocation, status=answer.status, body=answer.body)
    except RevocationFailed as failure:
        _failed(job, failure.code, retryable=failure.retryable)
    except TokenRequestFailed as failure:
        # To end a token twice does no harm, so it matters not whether the request arrived.
        _failed(job, failure.code, retryable=not isinstance(failure, ClientRefused))
    else:
        _finish(job, Outcome.REVOKED if requests else Outcome.NOT_SUPPORTED)


def _is_shared(job: RevocationJob) -> bool:
    """Whether a connection that lives holds tokens of the same grant. Asked as late as can be: both may be ending."""
    if job.grant_digest is None:
        return False
    # The job's own connection counts, too, where somebody has consented anew since.
    return Connection.objects.filter(grant_digest=job.grant_digest, access_token__isnull=False).exists()


def _failed(job: RevocationJob, code: str, *, retryable: bool) -> None:
    pause = schedule.backoff(job.attempts + 1)
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
            audit.record(
                audit.Action.TOKENS_REVOKED,
                account_id=job.account_id,
                mode=job.mode,
                resource_type="secret",
                resource_id=job.secret_id,
                actor=VAULT,
                details={
                    "name": job.secret_name,
                    "environment": job.environment_name,
                    "outcome": outcome,
                    "reason": code or None,
                },
            )
    if ended:
        logger.info("revocation %s ended: %s", job.pk, outcome)
    return bool(ended)


def _document(
    client: OAuthClient, access_token: Plaintext | None, refresh_token: Plaintext | None, facts: dict[str, Any]
) -> Plaintext:
    shown = client.certificate
    certificate = shown and {
        "owner": shown.owner,
        "chain": shown.chain.decode(),
        "private_key": shown.private_key.decode(),
        "passphrase": None if shown.passphrase is None else shown.passphrase.decode(),
    }
    return Plaintext(
        json.dumps(
            {
                "client": client.to_document().reveal(),
                "access_token": access_token and access_token.reveal(),
                "refresh_token": refresh_token and refresh_token.reveal(),
                "facts": facts,
                "certificate": certificate,
            }
        )
    )


def _opened(job: RevocationJob) -> tuple[OAuthClient, dict[str, Plaintext | None], dict[str, Any]]:
    if job.document is None:
        raise ValueError("the job has ended")
    data: dict[str, Any] = json.loads(job.document.open().reveal())
    client = OAuthClient.from_document(Plaintext(data["client"]))
    if kept := data["certificate"]:
        passphrase = kept["passphrase"]
        certificate = ClientCertificate(
            owner=kept["owner"],
            chain=kept["chain"].encode(),
            private_key=kept["private_key"].encode(),
            passphrase=None if passphrase is None else passphrase.encode(),
        )
        client = replace(client, certificate=certificate)
    tokens = {name: Plaintext(data[name]) if data[name] else None for name in ("access_token", "refresh_token")}
    return client, tokens, data["facts"]
