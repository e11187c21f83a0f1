"""The check that the root keys open what is stored."""

from __future__ import annotations

import base64
import secrets

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from knoxcall.checks import refuse_unsafe_settings
from secrets_app.checks import check_master_keys_open
from tests.factories import Caller


def another_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def ids(databases=("default",)) -> list[str | None]:
    return [message.id for message in check_master_keys_open(None, databases=databases)]


@pytest.mark.django_db
def test_keys_that_open_are_accepted():
    Caller()
    assert ids() == []


@pytest.mark.django_db
def test_an_empty_vault_takes_any_keys(settings):
    settings.KNOXCALL_MASTER_KEYS = f"new:{another_key()}"
    assert ids() == []


@pytest.mark.django_db
def test_another_key_under_the_same_name_is_refused(settings):
    Caller()
    name = settings.KNOXCALL_MASTER_KEYS.partition(":")[0]
    settings.KNOXCALL_MASTER_KEYS = f"{name}:{another_key()}"
    assert ids() == ["secrets_app.E001"]
    with pytest.raises(Exception, match=r"secrets_app\.E001"):
        refuse_unsafe_settings()


@pytest.mark.django_db
def test_a_key_that_is_missing_is_refused_before_a_migration(settings):
    Caller()
    settings.KNOXCALL_MASTER_KEYS = f"another:{another_key()}"
    with pytest.raises(SystemCheckError, match="E001"):
        call_command("migrate", verbosity=0, skip_checks=False)


def test_without_a_database_nothing_is_asked():
    assert ids(databases=()) == []
