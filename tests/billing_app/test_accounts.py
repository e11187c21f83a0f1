"""Accounts: created whole or not at all, found by slug, moved between plans."""

from __future__ import annotations

import uuid

import pytest
from django.db import transaction

from billing_app.accounts import (
    AccountRefused,
    account_created,
    create_account,
    get_account,
    lock_account,
    plan_changed,
    set_plan,
)
from billing_app.models import Account
from secrets_app.models import DataKey, Environment


@pytest.fixture
def account(db) -> Account:
    return create_account("acme", plan="pro")


def test_a_new_account_has_production_in_each_mode_and_a_data_key(account):
    found = Environment.objects.filter(account=account).values_list("mode", "name", "is_default")
    assert sorted(found) == [("live", "production", True), ("test", "production", True)]
    assert DataKey.objects.filter(account=account, retired_at=None).count() == 1


def test_the_name_is_the_slug_where_none_is_given(account):
    assert account.name == "acme"
    assert create_account("other", name="The Other").name == "The Other"


def test_a_new_account_is_on_the_free_plan_unless_told_otherwise(db):
    assert create_account("acme").subscription_plan == "free"


@pytest.mark.parametrize(
    "slug", ["", "Acme", "a b", "-acme", "acme-", "a" * 64, "acme\n", "ácme", "a.b", "a_b", "a/b", "\x00"]
)
def test_a_slug_that_is_no_dns_label_is_refused(db, slug):
    with pytest.raises(AccountRefused):
        create_account(slug)
    assert not Account.objects.exists()


@pytest.mark.parametrize("slug", ["a", "0", "a-b", "a--b", "a" * 63])
def test_a_dns_label_is_a_slug(db, slug):
    assert create_account(slug).slug == slug


def test_a_slug_is_taken_once(account):
    with pytest.raises(AccountRefused):
        create_account("acme")
    assert Account.objects.count() == 1


def test_a_name_of_more_than_255_characters_is_refused(db):
    with pytest.raises(AccountRefused):
        create_account("acme", name="x" * 256)


def test_an_unknown_plan_is_refused(db):
    with pytest.raises(AccountRefused):
        create_account("acme", plan="gold")


def test_an_account_that_cannot_be_furnished_is_not_there(db):
    def refuse(**_):
        raise RuntimeError

    account_created.connect(refuse)
    try:
        with pytest.raises(RuntimeError):
            create_account("acme")
    finally:
        account_created.disconnect(refuse)
    assert not Account.objects.exists()


def test_an_account_is_found_by_its_slug(account):
    assert get_account("acme") == account
    with pytest.raises(AccountRefused):
        get_account("nobody")


def test_a_change_of_plan_is_stored_and_told(account):
    told = []

    def hear(**fact):
        told.append((fact["account"].slug, fact["previous"], fact["account"].subscription_plan))

    plan_changed.connect(hear)
    try:
        set_plan("acme", "free")
    finally:
        plan_changed.disconnect(hear)
    account.refresh_from_db()
    assert account.subscription_plan == "free"
    assert told == [("acme", "pro", "free")]


def test_no_account_is_put_on_an_unknown_plan(account):
    with pytest.raises(AccountRefused):
        set_plan("acme", "gold")
    account.refresh_from_db()
    assert account.subscription_plan == "pro"


@pytest.mark.django_db(transaction=True)
def test_locking_an_account_needs_a_transaction():
    account = create_account("acme")
    with pytest.raises(transaction.TransactionManagementError):
        lock_account(account.pk)
    with transaction.atomic():
        assert lock_account(account.pk) == account


def test_locking_an_account_that_is_gone_raises(db):
    with transaction.atomic(), pytest.raises(Account.DoesNotExist):
        lock_account(uuid.uuid4())


def test_an_account_prints_its_slug(account):
    assert str(account) == "acme"
