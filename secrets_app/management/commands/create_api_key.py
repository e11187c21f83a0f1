"""`manage.py create_api_key SLUG [--name N] [--mode live|test] [--role ROLE] [--json]`."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing_app.accounts import get_account
from secrets_app.api_keys import create_api_key
from secrets_app.models import ApiKey, Mode


class Command(BaseCommand):
    help = "Create a further API key for an account; it is shown this once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("--name", default="key from the command line")
        parser.add_argument("--mode", default=Mode.LIVE, choices=Mode.values)
        parser.add_argument("--role", default=ApiKey.Role.EDITOR, choices=ApiKey.Role.values)
        parser.add_argument(
            "--json", action="store_true", help='Print {"key_id": "tk_live_…", "api_key": "tk_live_…"}.'
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            account = get_account(options["slug"])
            row, key = create_api_key(account.pk, name=options["name"], mode=options["mode"], role=options["role"])
        except ValueError as err:
            raise CommandError(str(err)) from None
        if options["json"]:
            self.stdout.write(json.dumps({"key_id": row.key_id, "name": row.name, "role": row.role, "api_key": key}))
            return
        self.stdout.write(f"API key `{row.name}` ({row.get_role_display()}) for {account.slug}, shown this once: {key}")
