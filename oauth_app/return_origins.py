"""The list of origins that browsers of an account may be sent back to; every change is recorded."""

from __future__ import annotations

from django.db import transaction

from billing_app.models import Account
from oauth_app.models import ReturnOrigin
from oauth_app.return_urls import normal_origin
from secrets_app import audit
from secrets_app.models import Mode


def allow_origin(account: Account, origin: str, *, actor: audit.Actor) -> ReturnOrigin:
    """Put ``origin`` on the account's list, where it may be already. Raises ``ValueError`` for what is no origin."""
    with transaction.atomic():
        row, is_new = ReturnOrigin.objects.get_or_create(account=account, origin=normal_origin(origin))
        if is_new:
            record(audit.Action.RETURN_ORIGIN_ALLOWED, row, actor)
    return row


def remove_origin(account: Account, origin: str, *, actor: audit.Actor) -> None:
    """Take ``origin`` off the account's list; links that name it show our own page from now on. Raises ``ValueError``."""
    with transaction.atomic():
        row = ReturnOrigin.objects.filter(account=account, origin=normal_origin(origin)).first()
        if row is None:
            raise ValueError("It is not on the list.")
        record(audit.Action.RETURN_ORIGIN_REMOVED, row, actor)
        row.delete()


def record(action: audit.Action, row: ReturnOrigin, actor: audit.Actor) -> None:
    """Write an audit event about ``row``. The list holds for both modes; the live one's record tells of it."""
    audit.record(
        action,
        account_id=row.account_id,
        mode=Mode.LIVE,
        resource_type="account",
        resource_id=row.account_id,
        actor=actor,
        details={"origin": row.origin},
    )
