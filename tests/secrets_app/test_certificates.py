"""Certificate secrets: read in a process of their own, sealed, replaced under the same id."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import uuid

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.db.models import ProtectedError

from knoxcall import waiting
from knoxcall.api.errors import DependencyUnavailable, InUse, InvalidType, NotFound, ValidationFailed
from knoxcall.api.idempotency import NoKey
from secrets_app import certificates
from secrets_app.certificates import (
    certificate_replaced,
    get_certificate,
    parse_certificate,
    replace_certificate,
)
from secrets_app.models import AuditEvent, Certificate, Secret
from secrets_app.vault import delete_secret
from tests.factories import Caller, a_certificate, a_parsed_certificate, a_string
from tests.support.certificates import chain, issue

LEAF, MIDDLE, ROOT = chain()


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


def parse(content: str, certificate_type: str = "pem", private_key: str | None = None, passphrase: str | None = None):
    return parse_certificate(content, certificate_type=certificate_type, private_key=private_key, passphrase=passphrase)


# The reader


def test_a_file_is_read_in_a_process_of_its_own():
    parsed = parse(LEAF.pkcs12("p", MIDDLE), "pfx", passphrase="p")
    assert (parsed.certificate_type, parsed.subject) == ("pfx", "CN=leaf")
    assert parsed.chain == LEAF.pem + MIDDLE.pem
    assert parsed.private_key
    assert parsed.passphrase
    opened = load_pem_private_key(parsed.private_key.reveal_bytes(), parsed.passphrase.reveal_bytes())
    assert opened.public_key() == LEAF.key.public_key()
    assert parsed.expires_at == LEAF.certificate.not_valid_after_utc
    assert parsed.not_before == LEAF.certificate.not_valid_before_utc
    assert "PRIVATE KEY" not in repr(parsed)


def test_what_it_refuses_is_a_validation_error():
    with pytest.raises(ValidationFailed) as caught:
        parse(LEAF.pem, private_key=MIDDLE.key_pem())
    assert set(caught.value.fields or ()) == {"private_key"}


@pytest.fixture
def reader(monkeypatch):
    """Have another program read."""

    def put(program: str) -> None:
        monkeypatch.setattr(certificates, "_READER", [sys.executable, "-c", program])

    return put


def with_endless_hashing(key_pem: str) -> str:
    """The encrypted key, whose passphrase would be hashed 2³⁰ times (RFC 8018 §5.2): two bytes of the salt are the price."""
    lines = key_pem.split("\n")
    der = base64.b64decode("".join(lines[1:-2]))
    rounds = re.compile(rb"\x04\x10(.{14})..\x02\x02\x08\x00", re.DOTALL)
    endless = rounds.sub(lambda found: b"\x04\x0e" + found[1] + b"\x02\x04\x40\x00\x00\x00", der)
    assert endless != der
    assert len(endless) == len(der)
    return "\n".join([lines[0], base64.b64encode(endless).decode(), *lines[-2:]])


def test_a_file_that_takes_too_long_is_refused(reader):
    reader("from secrets_app.certificate_files import __main__ as program; program.CPU_SECONDS = 1; program.main()")
    with pytest.raises(ValidationFailed, match="too long"):
        parse(LEAF.pem, private_key=with_endless_hashing(LEAF.key_pem("p")), passphrase="p")


def test_a_file_that_takes_too_much_memory_is_refused(reader):
    reader(
        "from secrets_app.certificate_files import __main__ as program, reading\n"
        "reading.open_content = lambda *_, **__: bytearray(1 << 32)\n"
        "program.main()"
    )
    with pytest.raises(ValidationFailed, match="Cannot be read"):
        parse(LEAF.pem)


def test_a_file_that_breaks_the_reader_is_refused(reader):
    reader("import os; os.abort()")
    with pytest.raises(ValidationFailed, match="Cannot be read"):
        parse(LEAF.pem)


def test_the_reader_gets_nothing_of_our_environment(reader, monkeypatch):
    monkeypatch.setenv("KNOXCALL_MASTER_KEYS", "k:planted")
    reader(
        'import os, sys; sys.exit(\'KNOXCALL_MASTER_KEYS\' in os.environ and 9 or print(\'{"unreadable": ["a", "b"]}\'))'
    )
    with pytest.raises(ValidationFailed, match="a: b"):
        parse(LEAF.pem)


def test_a_machine_that_is_too_busy_says_so(monkeypatch):
    def run(*_, **__):
        raise subprocess.TimeoutExpired("reader", 1)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DependencyUnavailable):
        parse(LEAF.pem)


def test_files_are_read_only_while_there_is_a_place_to_wait(monkeypatch):
    monkeypatch.setattr(waiting, "_places", waiting.threading.BoundedSemaphore(1))
    with waiting.place(), pytest.raises(DependencyUnavailable):
        parse(LEAF.pem)


# What is stored


def test_the_file_the_key_and_the_passphrase_are_sealed(caller):
    stored = a_certificate(caller, passphrase="a passphrase")
    assert stored.content.open().reveal() == LEAF.pem
    assert stored.passphrase.open().reveal() == "a passphrase"
    key = stored.private_key.open().reveal_bytes()
    assert b"ENCRYPTED" in key
    assert load_pem_private_key(key, b"a passphrase").public_key() == LEAF.key.public_key()
    assert (stored.version, stored.chain, stored.account_id) == (1, LEAF.pem, caller.account.pk)


def test_without_a_key_none_is_stored(caller):
    stored = a_certificate(caller, key=False)
    assert (stored.private_key, stored.passphrase) == (None, None)


# Reading and replacing


def test_a_certificate_is_found_in_its_scope_only(caller):
    stored = a_certificate(caller)
    assert get_certificate(caller.scope, stored.pk) == stored
    for scope in (Caller().scope, Caller(caller.account, mode="test").scope):
        with pytest.raises(NotFound):
            get_certificate(scope, stored.pk)
    with pytest.raises(NotFound):
        get_certificate(caller.scope, uuid.uuid4())
    with pytest.raises(InvalidType):
        get_certificate(caller.scope, a_string(caller).pk)


def test_a_replacement_leaves_nothing_of_the_one_before(caller):
    stored = a_certificate(caller, passphrase="old")
    replaced = replace_certificate(
        caller.scope, stored.pk, a_parsed_certificate(issue("new", serial=7), key=False), attempt=NoKey()
    )
    assert replaced.version == 2
    stored.refresh_from_db()
    assert (stored.version, stored.subject, stored.serial_number) == (2, "CN=new", "7")
    assert (stored.private_key, stored.passphrase) == (None, None)
    assert stored.updated_at < Secret.objects.get(pk=stored.pk).updated_at
    event = AuditEvent.objects.get(action="certificate.replaced")
    assert event.resource_id == str(stored.pk)
    assert event.details == {"name": "a-certificate", "version": 2}


def test_a_replacement_is_told_to_whoever_presents_the_certificate(caller):
    stored = a_certificate(caller)
    heard = []

    def hear(certificate, **_):
        heard.append((certificate.pk, certificate.version))
        raise RuntimeError

    certificate_replaced.connect(hear)
    try:
        with pytest.raises(RuntimeError):
            replace_certificate(caller.scope, stored.pk, a_parsed_certificate(issue("new")), attempt=NoKey())
    finally:
        certificate_replaced.disconnect(hear)
    assert heard == [(stored.pk, 2)]
    stored.refresh_from_db()
    assert (stored.version, stored.subject) == (1, "CN=leaf")
    assert not AuditEvent.objects.filter(action="certificate.replaced").exists()


def test_only_ones_own_certificate_is_replaced(caller):
    parsed = a_parsed_certificate(LEAF)
    with pytest.raises(NotFound):
        replace_certificate(Caller().scope, a_certificate(caller).pk, parsed, attempt=NoKey())
    with pytest.raises(InvalidType):
        replace_certificate(caller.scope, a_string(caller).pk, parsed, attempt=NoKey())


# Deleting


def test_a_deleted_secret_takes_its_certificate_along(caller):
    stored = a_certificate(caller)
    delete_secret(caller.scope, stored.pk, attempt=NoKey())
    assert not Certificate.objects.exists()


def test_what_is_in_use_is_not_deleted(caller):
    stored = a_certificate(caller)

    def dismantle(secret: Secret) -> None:
        # As the foreign key of another secret does.
        raise ProtectedError("in use", {stored, secret})

    with pytest.raises(InUse, match="2 other secrets"):
        delete_secret(caller.scope, stored.pk, attempt=NoKey(), dismantle=dismantle)
    assert Certificate.objects.get() == stored
    assert not AuditEvent.objects.filter(action="secret.deleted").exists()


def test_a_secret_is_dismantled_in_the_transaction_that_deletes_it(caller):
    string = a_string(caller)
    seen = []
    delete_secret(caller.scope, string.pk, attempt=NoKey(), dismantle=lambda secret: seen.append(secret.pk))
    assert seen == [string.pk]
