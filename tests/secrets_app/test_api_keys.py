"""API keys: their form, and which of those that are shown is real."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from secrets_app import api_keys, data_keys
from secrets_app.api_keys import create_api_key, find_api_key
from secrets_app.models import PERMISSIONS, ApiKey, DataKey
from tests.factories import an_account

pytestmark = pytest.mark.django_db


@pytest.fixture
def account(db):
    return an_account()


@pytest.mark.parametrize("mode", ["live", "test"])
def test_a_key_has_a_prefix_that_names_its_mode(account, mode):
    row, key = create_api_key(account.pk, name="a key", mode=mode)
    assert re.fullmatch(rf"tk_{mode}_[0-9A-Za-z]{{61}}", key)
    assert row.mode == mode


def test_the_key_id_is_a_literal_prefix_of_the_key(account):
    row, key = create_api_key(account.pk, name="a key")
    assert key.startswith(row.key_id)
    assert len(row.key_id) == len("tk_live_") + 12


def test_a_key_is_found_by_being_shown(account):
    row, key = create_api_key(account.pk, name="a key", role=ApiKey.Role.READ_ONLY)
    found = find_api_key(key)
    assert found == row
    assert found.account == account
    assert found.role == "read_only"


def test_finding_a_key_costs_one_statement(account):
    _, key = create_api_key(account.pk, name="a key")
    find_api_key(key)
    with CaptureQueriesContext(connection) as queries:
        assert find_api_key(key).account.slug == account.slug
    # The pepper of this test's transaction is not kept, so it is read as well; see test_query_counts.
    assert len(queries) <= 2


def test_a_digest_is_stored_and_not_the_key(account):
    row, key = create_api_key(account.pk, name="a key")
    row.refresh_from_db()
    secret = key.removeprefix(row.key_id)
    stored = [value for value in vars(row).values() if isinstance(value, str | bytes | memoryview)]
    assert all(secret.encode() not in (v.encode() if isinstance(v, str) else bytes(v)) for v in stored)
    assert len(bytes(row.digest)) == 32


def test_no_two_keys_are_alike(account):
    assert len({create_api_key(account.pk, name="a key")[1] for _ in range(20)}) == 20


def test_a_revoked_key_is_none(account):
    row, key = create_api_key(account.pk, name="a key")
    ApiKey.objects.filter(pk=row.pk).update(revoked_at=timezone.now())
    assert find_api_key(key) is None


def test_an_expired_key_is_none(account):
    _, key = create_api_key(account.pk, name="a key", expires_at=timezone.now() - timedelta(seconds=1))
    assert find_api_key(key) is None


def test_a_key_that_will_expire_is_found(account):
    row, key = create_api_key(account.pk, name="a key", expires_at=timezone.now() + timedelta(minutes=1))
    assert find_api_key(key) == row


def with_checksum(body: str) -> str:
    return body + api_keys._checksum(body)


def test_an_unknown_key_of_good_form_is_none(account):
    assert find_api_key(with_checksum("tk_live_" + "a" * 55)) is None


def test_the_id_of_a_key_with_another_secret_is_none(account):
    row, _ = create_api_key(account.pk, name="a key")
    assert find_api_key(with_checksum(row.key_id + "a" * 43)) is None


def test_a_live_key_does_not_pass_for_a_test_key(account):
    _, key = create_api_key(account.pk, name="a key")
    assert find_api_key(with_checksum("tk_test_" + key[8:-6])) is None


def test_each_character_of_a_key_counts(account):
    _, key = create_api_key(account.pk, name="a key")
    for position in range(len(key)):
        changed = key[:position] + ("A" if key[position] != "A" else "B") + key[position + 1 :]
        assert find_api_key(changed) is None, position


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "tk_",
        "tk_live_",
        "tk_live_short",
        "tk_live_" + "a" * 61,
        "tk_prod_" + "a" * 61,
        "sk_live_" + "a" * 61,
        "tk_live_" + "ä" * 61,
        "tk_live_" + "a" * 100_000,
        with_checksum("tk_live_" + "\x00" * 55),
        with_checksum("tk_live_" + "'" * 55),
        with_checksum("tk_live_" + " " * 55),
        with_checksum("tk_live_" + "ä" * 55),
    ],
    ids=lambda shown: repr(shown[:20]),
)
def test_a_malformed_key_is_none_and_costs_no_statement(shown):
    with CaptureQueriesContext(connection) as queries:
        assert find_api_key(shown) is None
    assert len(queries) == 0


def test_a_key_survives_a_new_pepper(account):
    row, key = create_api_key(account.pk, name="a key")
    DataKey.objects.filter(pk=row.pepper_id).update(retired_at=timezone.now())
    data_keys.forget()
    _, other = create_api_key(account.pk, name="another")
    assert find_api_key(key) == row
    assert find_api_key(other).pepper_id != row.pepper_id


def test_a_key_prints_no_more_than_its_id(account):
    row, key = create_api_key(account.pk, name="a key")
    assert key not in str(row)
    assert row.key_id in str(row)


def test_roles_grant_more_and_more():
    assert PERMISSIONS["read_only"] < PERMISSIONS["editor"] < PERMISSIONS["admin"]
    assert all(permission.endswith(":read") for permission in PERMISSIONS["read_only"])
