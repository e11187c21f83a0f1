"""The commands that make accounts and keys."""

from __future__ import annotations

import json
import re
from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from billing_app.models import Account
from secrets_app.api_keys import find_api_key
from secrets_app.models import ApiKey
from tests.factories import an_account

pytestmark = pytest.mark.django_db
KEY = re.compile(r"tk_(?:live|test)_[0-9A-Za-z]{61}")


def said(*command: str) -> str:
    out = StringIO()
    call_command(*command, stdout=out)
    return out.getvalue()


def test_create_account_prints_exactly_this_json():
    printed = json.loads(said("create_account", "acme", "--name", "Acme Inc.", "--plan", "pro", "--json"))
    account = Account.objects.get()
    assert set(printed) == {"account", "api_key"}
    assert set(printed["account"]) == {"id", "slug", "name", "subscription_plan", "created_at"}
    assert printed["account"] | {"created_at": None} == {
        "id": str(account.pk),
        "slug": "acme",
        "name": "Acme Inc.",
        "subscription_plan": "pro",
        "created_at": None,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", printed["account"]["created_at"])


def test_create_account_prints_one_line_of_json():
    assert said("create_account", "acme", "--json").count("\n") == 1


def test_the_key_of_a_new_account_works(client):
    key = json.loads(said("create_account", "acme", "--json"))["api_key"]
    answer = client.post("/v1/secrets", {"name": "x", "value": "y"}, "application/json", headers={"x-api-key": key})
    assert answer.status_code == 201
    row = find_api_key(key)
    assert (row.role, row.mode, row.account.slug) == ("admin", "live", "acme")


def test_create_account_says_the_key_in_words_too():
    assert find_api_key(KEY.search(said("create_account", "acme"))[0]).account.slug == "acme"


def test_a_new_account_is_on_the_free_plan_and_called_by_its_slug():
    printed = json.loads(said("create_account", "acme", "--json"))["account"]
    assert (printed["subscription_plan"], printed["name"]) == ("free", "acme")


def test_create_account_refuses_a_taken_slug():
    said("create_account", "acme")
    with pytest.raises(CommandError):
        said("create_account", "acme")
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize("slug", ["Acme", "a b", "", "x" * 64])
def test_create_account_refuses_a_bad_slug(slug):
    with pytest.raises(CommandError):
        said("create_account", slug)
    assert not Account.objects.exists()


def test_create_account_refuses_an_unknown_plan():
    with pytest.raises(CommandError):
        said("create_account", "acme", "--plan", "gold")


@pytest.mark.parametrize("mode", ["live", "test"])
@pytest.mark.parametrize("role", ["read_only", "editor", "admin"])
def test_create_api_key_makes_a_key_that_works(client, mode, role):
    account = an_account()
    arguments = ("--name", "a name", "--mode", mode, "--role", role, "--json")
    printed = json.loads(said("create_api_key", account.slug, *arguments))
    assert set(printed) == {"key_id", "name", "role", "api_key"}
    assert printed["api_key"].startswith(printed["key_id"])
    assert (printed["name"], printed["role"]) == ("a name", role)
    row = find_api_key(printed["api_key"])
    assert (row.account, row.mode, row.role) == (account, mode, role)
    assert client.get("/v1/secrets", headers={"x-api-key": printed["api_key"]}).status_code == 200


def test_create_api_key_makes_a_live_editor_unless_told_otherwise():
    row = find_api_key(KEY.search(said("create_api_key", an_account().slug))[0])
    assert (row.mode, row.role) == ("live", "editor")


@pytest.mark.parametrize("arguments", [("nobody",), ("acme", "--mode", "prod"), ("acme", "--role", "root")])
def test_create_api_key_refuses_what_it_does_not_know(arguments):
    an_account(slug="acme")
    with pytest.raises(CommandError):
        said("create_api_key", *arguments)
    assert not ApiKey.objects.exists()


def test_first_start_shows_a_key_and_an_operator_that_work(client, settings):
    shown = said("first_start")
    row = find_api_key(KEY.search(shown)[0])
    assert (row.account.slug, row.account.subscription_plan, row.role) == ("default", "pro", "admin")
    name = re.search(r"Operator +(\S+)", shown)[1]
    password = re.search(r"Password +(\S+)", shown)[1]
    assert client.login(username=name, password=password)
    assert client.get("/admin/").status_code == 200
    assert f"{settings.KNOXCALL_BASE_URL}/admin/" in shown


def test_first_start_does_and_prints_nothing_the_second_time():
    said("first_start")
    before = list(ApiKey.objects.values()), list(get_user_model().objects.values())
    assert said("first_start") == ""
    assert (list(ApiKey.objects.values()), list(get_user_model().objects.values())) == before


def test_first_start_leaves_a_vault_alone_that_has_an_account():
    an_account()
    assert said("first_start") == ""
    assert not get_user_model().objects.exists()
