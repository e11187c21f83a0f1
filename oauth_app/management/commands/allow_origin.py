"""`manage.py allow_origin SLUG [ORIGIN]`: where browsers may be sent back to after a consent."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing_app.models import Account
from oauth_app.return_origins import allow_origin, remove_origin
from secrets_app.audit import COMMAND_LINE


class Command(BaseCommand):
    help = "Allow an origin, such as https://app.example.com, as target of a return_url of an account; without one, list them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="the account's")
        parser.add_argument("origin", nargs="?", help="scheme, host and, where it is not the usual one, port")
        parser.add_argument("--remove", action="store_true", help="allow it no longer")
        parser.add_argument("--json", action="store_true", help="print the list as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        account = Account.objects.filter(slug=options["slug"]).first()
        if account is None:
            raise CommandError(f"There is no account {options['slug']}.")
        if options["remove"] and not options["origin"]:
            raise CommandError("Name the origin that is to be removed.")
        if options["origin"]:
            try:
                change = remove_origin if options["remove"] else allow_origin
                change(account, options["origin"], actor=COMMAND_LINE)
            except ValueError as err:
                raise CommandError(f"{options['origin']}: {err}") from None
        origins = [row.origin for row in account.return_origins.all()]
        if options["json"]:
            self.stdout.write(json.dumps(origins))
        else:
            self.stdout.write("\n".join(origins) or f"No origin is allowed for {account.slug}.")
