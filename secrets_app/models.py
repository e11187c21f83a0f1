"""The vault's tables: secrets and what they hold, the keys that seal them, the keys that open the API, and the audit record."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from billing_app.models import Account
from secrets_app.crypto.fields import SealedField


class Mode(models.TextChoices):
    """Live or test: two worlds in one account. A key sees its own only."""

    LIVE = "live", "Live"
    TEST = "test", "Test"


class ScopedQuerySet(models.QuerySet):
    """Rows that belong to an account and a mode."""

    def for_key(self, api_key: ApiKey) -> ScopedQuerySet:
        """Those that the holder of ``api_key`` may know of."""
        return self.filter(account_id=api_key.account_id, mode=api_key.mode)


class DataKey(models.Model):
    """A key that seals values of one account (or, without account, serves the installation), itself wrapped under a root key."""

    class Purpose(models.TextChoices):
        SEAL = "seal", "Seals values"
        PEPPER = "pepper", "Keys digests"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, null=True, related_name="data_keys")
    purpose = models.CharField(max_length=10, choices=Purpose)
    root_key_id = models.CharField(max_length=32)
    wrapped_key = models.BinaryField()
    seals_reserved = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    retired_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            # One key seals at a time; whoever makes a second one at the same moment is told so.
            models.UniqueConstraint(
                fields=["account", "purpose"],
                condition=Q(retired_at=None, account__isnull=False),
                name="data_key_one_current",
            ),
            models.UniqueConstraint(
                fields=["purpose"],
                condition=Q(retired_at=None, account=None),
                name="data_key_one_current_of_installation",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.purpose} key {self.pk}"


class Environment(models.Model):
    """A named place that a secret may have a value for: production, staging."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="environments")
    mode = models.CharField(max_length=4, choices=Mode)
    name = models.CharField(max_length=64)
    display_name = models.CharField(max_length=255)
    description = models.TextField(blank=True)
    color = models.CharField(max_length=7, default="#6366f1")
    is_default = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "mode", "name"], name="environment_name_is_unique")]

    def __str__(self) -> str:
        return self.name


class Collection(models.Model):
    """A folder of secrets."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="collections")
    mode = models.CharField(max_length=4, choices=Mode)
    name = models.CharField(max_length=255)
    description = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "mode", "name"], name="collection_name_is_unique")]

    def __str__(self) -> str:
        return self.name


class Secret(models.Model):
    """A named thing that an account keeps here: a string, an OAuth2 client with its connections, or a certificate."""

    class Type(models.TextChoices):
        STRING = "string", "String"
        OAUTH2 = "oauth2", "OAuth2"
        CERTIFICATE = "certificate", "Certificate"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="secrets")
    mode = models.CharField(max_length=4, choices=Mode)
    name = models.CharField(max_length=255)
    secret_type = models.CharField(max_length=20, choices=Type)

    base_environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="+")
    collection = models.ForeignKey(Collection, on_delete=models.SET_NULL, null=True, blank=True, related_name="secrets")
    description = models.TextField(blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    strict_expiry_enforcement = models.BooleanField(default=False)

    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            # Also the index of the list, which is sorted by name.
            models.UniqueConstraint(fields=["account", "mode", "name"], name="secret_name_is_unique"),
        ]
        indexes = [
            models.Index(
                fields=["account", "mode", "created_at"], name="secret_by_creation"
            ),  # the list, sorted by age
        ]

    def __str__(self) -> str:
        return self.name

    def is_expired(self, now: datetime) -> bool:
        """Whether the date that its owner gave it has passed."""
        return self.expires_at is not None and self.expires_at <= now


class SecretValue(models.Model):
    """What a string secret holds in one environment, sealed."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    secret = models.ForeignKey(Secret, on_delete=models.CASCADE, related_name="values")
    environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="+")
    value = SealedField()
    # Counts writes of the value, from 1; a re-encryption does not move it.
    value_version = models.PositiveIntegerField(default=1)
    expires_at_override = models.DateTimeField(null=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["secret", "environment"], name="secret_value_one_per_environment")
        ]

    def __str__(self) -> str:
        return f"{self.secret_id} in {self.environment_id}"


