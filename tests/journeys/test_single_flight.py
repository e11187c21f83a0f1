"""One refresh, however many processes ask: with processes of their own on the suite's database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection as database

from tests.factories import Caller, a_client, age, an_oauth2_secret, consent
from tests.support.house import BASE_DIR
from tests.support.vaults import on_production_services

SCRIPT = Path(__file__).with_name("ask_for_token.py")


def environment() -> dict[str, str]:
    """The environment of a process that works on the suite's own test database, with its keys."""
    given = database.settings_dict
    if on_production_services():
        user = f"{given['USER']}:{given['PASSWORD']}@{given['HOST']}:{given['PORT']}"
        url = f"postgres://{user}/{given['NAME']}"
    else:
        url = f"sqlite:///{given['NAME']}"
    return {
        **os.environ,
        "PYTHONPATH": str(BASE_DIR),
        "DJANGO_SETTINGS_MODULE": "knoxcall.settings",
        "DATABASE_URL": url,
        "KNOXCALL_MASTER_KEYS": settings.KNOXCALL_MASTER_KEYS,
        "SECRET_KEY": settings.SECRET_KEY,
    }


@pytest.mark.django_db(transaction=True)
def test_two_processes_that_ask_for_one_expired_token_make_one_call(provider, http):
    caller = Caller()
    connection = age(consent(an_oauth2_secret(caller, a_client(provider)), http), expires_in=-1)
    provider.delay = 3.0
    command = [sys.executable, SCRIPT, str(caller.account.pk), str(connection.secret_id)]
    pipe = subprocess.PIPE
    asking = [subprocess.Popen(command, env=environment(), text=True, stdin=pipe, stdout=pipe) for _ in range(2)]
    for process in asking:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in asking:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=30)[0].strip() for process in asking]
    assert answers == ["2", "2"]
    assert provider.count("refresh_token") == 1
    assert provider.reuses == 0
