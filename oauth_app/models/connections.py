"""The connections we hold at providers, what became of them, and the tokens that we gave up."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from billing_app.models import Account
from secrets_app.crypto.fields import SealedField
from secrets_app.models import Environment, Mode, Secret


class Connection(models.Model):
    """An OAuth2 secret in one environment: its token, how long that lives, who is renewing it, and how the last try went."""

    class Status(models.TextChoices):
        NOT_CONNECTED = "not_connected", "Not connected"
        CONNECTED = "connected", "Connected"
        REFRESH_FAILING = "refresh_failing", "Refresh failing"
        REAUTHORIZATION_REQUIRED = "reauthorization_required", "Reauthorization required"
        DISCONNECTED = "disconnected", "Disconnected"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    secret = models.ForeignKey(Secret, on_delete=models.CASCADE, related_name="connections")
    environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="+")

    # The token. Times are the database's; expires_at counts from when the request for it was claimed, so never too late.
    access_token = SealedField(null=True)
    refresh_token = SealedField(null=True)
    token_type = models.CharField(max_length=50, blank=True)
    granted_scopes: Any = models.JSONField(null=True, help_text="Null: the provider did not say, so what was asked.")
    issued_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    # Grows with every new token. A store names the generation it started from, so the second of two changes nothing.
    generation = models.BigIntegerField(default=0)
    # Whether the last refresh brought a new refresh token. False: the provider does not rotate, a replay is harmless.
    rotates = models.BooleanField(null=True)
    facts: Any = models.JSONField(
        default=dict, help_text="What the provider said beside the token, such as instance_url."
    )
    refresh_token_expires_at = models.DateTimeField(null=True, help_text="Where the provider says so.")
    # Whether a refresh moves that moment ahead. Null: no refresh has shown it yet.
    refresh_token_rolls = models.BooleanField(null=True)
    reauthorize_by = models.DateTimeField(
        null=True, help_text="When the refresh token dies, as far as no refresh can prevent it."
    )
    reauthorize_told_at = models.DateTimeField(null=True, help_text="When the history was told of that moment.")

    # Whose account it is, as far as the provider told.
    connected_as = models.CharField(max_length=255, blank=True)
    subject = models.CharField(max_length=255, blank=True, help_text="The provider's id of who consented.")
    # Provider, client id and subject as one keyed digest: who else holds tokens of the same grant.
    grant_digest = models.BinaryField(null=True)

    status = models.CharField(max_length=30, choices=Status, default=Status.NOT_CONNECTED)
    status_changed_at = models.DateTimeField(db_default=Now())
    connected_at = models.DateTimeField(null=True, help_text="The first connection.")
    refreshed_at = models.DateTimeField(null=True)

    # The schedule. Null: nothing to do.
    refresh_due_at = models.DateTimeField(null=True)

    # The claim. attempt_started_at is the mark that a request may be on the wire; it is the journal of that intent.
    lease_owner = models.UUIDField(null=True)
    lease_expires_at = models.DateTimeField(null=True)
    attempt_started_at = models.DateTimeField(null=True)
    # Who stored the current generation: a store whose acknowledgement was lost finds itself here.
    stored_by = models.UUIDField(null=True)
    # Since when it is unknown whether a request that was sent consumed the refresh token.
    outcome_unknown_at = models.DateTimeField(null=True)
    # Since when refreshes work with the previous client secret only.
    previous_client_secret_used_at = models.DateTimeField(null=True)

    # How the last try failed, in our words. Cleared by a success.
    failure_count = models.PositiveIntegerField(default=0)
    failed_at = models.DateTimeField(null=True)
    failure_reason = models.CharField(max_length=30, blank=True, help_text="The reason of a token_error.")
    failure_code = models.CharField(max_length=64, blank=True)
    failure_message = models.CharField(max_length=500, blank=True)

    last_used_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    # Not columns: when, on this machine's clock, the process that claimed the row asked for it, and got it.
    asked_at: float = float("-inf")
    claimed_at: float = float("-inf")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["secret", "environment"], name="connection_one_per_environment"),
            models.CheckConstraint(
                condition=~Q(status="connected") | Q(access_token__isnull=False), name="connection_connected_has_token"
            ),
            models.CheckConstraint(
                condition=Q(status__in=["connected", "refresh_failing", "not_connected"]) | Q(refresh_due_at=None),
                name="connection_ended_is_not_due",
            ),
            models.CheckConstraint(
                condition=Q(lease_owner=None, lease_expires_at=None)
                | Q(lease_owner__isnull=False, lease_expires_at__isnull=False),
                name="connection_lease_is_whole",
            ),
        ]
        indexes = [
            # The claim, oldest deadline first. Partial: connections with nothing to do are not in it.
            models.Index(fields=["refresh_due_at"], condition=Q(refresh_due_at__isnull=False), name="connection_due"),
            models.Index(fields=["status"], name="connection_by_status"),  # the admin's filter and counts
            # Recovery: what failed at a host that answers again is made due.
            models.Index(
                fields=["secret"],
                condition=Q(status="refresh_failing", failure_reason="provider_unavailable"),
                name="connection_failing",
            ),
            # The warning ahead of a refresh token's end; most connections have none.
            models.Index(
                fields=["reauthorize_by"], condition=Q(reauthorize_by__isnull=False), name="connection_reauthorize"
            ),
            # Who shares a grant, asked before one is revoked.
            models.Index(fields=["grant_digest"], condition=Q(grant_digest__isnull=False), name="connection_by_grant"),
        ]

    def __str__(self) -> str:
        return f"{self.secret} in {self.environment}"

    def is_valid(self, now: datetime) -> bool:
        """Whether there is an access token that has not expired."""
        return self.access_token is not None and (self.expires_at is None or self.expires_at > now)

    def is_leased(self, now: datetime) -> bool:
        """Whether somebody is renewing it at this moment."""
        return self.lease_expires_at is not None and self.lease_expires_at >= now


class ConnectionEvent(models.Model):
    """A change of a connection's state, written in the transaction that made it."""

    id = models.BigAutoField(primary_key=True)
    connection = models.ForeignKey(Connection, on_delete=models.CASCADE, related_name="events")
    previous_status = models.CharField(max_length=30)
    status = models.CharField(max_length=30)
    code = models.CharField(max_length=64, blank=True)
    message = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["connection", "-id"], name="event_of_a_connection"),  # the history in the admin
            models.Index(fields=["created_at"], name="event_by_age"),  # pruning
        ]

    def __str__(self) -> str:
        return f"{self.previous_status} → {self.status}"


