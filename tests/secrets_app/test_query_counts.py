"""How many statements a call costs, by the process's second call and later."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.factories import Caller, a_client, a_string, an_oauth2_secret

# Committed for real: keys made in a transaction that has not committed are read anew each time.
pytestmark = pytest.mark.django_db(transaction=True)


def statements(call) -> int:
    call()
    with CaptureQueriesContext(connection) as queries:
        answer = call()
    assert answer.status_code in (200, 304), answer.content
    return len(queries)


@pytest.fixture
def caller() -> Caller:
    return Caller()


def test_a_list_costs_the_same_whatever_the_page_holds(caller, provider):
    def read():
        return caller.get("/v1/secrets?per_page=100")

    a_string(caller, "string-0")
    of_one = statements(read)
    for number in range(25):
        an_oauth2_secret(caller, a_client(provider), f"oauth2-{number}")
    for number in range(1, 25):
        a_string(caller, f"string-{number}")
    assert len(read().json()["data"]) == 50
    assert statements(read) == of_one <= 5


def test_reading_one_secret_costs_the_same_for_every_kind(caller, provider):
    string, oauth2 = a_string(caller), an_oauth2_secret(caller, a_client(provider)).secret
    assert statements(lambda: caller.get(f"/v1/secrets/{string.pk}")) <= 4
    assert statements(lambda: caller.get(f"/v1/secrets/{oauth2.pk}")) <= 4


def test_a_list_of_collections_costs_the_same_whatever_the_page_holds(caller):
    caller.post("/v1/collections", {"name": "0"})
    of_one = statements(lambda: caller.get("/v1/collections"))
    for number in range(1, 15):
        caller.post("/v1/collections", {"name": str(number)})
    assert statements(lambda: caller.get("/v1/collections")) == of_one <= 3


def test_a_fresh_token_costs_two_statements_and_no_write(caller, provider):
    connection_row = an_oauth2_secret(caller, a_client(provider, grant_type="client_credentials"))
    path = f"/v1/secrets/{connection_row.secret_id}/oauth2/token"
    assert caller.get(path).status_code == 200
    provider.stop()
    with CaptureQueriesContext(connection) as queries:
        assert caller.get(path).status_code == 200
    assert len(queries) <= 2
    assert all(query["sql"].startswith("SELECT") for query in queries)


def test_a_token_that_did_not_change_costs_no_more(caller, provider):
    connection_row = an_oauth2_secret(caller, a_client(provider, grant_type="client_credentials"))
    path = f"/v1/secrets/{connection_row.secret_id}/oauth2/token"
    etag = caller.get(path)["ETag"]
    assert statements(lambda: caller.get(path, If_None_Match=etag)) <= 2


def test_a_wrong_key_costs_one_statement(caller, client):
    def ask():
        return client.get("/v1/secrets", headers={"x-api-key": caller.key})

    caller.row.revoked_at = caller.row.created_at
    caller.row.save()
    ask()
    with CaptureQueriesContext(connection) as queries:
        assert ask().status_code == 401
    assert len(queries) == 1


def test_sealing_is_not_part_of_what_a_create_costs(caller):
    numbers = iter(range(10))

    def create():
        return caller.post("/v1/secrets", {"name": f"s{next(numbers)}", "value": "x"})

    create()
    with CaptureQueriesContext(connection) as queries:
        assert create().status_code == 201
    assert not any("datakey" in query["sql"] for query in queries)
