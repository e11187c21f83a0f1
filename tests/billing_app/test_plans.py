"""The price list."""

from __future__ import annotations

import dataclasses

import pytest

from billing_app.models import Account
from billing_app.plans import PLANS


def test_the_plans_are_the_four_of_the_contract():
    assert list(PLANS) == ["free", "starter", "pro", "enterprise"]
    assert list(PLANS) == Account.PlanName.values


def test_each_plan_is_listed_under_its_own_name():
    assert all(plan.name == name for name, plan in PLANS.items())


def test_only_pro_and_enterprise_have_oauth2():
    assert [name for name, plan in PLANS.items() if plan.oauth2] == ["pro", "enterprise"]


def test_only_enterprise_holds_secrets_without_limit():
    assert [name for name, plan in PLANS.items() if plan.secrets is None] == ["enterprise"]


def test_requests_a_minute_are_those_of_the_contract():
    assert [plan.requests_per_minute for plan in PLANS.values()] == [600, 3_000, 30_000, 300_000]


def test_a_plan_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PLANS["free"].secrets = None
