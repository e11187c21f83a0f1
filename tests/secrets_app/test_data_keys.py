"""Data keys: one current per account, never used before its commit, retired in time, opening what they sealed for ever."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from secrets_app import data_keys
from secrets_app.crypto.cipher import Place, Plaintext, SealBroken, key_id_of
from secrets_app.models import DataKey
from tests.factories import an_account
from tests.support.crowd import all_at_once

SEAL, PEPPER = DataKey.Purpose.SEAL, DataKey.Purpose.PEPPER


def place(account) -> Place:
    return Place(account=account.pk, table="a_table", column="a_column", row=uuid.UUID(int=1))


def sealed(account, value: str = "the value") -> bytes:
    return data_keys.seal(Plaintext(value), place(account))


def opened(account, value: bytes) -> str:
    return data_keys.unseal(value, place(account)).reveal()


def current(account) -> DataKey:
    return DataKey.objects.get(account=account, purpose=SEAL, retired_at=None)


@pytest.fixture
def account(db):
    return an_account()


@pytest.fixture
def settled(transactional_db):
    """An account whose keys have been committed, as outside of tests they are."""
    return an_account()


def test_a_value_is_sealed_under_the_accounts_current_key(account):
    assert key_id_of(sealed(account)) == current(account).pk


def test_a_new_process_opens_what_an_old_one_sealed(settled):
    value = sealed(settled)
    data_keys.forget()
    assert opened(settled, value) == "the value"


def test_a_key_of_another_account_does_not_open_although_the_value_names_it(account):
    value = sealed(account)
    with pytest.raises(SealBroken):
        opened(an_account(), value)


def test_a_key_moved_to_another_account_does_not_unwrap(account):
    value = sealed(account)
    other = an_account()
    DataKey.objects.filter(account=other).delete()
    DataKey.objects.filter(account=account).update(account=other)
    data_keys.forget()
    with pytest.raises(SealBroken):
        opened(other, value)
    with pytest.raises(SealBroken):
        sealed(other)


def test_a_key_that_is_gone_is_a_broken_seal(account):
    value = sealed(account)
    DataKey.objects.filter(account=account).delete()
    data_keys.forget()
    with pytest.raises(SealBroken):
        opened(account, value)


def test_another_root_key_opens_nothing(settled, settings):
    value = sealed(settled)
    data_keys.forget()
    settings.KNOXCALL_MASTER_KEYS = "other:" + "b3RoZXIga2V5IGZvciB0ZXN0cywgMzIgYnl0ZXMgbG8="
    with pytest.raises(SealBroken):
        opened(settled, value)


def test_a_key_is_stored_wrapped(account):
    value = sealed(account)
    row = current(account)
    assert data_keys._key(key_id_of(value)) not in bytes(row.wrapped_key)


@pytest.mark.django_db(transaction=True)
def test_a_key_made_in_a_transaction_that_is_rolled_back_is_not_used_afterwards(settled):
    DataKey.objects.filter(account=settled).delete()
    data_keys.forget()
    lost = None
    with pytest.raises(RuntimeError), transaction.atomic():
        lost = sealed(settled)
        assert opened(settled, lost) == "the value"
        raise RuntimeError
    value = sealed(settled)
    assert key_id_of(value) != key_id_of(lost)
    assert DataKey.objects.filter(pk=key_id_of(value)).exists()
    with pytest.raises(SealBroken):
        opened(settled, lost)


def test_a_key_made_in_a_transaction_that_commits_is_kept_from_then_on(settled):
    DataKey.objects.filter(account=settled).delete()
    data_keys.forget()
    with transaction.atomic():
        value = sealed(settled)
    assert key_id_of(sealed(settled)) == key_id_of(value)
    with CaptureQueriesContext(connection) as queries:
        assert opened(settled, sealed(settled)) == "the value"
    assert len(queries) == 0


def test_sealing_and_opening_cost_no_statement_once_warm(settled):
    value = sealed(settled)
    with CaptureQueriesContext(connection) as queries:
        for _ in range(10):
            opened(settled, sealed(settled))
        opened(settled, value)
    assert len(queries) == 0


def test_two_threads_make_one_current_key(settled):
    for _ in range(3):
        DataKey.objects.filter(account=settled).delete()
        data_keys.forget()
        values = all_at_once(*[lambda: sealed(settled)] * 8)
        assert {key_id_of(value) for value in values} == {current(settled).pk}
        assert {opened(settled, value) for value in values} == {"the value"}


def test_the_database_refuses_a_second_current_key(account):
    with pytest.raises(IntegrityError), transaction.atomic():
        DataKey.objects.create(account=account, purpose=SEAL, root_key_id="x", wrapped_key=b"x")


def test_the_database_refuses_a_second_current_pepper(db):
    data_keys.ensure_keys(None)
    with pytest.raises(IntegrityError), transaction.atomic():
        DataKey.objects.create(account=None, purpose=PEPPER, root_key_id="x", wrapped_key=b"x")


def test_a_key_seals_for_thirty_days(settled):
    first = key_id_of(sealed(settled))
    DataKey.objects.filter(pk=first).update(created_at=timezone.now() - timedelta(days=29, hours=23))
    data_keys.forget()
    assert key_id_of(sealed(settled)) == first


@pytest.mark.parametrize("is_warm", [True, False], ids=["kept", "read again"])
def test_a_key_of_more_than_thirty_days_is_retired_and_opens_what_it_sealed(settled, is_warm, monkeypatch):
    value = sealed(settled)
    if is_warm:
        monkeypatch.setattr(data_keys, "MAX_AGE", timedelta(seconds=-1))
        renewed = sealed(settled)
        monkeypatch.undo()
    else:
        old = timezone.now() - timedelta(days=30, seconds=1)
        DataKey.objects.filter(pk=key_id_of(value)).update(created_at=old)
        data_keys.forget()
        renewed = sealed(settled)
    assert key_id_of(renewed) != key_id_of(value)
    assert DataKey.objects.get(pk=key_id_of(value)).retired_at is not None
    assert current(settled).pk == key_id_of(renewed)
    assert opened(settled, value) == opened(settled, renewed) == "the value"


def test_a_key_retired_in_a_transaction_leaves_the_next_seal_a_current_one(settled):
    value = sealed(settled)
    DataKey.objects.filter(pk=key_id_of(value)).update(created_at=timezone.now() - timedelta(days=31))
    data_keys.forget()
    with transaction.atomic():
        renewed = sealed(settled)
    assert key_id_of(sealed(settled)) == key_id_of(renewed) == current(settled).pk


def test_a_key_retired_in_a_transaction_that_is_rolled_back_is_current_again(settled):
    value = sealed(settled)
    DataKey.objects.filter(pk=key_id_of(value)).update(created_at=timezone.now() - timedelta(days=31))
    data_keys.forget()
    with pytest.raises(RuntimeError), transaction.atomic():
        sealed(settled)
        raise RuntimeError
    assert current(settled).pk == key_id_of(value)
    assert current(settled).pk != key_id_of(sealed(settled))
    assert opened(settled, value) == "the value"


@pytest.fixture
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(data_keys, "SEAL_BLOCK", 4)
    monkeypatch.setattr(data_keys, "MAX_SEALS", 12)


def test_a_key_seals_no_more_than_its_number_of_values(settled, small_blocks):
    values = [sealed(settled) for _ in range(30)]
    used: dict[uuid.UUID, int] = {}
    for value in values:
        used[key_id_of(value)] = used.get(key_id_of(value), 0) + 1
    assert list(used.values()) == [12, 12, 6]
    assert DataKey.objects.filter(account=settled, retired_at=None).count() == 1
    assert {opened(settled, value) for value in values} == {"the value"}


def test_every_process_reserves_what_it_seals(settled, small_blocks):
    for _ in range(3):
        data_keys.forget()
        sealed(settled)
    assert current(settled).seals_reserved == 12
    data_keys.forget()
    first = DataKey.objects.get(account=settled, retired_at=None).pk
    assert key_id_of(sealed(settled)) != first


def test_a_reservation_that_is_rolled_back_leaves_nothing_to_seal_with(settled, small_blocks):
    with pytest.raises(RuntimeError), transaction.atomic():
        sealed(settled)
        raise RuntimeError
    assert current(settled).seals_reserved == 0
    sealed(settled)
    assert current(settled).seals_reserved == 4


def test_threads_do_not_seal_more_than_was_reserved(settled, small_blocks):
    values = [value for share in all_at_once(*[lambda: [sealed(settled) for _ in range(6)]] * 4) for value in share]
    used: dict[uuid.UUID, int] = {}
    for value in values:
        used[key_id_of(value)] = used.get(key_id_of(value), 0) + 1
    assert max(used.values()) <= 12
    assert all(DataKey.objects.get(pk=pk).seals_reserved >= number for pk, number in used.items())


def test_a_digest_is_keyed_and_belongs_to_its_domain(db):
    pepper_id, digest = data_keys.keyed_digest("one", b"data")
    assert data_keys.matches_digest("one", b"data", pepper_id, digest)
    assert not data_keys.matches_digest("two", b"data", pepper_id, digest)
    assert not data_keys.matches_digest("one", b"other", pepper_id, digest)


def test_a_digest_under_a_retired_pepper_still_matches(db):
    pepper_id, digest = data_keys.keyed_digest("one", b"data")
    DataKey.objects.filter(pk=pepper_id).update(retired_at=timezone.now())
    data_keys.forget()
    again_id, again = data_keys.keyed_digest("one", b"data")
    assert again_id != pepper_id
    assert again != digest
    assert data_keys.matches_digest("one", b"data", pepper_id, digest)


def test_the_pepper_does_not_age(db):
    pepper_id, _ = data_keys.keyed_digest("one", b"data")
    DataKey.objects.filter(pk=pepper_id).update(created_at=timezone.now() - timedelta(days=400))
    data_keys.forget()
    assert data_keys.keyed_digest("one", b"data")[0] == pepper_id


def test_keys_kept_in_the_process_print_nothing(settled):
    sealed(settled)
    key = data_keys._current[(settled.pk, SEAL)]
    assert str(key.key) not in repr(key)


def test_only_so_many_keys_are_kept(settled, monkeypatch):
    monkeypatch.setattr(data_keys, "_KEPT_KEYS", 3)
    accounts = [an_account() for _ in range(5)]
    values = [sealed(account) for account in accounts]
    assert len(data_keys._current) <= 3
    assert [opened(*pair) for pair in zip(accounts, values, strict=True)] == ["the value"] * 5


# Reserved


def test_reserved_seals_are_of_the_accounts_current_key_and_open(settled):
    reserved = data_keys.reserve(settled.pk, 3)
    values = [reserved.seal(Plaintext(f"value {number}"), place(settled)) for number in range(3)]
    assert {key_id_of(value) for value in values} == {current(settled).pk}
    assert [opened(settled, value) for value in values] == ["value 0", "value 1", "value 2"]


def test_what_was_reserved_is_sealed_without_the_database(settled):
    reserved = data_keys.reserve(settled.pk, 2)
    data_keys.forget()
    with CaptureQueriesContext(connection) as queries:
        values = [reserved.seal(Plaintext("the value"), place(settled)) for _ in range(2)]
    assert len(queries) == 0
    assert [opened(settled, value) for value in values] == ["the value"] * 2


def test_no_more_is_sealed_than_was_reserved(settled):
    reserved = data_keys.reserve(settled.pk, 1)
    reserved.seal(Plaintext("the value"), place(settled))
    with pytest.raises(IndexError):
        reserved.seal(Plaintext("another"), place(settled))
    assert opened(settled, sealed(settled)) == "the value"


def test_what_was_reserved_and_not_made_is_counted(settled, small_blocks):
    for _ in range(4):
        data_keys.reserve(settled.pk, 3)
    assert current(settled).seals_reserved == 12
    first = current(settled).pk
    assert key_id_of(sealed(settled)) != first


def test_a_reservation_may_be_of_two_keys(settled, small_blocks):
    data_keys.reserve(settled.pk, 10)
    reserved = data_keys.reserve(settled.pk, 4)
    values = [reserved.seal(Plaintext("the value"), place(settled)) for _ in range(4)]
    assert len({key_id_of(value) for value in values}) == 2
    assert [opened(settled, value) for value in values] == ["the value"] * 4


def test_a_key_that_was_retired_meanwhile_still_seals_what_was_reserved(settled):
    reserved = data_keys.reserve(settled.pk, 1)
    DataKey.objects.filter(account=settled).update(retired_at=timezone.now())
    data_keys.forget()
    assert opened(settled, reserved.seal(Plaintext("the value"), place(settled))) == "the value"


def test_threads_share_a_reservation_without_a_seal_too_many(settled):
    reserved = data_keys.reserve(settled.pk, 20)
    made: list[bytes] = []

    def seal() -> None:
        try:
            while True:
                made.append(reserved.seal(Plaintext("the value"), place(settled)))
        except IndexError:
            return

    all_at_once(*[seal] * 8)
    assert len(made) == 20


def test_threads_that_reserve_at_once_count_every_seal(settled, small_blocks):
    reservations = all_at_once(*[lambda: [data_keys.reserve(settled.pk, 3) for _ in range(2)]] * 4)
    used: dict[uuid.UUID, int] = {}
    for reserved in (one for share in reservations for one in share):
        for _ in range(3):
            key = key_id_of(reserved.seal(Plaintext("the value"), place(settled)))
            used[key] = used.get(key, 0) + 1
    assert sum(used.values()) == 24
    assert all(DataKey.objects.get(pk=pk).seals_reserved >= number for pk, number in used.items())


def test_a_reservation_seals_for_no_other_account(settled):
    """The value opens for nobody: the other account's place asks for the other account's key."""
    other = an_account()
    value = data_keys.reserve(settled.pk, 1).seal(Plaintext("the value"), place(other))
    with pytest.raises(SealBroken):
        opened(settled, value)


def test_a_reservation_prints_nothing(settled):
    reserved = data_keys.reserve(settled.pk, 1)
    assert repr(data_keys._current[(settled.pk, SEAL)].key) not in repr(reserved)
    assert not hasattr(reserved, "__dict__")
