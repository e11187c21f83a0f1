"""Environments of an account."""

from __future__ import annotations

import uuid

from knoxcall.api.errors import ValidationFailed
from secrets_app.models import Environment, Mode

DEFAULT = "production"


def create_defaults(account_id: uuid.UUID) -> None:
    """Give a new account its `production`, in each mode."""
    Environment.objects.bulk_create(
        Environment(account_id=account_id, mode=mode, name=DEFAULT, display_name="Production", is_default=True)
        for mode in Mode
    )


def get_environment(*, account_id: uuid.UUID, mode: str, name: str) -> Environment:
    """Return the environment called ``name``; raises ``ValidationFailed`` where there is none."""
    environment = Environment.objects.filter(account_id=account_id, mode=mode, name=name).first()
    if environment is None:
        raise ValidationFailed(
            "environment: there is no environment of this name.",
            fields={"environment": ["There is no environment of this name."]},
        )
    return environment
