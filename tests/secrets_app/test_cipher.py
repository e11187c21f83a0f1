"""The cipher: a value opens under its key and in its place, and nowhere else."""

from __future__ import annotations

import copy
import json
import pickle
import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrets_app.crypto.cipher import VERSION, Place, Plaintext, SealBroken, key_id_of, seal, unseal

KEY = bytes(range(32))
KEY_ID = uuid.UUID(int=7)
PLACE = Place(account=uuid.UUID(int=1), table="a_table", column="a_column", row=uuid.UUID(int=2))
VALUE = b"the value"
SEALED = seal(KEY, KEY_ID, Plaintext(VALUE), PLACE)

places = st.builds(
    Place,
    account=st.none() | st.uuids(),
    table=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    column=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    row=st.uuids(),
)


@given(value=st.binary(max_size=2000), key=st.binary(min_size=32, max_size=32), key_id=st.uuids(), place=places)
def test_what_is_sealed_opens_in_its_place(value, key, key_id, place):
    sealed = seal(key, key_id, Plaintext(value), place)
    assert unseal(key, sealed, place).reveal_bytes() == value
    assert key_id_of(sealed) == key_id


@given(value=st.text(st.characters(exclude_categories=["Cs"])))
def test_text_comes_back_as_it_was(value):
    assert unseal(KEY, seal(KEY, KEY_ID, Plaintext(value), PLACE), PLACE).reveal() == value


@given(position=st.integers(0, len(SEALED) - 1), change=st.integers(1, 255))
def test_a_sealed_value_with_any_byte_changed_does_not_open(position, change):
    changed = bytearray(SEALED)
    changed[position] ^= change
    with pytest.raises(SealBroken):
        unseal(KEY, bytes(changed), PLACE)


@given(other=places)
def test_a_sealed_value_does_not_open_in_any_other_place(other):
    if other == PLACE:
        return
    with pytest.raises(SealBroken):
        unseal(KEY, SEALED, other)


@pytest.mark.parametrize(
    "part",
    [
        {"account": uuid.UUID(int=9)},
        {"account": None},
        {"table": "b_table"},
        {"column": "b_column"},
        {"row": uuid.UUID(int=9)},
    ],
    ids=lambda part: next(iter(part)),
)
def test_each_part_of_the_place_is_bound(part):
    with pytest.raises(SealBroken):
        unseal(KEY, SEALED, replace(PLACE, **part))


@given(first=places, second=places)
def test_two_places_are_never_encoded_alike(first, second):
    assert (first.encode() == second.encode()) == (first == second)


def test_letters_do_not_move_between_table_and_column():
    assert replace(PLACE, table="ab", column="c").encode() != replace(PLACE, table="a", column="bc").encode()


@given(key=st.binary(min_size=32, max_size=32))
def test_another_key_does_not_open(key):
    if key == KEY:
        return
    with pytest.raises(SealBroken):
        unseal(key, SEALED, PLACE)


@pytest.mark.parametrize("length", range(len(SEALED)))
def test_a_truncated_value_does_not_open(length):
    with pytest.raises(SealBroken):
        unseal(KEY, SEALED[:length], PLACE)


def test_a_value_with_something_behind_it_does_not_open():
    with pytest.raises(SealBroken):
        unseal(KEY, SEALED + b"\0", PLACE)


@pytest.mark.parametrize("version", [0, 2, 255])
def test_an_unknown_version_is_refused(version):
    with pytest.raises(SealBroken):
        key_id_of(bytes([version]) + SEALED[1:])


def test_a_sealed_value_is_version_key_id_nonce_and_ciphertext_with_tag():
    assert SEALED[0] == VERSION
    assert SEALED[1:17] == KEY_ID.bytes
    assert len(SEALED) == 1 + 16 + 12 + len(VALUE) + 16
    assert VALUE not in SEALED


def test_the_same_value_is_never_sealed_alike():
    assert len({seal(KEY, KEY_ID, Plaintext(VALUE), PLACE) for _ in range(100)}) == 100


def test_a_broken_seal_says_nothing_of_key_or_value():
    with pytest.raises(SealBroken) as caught:
        unseal(bytes(32), SEALED, PLACE)
    assert "value" not in str(caught.value).replace("a value of", "")
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("form", [str, repr, "{}".format, "{:>10}".format, "%s".__mod__, "{!r}".format])
def test_a_plaintext_prints_four_stars(form):
    assert form(Plaintext("the value")) == "****"


def test_a_plaintext_prints_four_stars_inside_other_things():
    assert "the value" not in repr([Plaintext("the value")])
    assert "the value" not in f"{ {'a': Plaintext('the value')} }"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_plaintext_is_not_pickled(protocol):
    with pytest.raises(TypeError):
        pickle.dumps(Plaintext("the value"), protocol)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_plaintext_is_not_copied(copied):
    with pytest.raises(TypeError):
        copied(Plaintext("the value"))


def test_a_plaintext_is_not_json():
    with pytest.raises(TypeError):
        json.dumps(Plaintext("the value"))


def test_a_plaintext_has_no_attributes_to_look_through():
    with pytest.raises(TypeError):
        vars(Plaintext("the value"))


def test_plaintexts_do_not_compare():
    assert Plaintext("the value") != Plaintext("the value")
