"""What a plan allows, checked."""

from __future__ import annotations

import pytest

from billing_app.limits import check_oauth2_allowed, check_secret_limit
from billing_app.models import Account
from billing_app.plans import PLANS
from knoxcall.api.errors import PlanLimitReached


@pytest.mark.parametrize("plan", [plan for plan in PLANS.values() if plan.secrets is not None], ids=lambda p: p.name)
def test_the_last_place_is_given_and_no_more(plan):
    account = Account(subscription_plan=plan.name)
    check_secret_limit(account, used=plan.secrets - 1)
    with pytest.raises(PlanLimitReached) as caught:
        check_secret_limit(account, used=plan.secrets)
    assert caught.value.extra["limit"] == {
        "resource": "secrets",
        "used": plan.secrets,
        "limit": plan.secrets,
        "plan": plan.name,
    }


def test_the_message_names_plan_and_limit():
    with pytest.raises(PlanLimitReached) as caught:
        check_secret_limit(Account(subscription_plan="free"), used=10)
    assert "Free" in caught.value.message
    assert "10" in caught.value.message


def test_what_is_held_beyond_a_new_limit_leaves_no_place():
    with pytest.raises(PlanLimitReached) as caught:
        check_secret_limit(Account(subscription_plan="free"), used=400)
    assert caught.value.extra["limit"]["used"] == 400


def test_enterprise_has_no_limit():
    check_secret_limit(Account(subscription_plan="enterprise"), used=10**9)


def test_an_override_replaces_the_plans_number():
    account = Account(subscription_plan="free", secrets_limit_override=12)
    check_secret_limit(account, used=11)
    with pytest.raises(PlanLimitReached) as caught:
        check_secret_limit(account, used=12)
    assert caught.value.extra["limit"]["limit"] == 12


def test_an_override_limits_a_plan_that_has_no_limit():
    with pytest.raises(PlanLimitReached):
        check_secret_limit(Account(subscription_plan="enterprise", secrets_limit_override=3), used=3)


def test_an_override_of_zero_is_a_limit_of_zero():
    with pytest.raises(PlanLimitReached):
        check_secret_limit(Account(subscription_plan="pro", secrets_limit_override=0), used=0)


@pytest.mark.parametrize("plan", PLANS)
def test_oauth2_needs_a_plan_that_has_it(plan):
    account = Account(subscription_plan=plan)
    if PLANS[plan].oauth2:
        check_oauth2_allowed(account)
        return
    with pytest.raises(PlanLimitReached) as caught:
        check_oauth2_allowed(account)
    assert caught.value.extra["limit"] == {"resource": "oauth2_secrets", "used": 0, "limit": 0, "plan": plan}
