"""Twenty callers at the same moment: the plan's last place, and one name."""

from __future__ import annotations

from collections import Counter

import pytest

from secrets_app.models import Secret, SecretValue
from tests.factories import Caller, a_string, an_account
from tests.support.crowd import all_at_once

pytestmark = pytest.mark.django_db(transaction=True)
CROWD = 20


@pytest.fixture
def crowd() -> list[Caller]:
    account = an_account(plan="free")
    return [Caller(account) for _ in range(CROWD)]


def post(caller: Caller, name: str):
    return caller.post("/v1/secrets", {"name": name, "value": "x"})


def test_the_last_place_is_given_once(crowd):
    for number in range(9):
        a_string(crowd[0], f"s{number}")
    answers = all_at_once(*[lambda n=n, c=c: post(c, f"new-{n}") for n, c in enumerate(crowd)])
    assert Counter(answer.status_code for answer in answers) == {201: 1, 403: CROWD - 1}
    refused = [answer.json()["error"] for answer in answers if answer.status_code == 403]
    assert {error["type"] for error in refused} == {"plan_limit"}
    assert {error["limit"]["used"] for error in refused} == {10}
    assert Secret.objects.count() == SecretValue.objects.count() == 10


def test_a_name_is_given_once(crowd):
    answers = all_at_once(*[lambda c=c: post(c, "the-name") for c in crowd])
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: CROWD - 1}
    assert {answer.json()["error"]["type"] for answer in answers if answer.status_code == 409} == {"conflict"}
    assert Secret.objects.count() == SecretValue.objects.count() == 1


def test_a_collections_name_is_given_once(crowd):
    answers = all_at_once(*[lambda c=c: c.post("/v1/collections", {"name": "the name"}) for c in crowd[:8]])
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 7}


def test_a_secret_is_deleted_once(crowd):
    secret = a_string(crowd[0])
    answers = all_at_once(*[lambda c=c: c.delete(f"/v1/secrets/{secret.pk}") for c in crowd[:8]])
    assert Counter(answer.status_code for answer in answers) == {200: 1, 404: 7}
