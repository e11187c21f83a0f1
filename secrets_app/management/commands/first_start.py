"""`manage.py first_start`: what `make run` shows on an empty vault. On one that has an account it does and prints nothing."""

from __future__ import annotations

import secrets
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from django.db import transaction

from billing_app.accounts import create_account
from billing_app.models import Account
from secrets_app.api_keys import create_api_key
from secrets_app.models import ApiKey

OPERATOR = "operator"


class Command(BaseCommand):
    help = "On an empty vault create an account on the Pro plan, its API key and an operator, and show both this once."

    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic():
            if Account.objects.exists():
                return
            account = create_account("default", name="Default", plan="pro")
            _, key = create_api_key(account.pk, name="first key", role=ApiKey.Role.ADMIN)
            password = _create_operator()
        base = settings.KNOXCALL_BASE_URL
        self.stdout.write(
            f"""
  This is shown once. Keep it somewhere safe.

    Account    {account.slug} ({account.plan.label} plan)
    API key    {key}
    Admin      {base}/admin/
    Operator   {OPERATOR}
    Password   {password or "the one it has already"}

  Try it, once it is ready:

    curl {base}/v1/secrets -H 'Authorization: Bearer {key}'

  README.md goes on from there: an OAuth2 secret, a consent, a live token.
"""
        )


def _create_operator() -> str | None:
    """Create the operator and return the password; ``None`` where there is one of that name, whose password stays."""
    users = get_user_model().objects
    if users.filter(username=OPERATOR).exists():
        return None
    password = secrets.token_urlsafe(15)
    users.create_superuser(OPERATOR, password=password)
    return password
