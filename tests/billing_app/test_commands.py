"""`manage.py set_plan`."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from billing_app.plans import PLANS
from tests.factories import an_account


@pytest.mark.parametrize("plan", PLANS)
def test_set_plan_puts_the_account_on_the_plan_and_says_so(db, plan):
    account = an_account(plan="pro")
    said = StringIO()
    call_command("set_plan", account.slug, plan, stdout=said)
    account.refresh_from_db()
    assert account.subscription_plan == plan
    assert account.slug in said.getvalue()
    assert PLANS[plan].label in said.getvalue()


def test_set_plan_refuses_an_unknown_plan(db):
    account = an_account()
    with pytest.raises(CommandError):
        call_command("set_plan", account.slug, "gold")


def test_set_plan_refuses_an_unknown_account(db):
    with pytest.raises(CommandError):
        call_command("set_plan", "nobody", "pro")
