"""Numbered system checks that ask the database. `migrate` runs them, and web and worker before they start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError

from secrets_app import data_keys
from secrets_app.crypto.cipher import SealBroken
from secrets_app.models import DataKey


@register(Tags.database)
def check_master_keys_open(app_configs: Any, databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """The root keys must open what is stored: one data key of each root key that is in use is tried."""
    if not databases:
        return []
    try:
        in_use = list(DataKey.objects.order_by().values_list("root_key_id", flat=True).distinct())
        tried = [DataKey.objects.filter(root_key_id=root_key_id).latest("created_at") for root_key_id in in_use]
    except DatabaseError:
        # Not migrated yet, or not there: others say so.
        return []
    try:
        data_keys.root_keys(settings.KNOXCALL_MASTER_KEYS)
        for row in tried:
            data_keys.check_opens(row)
    except ImproperlyConfigured:
        return []  # knoxcall.E007 says it
    except SealBroken as err:
        return [
            Error(
                f"KNOXCALL_MASTER_KEYS does not open what is stored in this database: {err}.",
                hint="Give it the keys that the database was sealed with, the newest first.",
                id="secrets_app.E001",
            )
        ]
    return []
