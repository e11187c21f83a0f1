"""What we are to a provider, the connections we hold there, the consents under way, and what became of them."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from billing_app.models import Account
from oauth_app.protocol.metadata import MAX_ISSUER_LENGTH
from oauth_app.providers import CUSTOM, PROVIDERS
from secrets_app.crypto.fields import SealedField
from secrets_app.models import Environment, Secret


class GrantType(models.TextChoices):
    """How a token is had: RFC 6749 §4."""

    AUTHORIZATION_CODE = "authorization_code", "Authorization code"
    CLIENT_CREDENTIALS = "client_credentials", "Client credentials"
    PASSWORD = "password", "Password"
    IMPLICIT = "implicit", "Implicit"

    @property
    def is_repeatable(self) -> bool:
        """Whether the grant can be made again without a person."""
        return self in (GrantType.CLIENT_CREDENTIALS, GrantType.PASSWORD)


class ClientRegistration(models.Model):
    """What we are to a provider: the client that an OAuth2 secret was created with (RFC 6749 §2).

    Everything that was typed in is sealed as one document; what operators need to see and the schedule to sort by is beside it.
    """

    secret = models.OneToOneField(Secret, on_delete=models.CASCADE, primary_key=True, related_name="registration")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    provider = models.CharField(max_length=50)
    grant_type = models.CharField(max_length=20, choices=GrantType)
    scopes: Any = models.JSONField(default=list)
    token_host = models.CharField(max_length=260, help_text="Host and port of the token endpoint.")
    document = SealedField()
    # Counts writes of the document, from 1: the secret's value_version.
    version = models.PositiveIntegerField(default=1)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "client registration"
        indexes = [
            models.Index(fields=["provider"], name="registration_by_provider")
        ]  # the admin's and the list's filter

    def __str__(self) -> str:
        return f"{self.provider} ({self.grant_type})"

    @property
    def provider_label(self) -> str:
        """What people call the provider; of a custom one all that is known is its host."""
        return self.token_host if self.provider == CUSTOM else PROVIDERS[self.provider].label


class Issuer(models.Model):
    """What an issuer said of itself when it was last asked (RFC 8414): public facts, shared by all accounts that name it."""

    # As it was typed, character for character: that is what makes it this issuer.
    url = models.CharField(max_length=MAX_ISSUER_LENGTH, unique=True)
    metadata: Any = models.JSONField(help_text="The members that are used here, checked.")
    fetched_at = models.DateTimeField(db_default=Now())
    failed_at = models.DateTimeField(null=True, help_text="The last try, where it failed.")

    def __str__(self) -> str:
        return self.url


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

    # How the last try failed, in our words. Cleared by a success.
    failure_count = models.PositiveIntegerField(default=0)
    failed_at = models.DateTimeField(null=True)
    failure_reason = models.CharField(max_length=30, blank=True, help_text="The reason of a token_error.")
    failure_code = models.CharField(max_length=64, blank=True)
    failure_message = models.CharField(max_length=500, blank=True)

    last_used_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    # Not a column: until when, on this machine's clock, the process that claimed the row may begin its call.
    sendable_until: float = float("-inf")

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
        indexes = [models.Index(fields=["connection", "-id"], name="event_of_a_connection")]  # the history in the admin

    def __str__(self) -> str:
        return f"{self.previous_status} → {self.status}"


class AuthorizationRequest(models.Model):
    """One start of a consent: the state we sent, the browser that holds its cookie, and how it ended (RFC 6749 §4.1.1)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    connection = models.ForeignKey(Connection, on_delete=models.CASCADE, related_name="authorization_requests")
    # A consent that was started at the bare redirect URI may only make the first connection.
    is_bare_start = models.BooleanField()
    state_digest = models.BinaryField(unique=True)
    cookie_digest = models.BinaryField()
    code_verifier = SealedField(null=True)
    ip_address = models.GenericIPAddressField(null=True)

    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    # Set by the callback that may exchange, once; outcome is the code of the page it ended with.
    used_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=40, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(outcome="") | Q(used_at__isnull=False), name="authorization_outcome_needs_use"
            ),
            models.CheckConstraint(condition=Q(expires_at__gt=F("created_at")), name="authorization_expires_later"),
        ]
        indexes = [
            # Counting the open ones of a secret, and pruning.
            models.Index(fields=["connection", "expires_at"], name="authorization_open"),
            models.Index(fields=["expires_at"], name="authorization_by_expiry"),
        ]

    def __str__(self) -> str:
        return f"consent {self.pk}"
