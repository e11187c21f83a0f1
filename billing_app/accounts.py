"""Accounts: creating one, finding one, changing its plan."""

from __future__ import annotations

import logging
import uuid

from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.dispatch import Signal

from billing_app.models import Account
from billing_app.plans import PLANS

logger = logging.getLogger(__name__)

# Sent inside the transaction that creates the account, with `account`: upper apps give it its keys and environments.
account_created = Signal()
# Sent after a change of plan, with `account` and `previous`.
plan_changed = Signal()


class AccountRefused(ValueError):
    """The account cannot be created or changed as asked; the text says why."""


def create_account(slug: str, *, name: str = "", plan: str = "free") -> Account:
    """Create an account with its environments and data keys. Raises ``AccountRefused`` for a bad or taken slug or a bad plan."""
    account = Account(slug=slug, name=name or slug, subscription_plan=check_plan(plan))
    try:
        account.full_clean(validate_unique=False, validate_constraints=False)
    except ValidationError as err:
        raise AccountRefused(
            "; ".join(f"{field}: {' '.join(texts)}" for field, texts in err.message_dict.items())
        ) from None
    try:
        with transaction.atomic():
            account.save(force_insert=True)
            account_created.send(sender=Account, account=account)
    except IntegrityError:
        raise AccountRefused(f"an account `{slug}` exists already") from None
    return account


def get_account(slug: str) -> Account:
    """Return the account called ``slug``; raises ``AccountRefused`` if there is none."""
    account = Account.objects.filter(slug=slug).first()
    if account is None:
        raise AccountRefused(f"there is no account `{slug}`")
    return account


def set_plan(slug: str, plan: str) -> Account:
    """Put the account on ``plan``. What it holds beyond the new limit stays; it may only add nothing more."""
    account = get_account(slug)
    previous, account.subscription_plan = account.subscription_plan, check_plan(plan)
    account.save(update_fields=["subscription_plan"])
    plan_changed.send(sender=Account, account=account, previous=previous)
    return account


def check_plan(plan: str) -> str:
    """Return ``plan`` if it is on the price list; raises ``AccountRefused`` naming those that are."""
    if plan not in PLANS:
        raise AccountRefused(f"unknown plan `{plan}`; there are {', '.join(PLANS)}")
    return plan


def lock_account(account_id: uuid.UUID) -> Account:
    """Return the account, locked until the transaction ends, so that count, check and insert are one step.

    Must run in a transaction. SQLite needs no row lock: our transactions are immediate, so there is one writer at a time.
    """
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("lock_account needs a transaction")
    return Account.objects.select_for_update().get(pk=account_id)
