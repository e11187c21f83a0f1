"""The consents under way: who may start one, where it ends, and how it went."""

from __future__ import annotations

import uuid

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from billing_app.models import Account
from oauth_app.models.connections import Connection
from secrets_app.crypto.fields import SealedField


class ReturnOrigin(models.Model):
    """An origin (RFC 6454) that a browser may be sent back to after a consent: without such a list we would redirect anywhere."""

    id = models.BigAutoField(primary_key=True)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="return_origins")
    origin = models.CharField(max_length=300, help_text="Scheme, host and, where it is not the usual one, port.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["origin"]
        constraints = [models.UniqueConstraint(fields=["account", "origin"], name="return_origin_once")]

    def __str__(self) -> str:
        return self.origin

    def clean(self) -> None:
        """Bring the origin into its one spelling. Raises ``ValidationError`` for what is none."""
        from oauth_app.return_urls import normal_origin

        try:
            self.origin = normal_origin(self.origin)
        except ValueError as err:
            raise ValidationError({"origin": str(err)}) from None


class ConsentLink(models.Model):
    """A link that starts a consent, for whoever it is sent to. Good for 15 minutes and for one consent that is completed.

    Opening it uses nothing up: mail scanners and chat previews open links, too.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    connection = models.ForeignKey(Connection, on_delete=models.CASCADE, related_name="consent_links")
    token_digest = models.BinaryField(unique=True)
    return_url = models.CharField(max_length=2048, blank=True)
    created_by = models.CharField(max_length=255)

    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    voided_at = models.DateTimeField(null=True, help_text="When a newer link took its place, or the connection ended.")
    completed_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["expires_at"], name="consent_link_by_expiry")]  # pruning

    def __str__(self) -> str:
        return f"consent link {self.pk}"


class AuthorizationRequest(models.Model):
    """One start of a consent: the state we sent, the browser that holds its cookie, and how it ended (RFC 6749 §4.1.1)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    connection = models.ForeignKey(Connection, on_delete=models.CASCADE, related_name="authorization_requests")
    # A consent that was started at the bare redirect URI may only make the first connection; any other has its link.
    is_bare_start = models.BooleanField()
    link = models.ForeignKey(ConsentLink, on_delete=models.CASCADE, null=True, related_name="authorization_requests")
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