class DatabaseReturn(models.Model):
    """When the database last came back, as far as a worker noticed; one row. Spools have a while from then to be drained.

    Until that is over nobody sends again what may have been answered: the answer may lie in the spool of another machine.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    returned_at = models.DateTimeField()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="database_return_is_one_row")]

    def __str__(self) -> str:
        return f"the database came back at {self.returned_at}"


class RevocationJob(models.Model):
    """Tokens that we gave up and that the provider is to be told of. They are sealed here and nowhere else, for 24 hours at most.

    It outlives the secret that the tokens were of.
    """

    class Outcome(models.TextChoices):
        PENDING = "pending", "Pending"
        REVOKED = "revoked", "Revoked"
        NOT_SUPPORTED = "not_supported", "Not supported"
        FAILED = "failed", "Failed"
        KEPT = "kept", "Kept"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    mode = models.CharField(max_length=4, choices=Mode)
    connection = models.ForeignKey(Connection, on_delete=models.SET_NULL, null=True, related_name="revocations")
    secret_id = models.UUIDField()
    secret_name = models.CharField(max_length=255)
    environment_name = models.CharField(max_length=64)
    provider = models.CharField(max_length=50)
    grant_digest = models.BinaryField(null=True)

    # The client, its certificate and the tokens as one document. Erased with the outcome.
    document = SealedField(null=True)
    outcome = models.CharField(max_length=20, choices=Outcome, default=Outcome.PENDING)
    failure_code = models.CharField(max_length=64, blank=True)
    attempts = models.PositiveIntegerField(default=0)

    due_at = models.DateTimeField(null=True, db_default=Now())
    lease_expires_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(outcome="pending", document__isnull=False, due_at__isnull=False)
                | (~Q(outcome="pending") & Q(document=None, due_at=None)),
                name="revocation_ended_holds_nothing",
            ),
        ]
        indexes = [
            # The claim. Partial: what has ended is not in it.
            models.Index(fields=["due_at"], condition=Q(due_at__isnull=False), name="revocation_due"),
            models.Index(fields=["secret_id", "-created_at"], name="revocation_of_a_secret"),  # the last one's outcome
        ]

    def __str__(self) -> str:
        return f"revocation of {self.secret_name} ({self.outcome})"
