"""Root keys: read strictly, and wrapping bound to the row of what is wrapped."""

from __future__ import annotations

import base64
import uuid

import pytest
from django.core.exceptions import ImproperlyConfigured

from secrets_app.crypto.cipher import SealBroken
from secrets_app.crypto.keyring import RootKeys, new_data_key, wrapping_label

ONE = base64.b64encode(b"1" * 32).decode()
TWO = base64.b64encode(b"2" * 32).decode()
LABEL = wrapping_label(key_id=uuid.UUID(int=1), account=uuid.UUID(int=2), purpose="seal")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (f"k1:{ONE}", ["k1"]),
        (f"k2:{TWO},k1:{ONE}", ["k2", "k1"]),
        (f" k2:{TWO} , k1:{ONE} ,", ["k2", "k1"]),
        (f"k2:{TWO}\nk1:{ONE}\n", ["k2", "k1"]),
        (f"k2:{TWO}\r\nk1:{ONE}\r\n", ["k2", "k1"]),
        (f"2026-03.new_one:{ONE}", ["2026-03.new_one"]),
    ],
)
def test_keys_are_read_newest_first(text, ids):
    keys = RootKeys.parse(text)
    assert list(keys.keys) == ids
    assert keys.newest == ids[0]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no key"),
        (" , \n", "no key"),
        (ONE, "id:base64"),
        (f":{ONE}", "id:base64"),
        (f"a b:{ONE}", "id:base64"),
        (f"{'k' * 33}:{ONE}", "id:base64"),
        ("k1:", "k1"),
        ("k1:***", "k1"),
        ("k1:ключ", "k1"),
        (f"k1:{ONE[:-4]}", "k1"),
        (f"k1:{base64.b64encode(b'1' * 16).decode()}", "k1"),
        (f"k1:{base64.b64encode(b'1' * 33).decode()}", "k1"),
        (f"k1:{ONE},k1:{TWO}", "k1"),
    ],
)
def test_a_bad_setting_is_named_and_not_quoted(text, named):
    with pytest.raises(ImproperlyConfigured) as caught:
        RootKeys.parse(text)
    said = str(caught.value)
    assert "KNOXCALL_MASTER_KEYS" in said
    assert named in said
    assert ONE not in said
    assert TWO not in said
    assert "***" not in said


def test_root_keys_print_their_ids_only():
    printed = repr(RootKeys.parse(f"k2:{TWO},k1:{ONE}"))
    assert "k2" in printed
    assert "1111" not in printed
    assert ONE not in printed


def test_the_newest_key_wraps_and_every_key_unwraps():
    data_key = new_data_key()
    old = RootKeys.parse(f"k1:{ONE}")
    root_key_id, wrapped = old.wrap(data_key, label=LABEL)
    assert root_key_id == "k1"
    both = RootKeys.parse(f"k2:{TWO},k1:{ONE}")
    assert both.unwrap("k1", wrapped, label=LABEL) == data_key
    assert both.wrap(data_key, label=LABEL)[0] == "k2"


def test_a_wrapped_key_is_not_there_to_be_read():
    data_key = new_data_key()
    assert data_key not in RootKeys.parse(f"k1:{ONE}").wrap(data_key, label=LABEL)[1]


def test_a_root_key_that_is_gone_is_a_broken_seal():
    _, wrapped = RootKeys.parse(f"k1:{ONE}").wrap(new_data_key(), label=LABEL)
    with pytest.raises(SealBroken):
        RootKeys.parse(f"k2:{TWO}").unwrap("k1", wrapped, label=LABEL)


def test_another_root_key_of_the_same_name_does_not_unwrap():
    _, wrapped = RootKeys.parse(f"k1:{ONE}").wrap(new_data_key(), label=LABEL)
    with pytest.raises(SealBroken):
        RootKeys.parse(f"k1:{TWO}").unwrap("k1", wrapped, label=LABEL)


@pytest.mark.parametrize(
    "other",
    [
        {"key_id": uuid.UUID(int=9), "account": uuid.UUID(int=2), "purpose": "seal"},
        {"key_id": uuid.UUID(int=1), "account": uuid.UUID(int=9), "purpose": "seal"},
        {"key_id": uuid.UUID(int=1), "account": None, "purpose": "seal"},
        {"key_id": uuid.UUID(int=1), "account": uuid.UUID(int=2), "purpose": "pepper"},
    ],
)
def test_a_wrapped_key_does_not_unwrap_in_another_row(other):
    keys = RootKeys.parse(f"k1:{ONE}")
    _, wrapped = keys.wrap(new_data_key(), label=LABEL)
    with pytest.raises(SealBroken):
        keys.unwrap("k1", wrapped, label=wrapping_label(**other))


@pytest.mark.parametrize("cut", [0, 5, 12, 20, 59])
def test_a_wrapped_key_that_was_cut_does_not_unwrap(cut):
    keys = RootKeys.parse(f"k1:{ONE}")
    _, wrapped = keys.wrap(new_data_key(), label=LABEL)
    with pytest.raises(SealBroken):
        keys.unwrap("k1", wrapped[:cut], label=LABEL)


def test_data_keys_are_256_random_bits():
    assert {len(new_data_key()) for _ in range(100)} == {32}
    assert len({new_data_key() for _ in range(100)}) == 100