class Certificate(models.Model):
    """What a certificate secret holds: the chain, which is public, and sealed the private key and the file as it was sent."""

    secret = models.OneToOneField(Secret, on_delete=models.CASCADE, primary_key=True, related_name="certificate")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    certificate_type = models.CharField(max_length=10, help_text="The kind of file that was sent.")
    content = SealedField()
    chain = models.TextField(help_text="PEM, leaf first, up to the last issuer that was given.")
    # PEM of PKCS#8, encrypted under the passphrase where there is one: then both must be opened to use the key.
    private_key = SealedField(null=True)
    passphrase = SealedField(null=True)

    # Of the leaf.
    subject = models.CharField(max_length=1000)
    issuer = models.CharField(max_length=1000)
    serial_number = models.CharField(max_length=40)
    fingerprint_sha256 = models.CharField(max_length=64)
    not_before = models.DateTimeField()
    expires_at = models.DateTimeField()

    # Counts writes, from 1: the secret's value_version.
    version = models.PositiveIntegerField(default=1)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        indexes = [models.Index(fields=["expires_at"], name="certificate_by_expiry")]  # the admin's filter and order

    def __str__(self) -> str:
        return str(self.secret)


class ApiKeyQuerySet(ScopedQuerySet):
    """Keys to the API."""

    def live(self) -> ApiKeyQuerySet:
        """Those that open the API now: not revoked, not expired by the database's clock."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=Now()), revoked_at=None)


class ApiKey(models.Model):
    """A key to the API, of which only a keyed digest is stored. It decides account, mode and role."""

    class Role(models.TextChoices):
        READ_ONLY = "read_only", "Read only"
        EDITOR = "editor", "Editor"
        ADMIN = "admin", "Admin"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="api_keys")
    mode = models.CharField(max_length=4, choices=Mode)
    name = models.CharField(max_length=255)
    role = models.CharField(max_length=20, choices=Role, default=Role.EDITOR)

    # The first characters of the key, shown everywhere; the digest is of all of it, under the pepper with this id.
    key_id = models.CharField(max_length=40, unique=True)
    digest = models.BinaryField()
    pepper_id = models.UUIDField()

    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "API key"
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.key_id}… ({self.name})"

    def grants(self, permission: str) -> bool:
        """Whether the key's role has ``permission``."""
        return permission in PERMISSIONS[self.role]


_READ = frozenset({"secrets:read", "tokens:read", "collections:read"})
_EDIT = _READ | {"secrets:write", "secrets:delete", "collections:write"}
PERMISSIONS: dict[str, frozenset[str]] = {
    ApiKey.Role.READ_ONLY: _READ,
    ApiKey.Role.EDITOR: _EDIT,
    ApiKey.Role.ADMIN: _EDIT | {"api_keys:write", "audit:read"},
}


class AuditEvent(models.Model):
    """What somebody did to something. Outlives what it speaks of, and holds no value."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    mode = models.CharField(max_length=4, choices=Mode)
    action = models.CharField(max_length=64)
    resource_type = models.CharField(max_length=32)
    resource_id = models.CharField(max_length=64)
    actor = models.CharField(max_length=255, help_text="A key's id, an operator's name, or who came to a page.")
    ip_address = models.GenericIPAddressField(null=True)
    details: Any = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(
                fields=["account", "mode", "-created_at"], name="audit_newest_first"
            ),  # the list of an account
            models.Index(fields=["resource_id", "-created_at"], name="audit_of_a_resource"),  # the history of one thing
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.resource_type} {self.resource_id}"


class IdempotencyRecord(models.Model):
    """One idempotency key in its scope: the request it stands for, whether that still runs, what it made, what it answered."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    mode = models.CharField(max_length=4, choices=Mode)
    method = models.CharField(max_length=10)
    # A digest, because a path may be longer than an index takes.
    path_digest = models.BinaryField()
    key = models.CharField(max_length=255)

    # Bodies hold passwords, so the body is remembered as a keyed digest.
    body_digest = models.BinaryField()
    pepper_id = models.UUIDField()

    attempt = models.UUIDField(null=True)
    attempt_expires_at = models.DateTimeField(null=True)
    resource_id = models.UUIDField(null=True)
    status = models.PositiveSmallIntegerField(null=True)
    answer = SealedField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["account", "mode", "method", "path_digest", "key"], name="idempotency_key_in_its_scope"
            )
        ]
        indexes = [models.Index(fields=["created_at"], name="idempotency_by_age")]  # pruning after 24 hours

    def __str__(self) -> str:
        return f"{self.method} {self.key}"
