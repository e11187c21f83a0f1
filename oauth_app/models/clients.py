"""What we are to a provider: the client of an OAuth2 secret, and the issuer whose metadata says how to talk to it."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from billing_app.models import Account
from oauth_app.protocol.metadata import MAX_ISSUER_LENGTH
from oauth_app.providers import CUSTOM, PROVIDERS
from secrets_app.crypto.fields import SealedField
from secrets_app.models import Certificate, Secret


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

    @property
    def uses_browser(self) -> bool:
        """Whether a person gives it, at the provider, in a browser."""
        return self in (GrantType.AUTHORIZATION_CODE, GrantType.IMPLICIT)


class Issuer(models.Model):
    """What an issuer said of itself when it was last asked (RFC 8414): public facts, shared by all accounts that name it."""

    # As it was typed, character for character: that is what makes it this issuer.
    url = models.CharField(max_length=MAX_ISSUER_LENGTH, unique=True)
    metadata: Any = models.JSONField(help_text="The members that are used here, checked.")
    fetched_at = models.DateTimeField(db_default=Now())
    failed_at = models.DateTimeField(null=True, help_text="The last try, where it failed.")

    def __str__(self) -> str:
        return self.url


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
    # Provider, host and client id as one keyed digest, in hex: what a provider's limits count by. Empty until it is first used.
    client_digest = models.CharField(max_length=32, blank=True, db_default="")
    document = SealedField()
    # What the token endpoint is shown; it cannot be deleted while it is used.
    mtls_certificate = models.ForeignKey(Certificate, on_delete=models.PROTECT, null=True, related_name="registrations")
    # The issuer whose metadata named the addresses.
    issuer = models.ForeignKey(Issuer, on_delete=models.PROTECT, null=True, related_name="registrations")
    # Tried where the provider refuses the new one, until somebody has changed it there too. The schedule erases it.
    previous_client_secret = SealedField(null=True)
    previous_client_secret_expires_at = models.DateTimeField(null=True)
    # Counts writes of the document, from 1: the secret's value_version.
    version = models.PositiveIntegerField(default=1)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "client registration"
        indexes = [
            models.Index(fields=["provider"], name="registration_by_provider"),  # the admin's and the list's filter
            # Erasing; most registrations have none.
            models.Index(
                fields=["previous_client_secret_expires_at"],
                condition=Q(previous_client_secret_expires_at__isnull=False),
                name="registration_previous_secret",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider} ({self.grant_type})"

    @property
    def provider_label(self) -> str:
        """What people call the provider; of a custom one all that is known is its host."""
        return self.token_host if self.provider == CUSTOM else PROVIDERS[self.provider].label
