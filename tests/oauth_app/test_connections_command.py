"""`manage.py connections`: what needs a person first, in columns or as JSON, at a cost that does not grow with the rows."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection as database
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from oauth_app.management.listing import HEADINGS
from oauth_app.models import ClientRegistration, Connection
from oauth_app.providers import PROVIDERS
from secrets_app.crypto.cipher import Ciphertext
from secrets_app.models import Certificate, Secret
from tests.factories import Caller, a_certificate, a_client, an_account, an_oauth2_secret, consent

pytestmark = pytest.mark.django_db

Status = Connection.Status


@pytest.fixture
def caller() -> Caller:
    return Caller(an_account(slug="acme"))


def a_connection(caller: Caller, provider: Any, name: str, **columns: Any) -> Connection:
    connection = an_oauth2_secret(caller, a_client(provider), name)
    Connection.objects.filter(pk=connection.pk).update(**columns)
    connection.refresh_from_db()
    return connection


def said(*arguments: str) -> str:
    out = StringIO()
    call_command("connections", *arguments, stdout=out)
    return out.getvalue()


def documents(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(said("--json", *arguments))
    return found


def names(*arguments: str) -> list[str]:
    return [document["name"] for document in documents(*arguments)]


def test_what_needs_a_person_comes_first(caller, provider, http):
    consent(a_connection(caller, provider, "a-fine"), http)
    a_connection(caller, provider, "b-new")
    a_connection(caller, provider, "d-failing", status=Status.REFRESH_FAILING)
    a_connection(caller, provider, "c-failing", status=Status.REFRESH_FAILING)
    a_connection(caller, provider, "e-dead", status=Status.REAUTHORIZATION_REQUIRED)
    expected = ["e-dead", "c-failing", "d-failing", "b-new", "a-fine"]
    assert names() == expected
    assert [line.split()[0] for line in said().splitlines()[1:6]] == expected


def test_a_line_says_what_an_operator_needs_to_know(caller, provider, http):
    connection = consent(a_connection(caller, provider, "calendar"), http)
    failure = {"failure_code": "http_503", "status": Status.REFRESH_FAILING, "outcome_unknown_at": Now()}
    Connection.objects.update(**failure)
    line = said().splitlines()[1]
    moments = [f"{at:%Y-%m-%d %H:%M:%S}" for at in (connection.expires_at, connection.refresh_due_at)]
    host = connection.secret.registration.token_host
    expected = ["calendar", "production", "acme", host, "refresh_failing", *moments, "http_503"]
    assert line.split("  ")[0] == "calendar"
    assert " ".join(line.split()) == " ".join([*expected, "refresh_outcome_unknown"])


def test_the_columns_stand_below_one_another(caller, provider, http):
    consent(a_connection(caller, provider, "short"), http)
    a_connection(caller, provider, "a-much-longer-name", status=Status.REAUTHORIZATION_REQUIRED)
    heading, *rows, _, _ = said().splitlines()
    at = [heading.index(title) for title in HEADINGS]
    for row in rows:
        assert all(row[place - 2 : place] == "  " and row[place] != " " for place in at[1:]), row


def test_a_name_too_long_for_a_column_is_whole_in_the_json(caller, provider):
    name = "x" * 200
    a_connection(caller, provider, name)
    assert name not in said()
    assert names() == [name]


def test_what_never_expires_and_what_has_no_token_are_told_apart(caller, provider):
    a_connection(caller, provider, "endless", issued_at=Now(), expires_at=None)
    a_connection(caller, provider, "tokenless")
    endless, tokenless = said().splitlines()[1:3]
    assert "never" in endless
    assert "never" not in tokenless


def test_the_end_counts_what_is_in_each_status(caller, provider):
    for name in ("one", "two"):
        a_connection(caller, provider, name, status=Status.REFRESH_FAILING)
    a_connection(caller, provider, "three")
    assert said().splitlines()[-1] == "3 connections: 2 refresh_failing, 1 not_connected"
    assert said("--status", "not_connected").splitlines()[-1] == "1 connection: 1 not_connected"


def test_an_empty_vault_has_a_list_too():
    assert said() == "0 connections\n"
    assert documents() == []


def test_the_list_can_be_narrowed_down(caller, provider):
    a_connection(caller, provider, "mine")
    a_connection(caller, provider, "failing", status=Status.REFRESH_FAILING)
    a_connection(Caller(an_account(slug="other")), provider, "theirs")
    ClientRegistration.objects.filter(secret__name="theirs").update(provider="google")
    assert names("--status", "refresh_failing") == ["failing"]
    assert names("--account", "acme") == ["failing", "mine"]
    assert names("--provider", "google") == ["theirs"]
    assert names("--provider", "google", "--account", "acme") == []


def test_only_those_with_attention_can_be_listed_and_are_counted(caller, provider):
    for number in range(4):
        a_connection(caller, provider, f"c{number}")
    Connection.objects.filter(secret__name__in=["c1", "c2", "c3"]).update(outcome_unknown_at=Now())
    assert names("--attention") == ["c1", "c2", "c3"]
    assert names("--attention", "--limit", "2") == ["c1", "c2"]
    lines = said("--attention", "--limit", "2").splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["c1", "c2"]
    assert lines[-1].startswith("3 connections: 3 not_connected")


def test_a_limit_cuts_the_list_and_not_the_count(caller, provider):
    for number in range(4):
        a_connection(caller, provider, f"c{number}")
    assert names("--limit", "2") == ["c0", "c1"]
    lines = said("--limit", "2").splitlines()
    assert [line.split()[0] for line in lines[1:-2]] == ["c0", "c1"]
    assert lines[-1].startswith("4 connections: 4 not_connected")
    assert lines[-1] != said("--limit", "4").splitlines()[-1]


@pytest.mark.parametrize("arguments", [("--limit", "0"), ("--limit", "-1"), ("--limit", "many")])
def test_a_limit_is_a_number_from_1_on(arguments):
    with pytest.raises(CommandError):
        said(*arguments)


def test_what_is_unknown_is_answered_with_what_is_known():
    with pytest.raises(CommandError) as refused:
        said("--status", "broken")
    assert all(status in str(refused.value) for status in Status.values)
    with pytest.raises(CommandError) as refused:
        said("--provider", "gogle")
    assert all(name in str(refused.value) for name in PROVIDERS)
    with pytest.raises(CommandError):
        said("--account", "nobody")


def test_the_json_says_what_the_api_says(caller, provider, http):
    connection = consent(a_connection(caller, provider, "one"), http)
    Connection.objects.update(
        status=Status.REFRESH_FAILING,
        failure_code="http_503",
        failure_reason="provider_unavailable",
        failure_message="The provider is away.",
        failed_at=Now(),
        reauthorize_by=Now() + timedelta(days=3),
        outcome_unknown_at=Now(),
        connected_as="ada@example.com",
    )
    [document] = documents()
    added = {name: document.pop(name) for name in ("name", "account", "mode")}
    assert added == {"name": "one", "account": "acme", "mode": "live"}
    answer = caller.get(f"/v1/secrets/{connection.secret_id}/oauth2").json()["data"]
    assert {item["code"] for item in document["attention"]} == {"refresh_outcome_unknown", "reauthorize_soon"}
    assert document == {name: answer[name] for name in document}


def test_no_credential_is_read_or_printed(caller, provider, http):
    connection = consent(a_connection(caller, provider, "one"), http)
    secrets = [
        connection.access_token.open().reveal(),
        connection.refresh_token.open().reveal(),
        provider.client_secret,
    ]
    with CaptureQueriesContext(database) as queries:
        printed = said() + said("--json")
    assert not [secret for secret in secrets if secret in printed]
    asked = " ".join(query["sql"].split(" FROM ")[0] for query in queries)
    for column in ("access_token", "document", "previous_client_secret", "private_key"):
        assert f'"{column}"' not in asked


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--attention",), ("--limit", "3")], ids=str)
def test_it_costs_the_same_few_statements_whatever_the_number_of_rows(caller, provider, arguments):
    def statements() -> int:
        with CaptureQueriesContext(database) as queries:
            said(*arguments)
        return len(queries)

    a_connection(caller, provider, "first", outcome_unknown_at=Now())
    one = statements()
    for number in range(5):
        a_connection(caller, provider, f"c{number}")
    # Whatever there is to know of them.
    Connection.objects.update(
        outcome_unknown_at=Now(),
        previous_client_secret_used_at=Now(),
        reauthorize_by=Now(),
        refresh_token=Ciphertext(b"sealed"),
        granted_scopes=[],
        failure_code="http_503",
        failed_at=Now(),
    )
    ClientRegistration.objects.update(
        scopes=["a"],
        previous_client_secret_expires_at=Now() + timedelta(hours=1),
        mtls_certificate=a_certificate(caller),
    )
    Certificate.objects.update(expires_at=Now())
    assert statements() == one <= 5
    assert [len(document["attention"]) for document in documents()] == [5] * 6


def test_a_deleted_secret_is_not_listed(caller, provider):
    connection = a_connection(caller, provider, "one")
    caller.delete(f"/v1/secrets/{connection.secret_id}")
    assert not Secret.objects.exists()
    assert documents() == []
