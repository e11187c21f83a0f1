"""The vault as a Django app."""

from typing import Any

from django.apps import AppConfig


class SecretsConfig(AppConfig):
    name = "secrets_app"
    verbose_name = "Vault"

    def ready(self) -> None:
        from billing_app.accounts import account_created
        from secrets_app import checks  # noqa: F401  registers itself

        account_created.connect(furnish_account, dispatch_uid="secrets_app.furnish_account")


def furnish_account(account: Any, **_: Any) -> None:
    """Give a new account what it needs to hold secrets: its environments and its data key, in the same transaction."""
    from secrets_app import data_keys, environments

    environments.create_defaults(account.pk)
    data_keys.ensure_keys(account.pk)
