"""The encrypted column: sealed on assignment, opening in its own row only."""

from __future__ import annotations

import pytest
from django.db import connection, transaction

from secrets_app.crypto.cipher import Ciphertext, Plaintext, SealBroken
from secrets_app.crypto.fields import Sealed
from secrets_app.models import SecretValue
from tests.factories import Caller, a_string


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.fixture
def stored(caller) -> SecretValue:
    return SecretValue.objects.get(secret=a_string(caller, value="the value"))


def raw(row: SecretValue) -> bytes:
    """What really stands in the column."""
    with connection.cursor() as cursor:
        key = row.pk if connection.vendor == "postgresql" else row.pk.hex
        cursor.execute("SELECT value FROM secrets_app_secretvalue WHERE id = %s", [key])
        return bytes(cursor.fetchone()[0])


def test_a_stored_value_opens(stored):
    assert stored.value.open().reveal() == "the value"


def test_the_column_holds_a_sealed_value(stored):
    assert b"the value" not in raw(stored)
    assert raw(stored) == stored.value.ciphertext


def test_an_instance_carries_no_plaintext(caller):
    row = SecretValue(account_id=caller.account.pk, value=Plaintext("the value"))
    assert "the value" not in repr(vars(row))
    assert isinstance(row.value, Sealed)


def test_a_sealed_value_prints_nothing(stored):
    assert str(stored.value) == repr(stored.value) == "<sealed>"


def test_a_value_pasted_into_another_row_does_not_open(caller, stored):
    other = SecretValue.objects.get(secret=a_string(caller, "another"))
    SecretValue.objects.filter(pk=other.pk).update(value=stored.value.ciphertext)
    other.refresh_from_db()
    with pytest.raises(SealBroken):
        other.value.open()


def test_a_value_pasted_into_another_account_does_not_open(stored):
    stranger = Caller()
    SecretValue.objects.filter(pk=stored.pk).update(account_id=stranger.account.pk)
    with pytest.raises(SealBroken):
        SecretValue.objects.get(pk=stored.pk).value.open()


def test_a_value_pasted_into_another_column_does_not_open(stored):
    field = SecretValue._meta.get_field("value")
    place = field.place_of(stored)
    moved = Sealed(stored.value.ciphertext, type(place)(place.account, place.table, "another", place.row))
    with pytest.raises(SealBroken):
        moved.open()


def test_bytes_that_were_never_sealed_do_not_open(stored):
    SecretValue.objects.filter(pk=stored.pk).update(value=Ciphertext(b"the value in the clear, which is long enough"))
    stored.refresh_from_db()
    with pytest.raises(SealBroken):
        stored.value.open()


@pytest.mark.parametrize("value", ["the value", 7, ["the value"]])
def test_assigning_anything_but_a_plaintext_raises(stored, value):
    with pytest.raises(TypeError) as caught:
        stored.value = value
    assert "the value" not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["the value", b"the value", Plaintext("the value")], ids=["str", "bytes", "Plaintext"]
)
def test_an_update_with_what_is_not_sealed_stores_nothing(stored, value):
    before = raw(stored)
    with pytest.raises(Exception) as caught, transaction.atomic():  # noqa: PT011  the driver's own
        SecretValue.objects.filter(pk=stored.pk).update(value=value)
    assert "the value" not in str(caught.value)
    assert raw(stored) == before


def test_an_update_takes_what_the_field_sealed(stored):
    sealed = SecretValue._meta.get_field("value").seal(Plaintext("a new one"), account=stored.account_id, row=stored.pk)
    SecretValue.objects.filter(pk=stored.pk).update(value=sealed)
    stored.refresh_from_db()
    assert stored.value.open().reveal() == "a new one"


def test_assigning_a_plaintext_seals_it_for_the_row(stored):
    stored.value = Plaintext("a new one")
    stored.save(update_fields=["value"])
    assert SecretValue.objects.get(pk=stored.pk).value.open().reveal() == "a new one"


def test_a_deferred_value_is_loaded_when_it_is_asked_for(stored):
    row = SecretValue.objects.defer("value").get(pk=stored.pk)
    assert "value" not in vars(row)
    assert row.value.open().reveal() == "the value"


def test_saving_a_row_with_a_deferred_value_keeps_the_value(stored):
    for update_fields in (None, ["value"], ["value_version"]):
        row = SecretValue.objects.defer("value").get(pk=stored.pk)
        row.save(update_fields=update_fields)
        assert SecretValue.objects.get(pk=stored.pk).value.open().reveal() == "the value"


def test_a_sealed_value_cannot_be_changed_in_the_admin():
    assert SecretValue._meta.get_field("value").editable is False
