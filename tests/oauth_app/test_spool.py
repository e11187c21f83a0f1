"""The spool's files: whole or not there, sealed for their connection, and what cannot be read is never taken for something."""

from __future__ import annotations

import errno
import json
import os
import stat
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oauth_app import spool
from oauth_app.models import Connection
from oauth_app.outcome import NO_REFRESH_TOKEN, Outcome, ended_outcome, failure_outcome, unsent_outcome
from oauth_app.protocol.errors import ClientRefused, OutcomeUnknown
from secrets_app import data_keys
from secrets_app.crypto.cipher import Plaintext, SealBroken
from tests.factories import Caller
from tests.oauth_app.outcomes import CLIENT, a_token, claimed


@pytest.fixture(autouse=True)
def _empty_spool(settings, tmp_path) -> None:
    settings.SPOOL_DIR = tmp_path / "data" / "spool"


@pytest.fixture
def claim(db) -> Connection:
    return claimed(Caller())


def kept(outcome: Outcome) -> Path:
    return spool.write(outcome, spool.sealed(outcome, outcome.seal or data_keys.seal))


KINDS: dict[str, Callable[[Connection], Outcome]] = {
    "token": a_token,
    "token with everything": lambda claim: a_token(
        claim,
        scopes=("read", "wörld"),
        facts={"instance_url": "https://eu.test", "team": {"id": "T1", "name": 'Ärzte "ohne" Grenzen'}},
        refresh_token_expires_in=86_400,
        used_previous_secret=True,
    ),
    "token without end": lambda claim: a_token(claim, expires_in=None, refresh_token=None),
    "failure": lambda claim: failure_outcome(
        claim, CLIENT, OutcomeUnknown("no_answer", "No answer."), now=claim.attempt_started_at
    ),
    "refusal": lambda claim: failure_outcome(
        claim, CLIENT, ClientRefused("invalid_client", "Refused."), now=claim.attempt_started_at
    ),
    "end": lambda claim: ended_outcome(claim, CLIENT, NO_REFRESH_TOKEN),
    "nothing sent": unsent_outcome,
    "postponed": lambda claim: unsent_outcome(claim, refresh_due_at=claim.expires_at),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_outcome_is_read_as_it_was_written(claim, kind):
    outcome = KINDS[kind](claim)
    path = kept(outcome)
    data_keys.forget()
    assert spool.read(path) == outcome
    assert spool.files() == [path] == [spool.path_of(outcome)]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_read_has_the_types_that_were_written(claim, kind):
    outcome = KINDS[kind](claim)
    found = spool.read(kept(outcome))
    assert {name: type(value) for name, value in found.columns.items()} == {
        name: type(value) for name, value in outcome.columns.items()
    }
    assert (found.claimed, found.client, found.refused, found.seal) == (None, None, None, None)


def test_a_file_tells_nothing_to_whoever_finds_it(claim):
    path = kept(a_token(claim))
    content = path.read_bytes()
    assert b"access_token" not in content
    assert b"refresh" not in content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_is_synced_before_it_has_its_name_and_its_name_before_anybody_counts_on_it(claim, monkeypatch):
    kept(a_token(claimed(Caller())))
    done: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_sync(descriptor)

    def rename(old: Any, new: Any) -> None:
        done.append("name")
        real_replace(old, new)

    monkeypatch.setattr(spool.os, "fsync", sync)
    monkeypatch.setattr(spool.os, "replace", rename)
    kept(a_token(claim))
    assert done == ["file", "name", "directory"]


def test_the_first_file_makes_the_directory_last(claim, monkeypatch):
    synced: list[int] = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(spool.os, "fsync", sync)
    path = kept(a_token(claim))
    assert {path.stat().st_ino, path.parent.stat().st_ino, path.parent.parent.stat().st_ino} <= set(synced)


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_disk_that_is_full_leaves_nothing_behind(claim, monkeypatch, step):
    outcome = a_token(claim)
    spool.directory().mkdir(parents=True)

    def full(*args: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(spool.os, step, full)
        with pytest.raises(OSError, match="space"):
            spool.write(outcome, spool.sealed(outcome, outcome.seal))
    assert list(spool.directory().iterdir()) == []
    assert spool.read(spool.write(outcome, spool.sealed(outcome, data_keys.seal))) == outcome


def test_what_was_cut_off_before_it_had_its_name_is_no_file(claim, monkeypatch):
    """As a process leaves it that was killed just then."""
    outcome = a_token(claim)

    class Killed(BaseException):
        pass

    def killed(*args: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(spool.os, "replace", killed)
        with pytest.raises(Killed):
            kept(outcome)
    assert len(list(spool.directory().iterdir())) == 1
    assert spool.files() == []


def test_one_attempt_has_one_file_however_often_it_is_written(claim):
    outcome = a_token(claim)
    assert kept(outcome) == spool.write(outcome, spool.sealed(outcome, data_keys.seal))
    assert len(list(spool.directory().iterdir())) == 1
    assert spool.read(spool.path_of(outcome)) == outcome


def test_a_file_is_removed_once_and_nobody_minds_a_second_time(claim):
    path = kept(a_token(claim))
    spool.remove(path)
    spool.remove(path)
    assert spool.files() == []
    with pytest.raises(FileNotFoundError):
        spool.read(path)


def test_what_was_set_aside_is_adopted_by_nobody_and_can_be_read(claim):
    outcome = a_token(claim)
    aside = spool.set_aside(kept(outcome))
    assert spool.files() == []
    assert spool.read(aside) == outcome


def test_without_a_directory_there_are_no_files():
    assert spool.files() == []


def test_other_files_are_none_of_ours():
    spool.directory().mkdir(parents=True)
    for name in ("README", ".a.outcome.0a1b2c3d", "a.refused", "a.outcome.bak"):
        (spool.directory() / name).write_text("")
    assert spool.files() == []


# What cannot be read


@pytest.mark.django_db
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_that_is_cut_off_or_changed_anywhere_is_not_read(claim, data):
    path = kept(unsent_outcome(claim))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), label="cut off"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    with pytest.raises((spool.Unreadable, SealBroken)):
        spool.read(path)


def test_a_file_that_grew_is_not_read(claim):
    path = kept(a_token(claim))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(SealBroken):
        spool.read(path)


def rewritten(outcome: Outcome, change: Callable[[Any], Any]) -> Path:
    """The file of ``outcome`` with its document changed, as another release would have sealed it."""

    def seal(document: Plaintext, place: Any) -> Any:
        return data_keys.seal(Plaintext(json.dumps(change(json.loads(document.reveal())))), place)

    return spool.write(outcome, spool.sealed(outcome, seal))


def test_a_file_of_a_newer_version_is_not_read(claim):
    path = kept(a_token(claim))
    path.write_bytes(bytes([spool.VERSION + 1]) + path.read_bytes()[1:])
    with pytest.raises(spool.Unreadable):
        spool.read(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: {**document, "columns": {**document["columns"], "not_yet": 1}},
        lambda document: {**document, "columns": {**document["columns"], "expires_at": 1}},
        lambda document: {**document, "columns": {**document["columns"], "access_token": "not base64"}},
        lambda document: {**document, "columns": {**document["columns"], "lease_owner": 1}},
        lambda document: {**document, "columns": []},
        lambda document: {**document, "stamps": ["not_yet_at"]},
        lambda document: {**document, "stamps": None},
        lambda document: {**document, "event": ["connected", "refresh_failing", "", "", "why"]},
        lambda document: {**document, "secret_id": None},
        lambda document: {**document, "attempt": "nobody"},
        lambda document: {name: value for name, value in document.items() if name != "generation"},
        lambda document: [document],
        lambda document: None,
    ],
)
def test_what_a_newer_release_says_is_not_guessed_at(claim, change):
    path = rewritten(a_token(claim), change)
    with pytest.raises(spool.Unreadable):
        spool.read(path)
    assert spool.files() == [path]


def test_what_a_newer_release_adds_beside_is_passed_over(claim):
    outcome = a_token(claim)
    assert spool.read(rewritten(outcome, lambda document: {**document, "new": 1})) == outcome


def test_an_unreadable_file_is_told_of_without_its_content(claim):
    path = rewritten(a_token(claim), lambda document: {**document, "attempt": "a-token-of-somebody"})
    with pytest.raises(spool.Unreadable) as refusal:
        spool.read(path)
    assert "somebody" not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__


# What was moved


def test_a_file_moved_to_another_account_does_not_open(claim):
    other = claimed(Caller())
    path = kept(a_token(claim))
    content = path.read_bytes()
    forged = spool.directory() / f"{other.pk}.{uuid.uuid4()}.outcome"
    forged.write_bytes(content[:1] + other.account_id.bytes + other.pk.bytes + content[33:])
    with pytest.raises(SealBroken):
        spool.read(forged)


def test_a_file_moved_to_another_connection_of_the_account_does_not_open(db):
    caller = Caller()
    claim, other = claimed(caller), claimed(caller)
    content = kept(a_token(claim)).read_bytes()
    forged = spool.directory() / f"{other.pk}.{uuid.uuid4()}.outcome"
    forged.write_bytes(content[:17] + other.pk.bytes + content[33:])
    with pytest.raises(SealBroken):
        spool.read(forged)


def test_a_column_copied_into_a_document_is_none_of_a_file(claim):
    path = kept(a_token(claim))
    content = path.read_bytes()
    path.write_bytes(content[:33] + bytes(claim.access_token.ciphertext))
    with pytest.raises(SealBroken):
        spool.read(path)


def test_a_file_under_another_ones_name_is_still_of_its_own_connection(claim):
    outcome, other = a_token(claim), claimed(Caller())
    moved = kept(outcome).replace(spool.directory() / f"{other.pk}.{other.lease_owner}.outcome")
    assert spool.read(moved) == outcome


def test_a_file_whose_data_key_is_gone_does_not_open_and_stays(claim):
    outcome = a_token(claim)
    path = kept(outcome)
    data_keys.forget()
    from secrets_app.models import DataKey

    DataKey.objects.filter(account=claim.account_id).delete()
    with pytest.raises(SealBroken):
        spool.read(path)
    assert spool.files() == [path]


def test_the_seals_that_were_reserved_are_enough_without_a_database(claim, django_assert_num_queries):
    outcome = a_token(claim)
    with django_assert_num_queries(0):
        spool.write(outcome, spool.sealed(outcome, outcome.seal))


def test_a_document_is_sealed_for_the_spool_and_opens_nowhere_else(claim):
    outcome = replace(a_token(claim), seal=None)
    sealed = spool.sealed(outcome, data_keys.seal)[33:]
    place = replace(spool._place(claim.account_id, claim.pk), table=Connection._meta.db_table)
    with pytest.raises(SealBroken):
        data_keys.unseal(sealed, place)
