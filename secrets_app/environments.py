"""Environments of an account."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.db import transaction

from billing_app.accounts import lock_account
from knoxcall.api.errors import Conflict, ValidationFailed
from knoxcall.api.idempotency import Attempt
from secrets_app import audit
from secrets_app.models import Environment, Mode

if TYPE_CHECKING:
    from secrets_app.vault import Scope

DEFAULT = "production"
# In one account and mode: the list of them is not paged.
MOST = 50


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


def create_environment(
    scope: Scope,
    *,
    name: str,
    display_name: str = "",
    description: str = "",
    color: str = "#6366f1",
    is_default: bool = False,
    attempt: Attempt,
) -> Environment:
    """Create an environment, called ``name`` where ``display_name`` is empty; ``attempt`` is told of its id before the commit.

    A new default takes the place of the one before. Raises ``Conflict`` where the name is taken in the account and mode, and
    ``ValidationFailed`` where there are 50 already.
    """
    with transaction.atomic():
        # Who counts, or says that another is the default, waits for whoever does the same.
        lock_account(scope.account_id)
        own = Environment.objects.filter(account_id=scope.account_id, mode=scope.mode)
        if own.filter(name=name).exists():
            raise Conflict(f"An environment named `{name}` exists already.")
        if own.count() >= MOST:
            raise ValidationFailed(f"There may be at most {MOST} environments.")
        if is_default:
            own.update(is_default=False)
        environment = Environment.objects.create(
            account_id=scope.account_id,
            mode=scope.mode,
            name=name,
            display_name=display_name or name,
            description=description,
            color=color,
            is_default=is_default,
        )
        attempt.names(environment.pk)
        audit.record(
            audit.Action.ENVIRONMENT_CREATED,
            account_id=scope.account_id,
            mode=scope.mode,
            resource_type="environment",
            resource_id=environment.pk,
            actor=scope.actor,
            details={"name": name},
        )
    return environment
