"""`manage.py set_plan SLUG PLAN`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing_app.accounts import AccountRefused, set_plan
from billing_app.plans import PLANS


class Command(BaseCommand):
    help = "Put an account on another plan."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("plan", choices=list(PLANS))

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            account = set_plan(options["slug"], options["plan"])
        except AccountRefused as err:
            raise CommandError(str(err)) from None
        limit = "unlimited" if account.secrets_limit is None else account.secrets_limit
        oauth2 = "with" if account.plan.oauth2 else "without"
        self.stdout.write(f"{account.slug} is on the {account.plan.label} plan: {limit} secrets, {oauth2} OAuth2.")
