"""`manage.py create_account SLUG [--name N] [--plan PLAN] [--json]`."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from billing_app.accounts import AccountRefused, create_account
from billing_app.plans import PLANS
from knoxcall.clock import iso
from secrets_app.api_keys import create_api_key
from secrets_app.models import ApiKey


class Command(BaseCommand):
    help = "Create an account with its first API key, which is shown this once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="Lower-case letters, digits and hyphens.")
        parser.add_argument("--name", default="", help="What people call it; the slug where it is left out.")
        parser.add_argument("--plan", default="free", choices=list(PLANS))
        parser.add_argument("--json", action="store_true", help='Print {"account": {…}, "api_key": "tk_live_…"}.')

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with transaction.atomic():
                account = create_account(options["slug"], name=options["name"], plan=options["plan"])
                _, key = create_api_key(account.pk, name="first key", role=ApiKey.Role.ADMIN)
        except AccountRefused as err:
            raise CommandError(str(err)) from None
        if options["json"]:
            shown = {
                "id": str(account.pk),
                "slug": account.slug,
                "name": account.name,
                "subscription_plan": account.subscription_plan,
                "created_at": iso(account.created_at),
            }
            self.stdout.write(json.dumps({"account": shown, "api_key": key}))
            return
        self.stdout.write(f"Account {account.slug} ({account.plan.label}) was created.")
        self.stdout.write(f"API key, shown this once: {key}")
