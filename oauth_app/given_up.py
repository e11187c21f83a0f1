"""Tokens that are given up: the job that revokes them, made in the transaction that takes them away, and what it holds."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

from django.db import transaction

from knoxcall.client_certificates import ClientCertificate
from knoxcall.clock import database_now
from oauth_app.clients import open_client
from oauth_app.models import ClientRegistration, Connection, RevocationJob
from oauth_app.protocol.answers import TokenAnswer
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.identity import subject_of
from oauth_app.protocol.revocation import revocation_of
from secrets_app import audit
from secrets_app.crypto.cipher import Plaintext, SealBroken
from secrets_app.data_keys import keyed_digest
from secrets_app.models import Secret

logger = logging.getLogger(__name__)

VAULT = audit.Actor("vault")

Outcome = RevocationJob.Outcome


def grant_digest(client: OAuthClient, answer: TokenAnswer, facts: dict[str, Any]) -> bytes | None:
    """Names a grant without telling of whom: provider, client and subject. ``None`` where the provider tells no subject."""
    subject = subject_of(client.preset, answer.identity, facts)
    if not subject:
        return None
    _, digest = keyed_digest("grant", "\0".join((client.provider, client.client_id, subject)).encode())
    return digest


def give_up_stored(connection: Connection, registration: ClientRegistration) -> None:
    """Make the job that revokes the tokens stored with ``connection``, if there are any.

    Belongs into the transaction that takes them away. Tokens that do not open cannot be revoked by anybody: that job has failed.
    """
    if connection.access_token is None and connection.refresh_token is None:
        return
    job = _job(connection, registration.provider, registration.secret.name, connection.grant_digest)
    try:
        client = open_client(registration)
        access_token = connection.access_token.open() if connection.access_token else None
        refresh_token = connection.refresh_token.open() if connection.refresh_token else None
    except SealBroken as err:
        logger.error("the tokens of connection %s cannot be revoked: %s", connection.pk, err)
        _insert_ended(job, Outcome.FAILED, code="seal_broken")
        return
    _insert(job, client, access_token, refresh_token, connection.facts)


def give_up_late(
    connection: Connection, client: OAuthClient, answer: TokenAnswer, *, is_new_grant: bool = False
) -> None:
    """Revoke what a provider answered to a request that was on the wire while its connection was ended or deleted.

    ``is_new_grant``: the answer is a consent's, maybe another person's than ``connection`` was of before. Where the connection
    lives, on a newer token, nothing is revoked: that could end the newer one.
    """
    facts = answer.facts if is_new_grant else {**connection.facts, **answer.facts}
    digest = grant_digest(client, answer, facts) if is_new_grant else connection.grant_digest
    with transaction.atomic():
        row = Connection.objects.filter(pk=connection.pk).select_for_update().first()
        if row is not None and row.status != Connection.Status.DISCONNECTED:
            return
        name = Secret.objects.filter(pk=connection.secret_id).values_list("name", flat=True).first() or ""
        job = _job(connection, client.provider, name, digest)
        if row is None:
            job.connection = None
        _insert(job, client, answer.access_token, answer.refresh_token, facts)


def opened(job: RevocationJob) -> tuple[OAuthClient, dict[str, Plaintext | None], dict[str, Any]]:
    """What ``job`` holds: the client with its certificate, both tokens by name, and the facts. Raises ``SealBroken``."""
    if job.document is None:
        raise ValueError("the job has ended")
    data: dict[str, Any] = json.loads(job.document.open().reveal())
    client = OAuthClient.from_document(Plaintext(data["client"]))
    certificate = None
    if kept := data["certificate"]:
        passphrase = kept["passphrase"]
        certificate = ClientCertificate(
            owner=kept["owner"],
            chain=kept["chain"].encode(),
            private_key=kept["private_key"].encode(),
            passphrase=None if passphrase is None else passphrase.encode(),
        )
    client = replace(client, certificate=certificate, previous_client_secret=data.get("previous_client_secret"))
    tokens = {name: Plaintext(data[name]) if data[name] else None for name in ("access_token", "refresh_token")}
    return client, tokens, data["facts"]


def record_outcome(job: RevocationJob) -> None:
    """Write the audit event of a job that has ended."""
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
            "outcome": str(job.outcome),
            "reason": job.failure_code or None,
        },
    )


def _job(connection: Connection, provider: str, secret_name: str, digest: Any) -> RevocationJob:
    return RevocationJob(
        account_id=connection.account_id,
        mode=connection.environment.mode,
        connection_id=connection.pk,
        secret_id=connection.secret_id,
        secret_name=secret_name,
        environment_name=connection.environment.name,
        provider=provider,
        grant_digest=digest,
    )


def _insert(
    job: RevocationJob,
    client: OAuthClient,
    access_token: Plaintext | None,
    refresh_token: Plaintext | None,
    facts: dict[str, Any],
) -> None:
    if revocation_of(client) is None:
        _insert_ended(job, Outcome.NOT_SUPPORTED)
        return
    job.document = _document(client, access_token, refresh_token, facts)
    job.save(force_insert=True)


def _insert_ended(job: RevocationJob, outcome: str, *, code: str = "") -> None:
    job.outcome, job.failure_code, job.due_at, job.finished_at = outcome, code, None, database_now()
    job.save(force_insert=True)
    record_outcome(job)


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
                "previous_client_secret": client.previous_client_secret,
                "access_token": access_token and access_token.reveal(),
                "refresh_token": refresh_token and refresh_token.reveal(),
                "facts": facts,
                "certificate": certificate,
            }
        )
    )
