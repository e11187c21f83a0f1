"""The customer."""

from __future__ import annotations

import uuid

from django.core.validators import RegexValidator
from django.db import models

from billing_app.plans import PLANS, Plan

slug_validator = RegexValidator(
    r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z", "Lower-case letters, digits and hyphens, at most 63."
)


class Account(models.Model):
    """A customer: the owner of keys, secrets and connections, and the one whose plan limits them."""

    class PlanName(models.TextChoices):
        FREE = "free", "Free"
        STARTER = "starter", "Starter"
        PRO = "pro", "Pro"
        ENTERPRISE = "enterprise", "Enterprise"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # A DNS label: clients build host names from it.
    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    name = models.CharField(max_length=255)

    subscription_plan = models.CharField(max_length=20, choices=PlanName, default=PlanName.FREE)
    secrets_limit_override = models.PositiveIntegerField(
        null=True, blank=True, help_text="Instead of the plan's number of secrets. Empty: the plan's."
    )
    bare_start_enabled = models.BooleanField(
        "redirect URI may start a consent",
        default=True,
        help_text="Off: a consent starts only from a link that a key of the account asked for.",
    )

    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["slug"]
        constraints = [
            models.CheckConstraint(condition=models.Q(subscription_plan__in=list(PLANS)), name="account_plan_is_known"),
        ]

    def __str__(self) -> str:
        return self.slug

    @property
    def plan(self) -> Plan:
        """The line of the price list that applies."""
        return PLANS[self.subscription_plan]

    @property
    def secrets_limit(self) -> int | None:
        """How many secrets the account may hold in each mode; ``None`` is unlimited."""
        return self.plan.secrets if self.secrets_limit_override is None else self.secrets_limit_override
