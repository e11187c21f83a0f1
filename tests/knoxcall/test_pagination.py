"""Paging and sorting, apart from any list in particular."""

from __future__ import annotations

import pytest
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.request import Request

from billing_app.models import Account
from knoxcall.api.errors import ValidationFailed
from knoxcall.api.pagination import flag, one_of, paged, whole_number
from tests.factories import an_account


def asked(**query: str) -> Request:
    return Request(RequestFactory().get("/", query))


@given(st.integers(1, 999_999_999))
def test_a_whole_number_is_read(number):
    assert whole_number(asked(n=str(number)), "n", default=7, lowest=1) == number


@given(st.text(max_size=12))
def test_anything_else_is_refused(text):
    if text.isascii() and text.isdigit() and 1 <= len(text) <= 9 and int(text) >= 1:
        return
    with pytest.raises(ValidationFailed) as caught:
        whole_number(asked(n=text), "n", default=7, lowest=1)
    assert set(caught.value.fields) == {"n"}


def test_a_number_that_is_left_out_is_the_default():
    assert whole_number(asked(), "n", default=7, lowest=1) == 7


@pytest.mark.parametrize("text", ["0", "11"])
def test_a_number_out_of_its_bounds_is_refused(text):
    with pytest.raises(ValidationFailed):
        whole_number(asked(n=text), "n", default=7, lowest=1, highest=10)


@pytest.mark.parametrize("text", ["1", "yes", "True", "", "null"])
def test_a_flag_is_true_or_false(text):
    assert flag(asked(f="true"), "f") is True
    assert flag(asked(f="false"), "f") is False
    assert flag(asked(), "f") is False
    with pytest.raises(ValidationFailed):
        flag(asked(f=text), "f")


def test_the_set_of_words_is_named():
    with pytest.raises(ValidationFailed) as caught:
        one_of(asked(w="c"), "w", ("a", "b"), default="a")
    assert "a, b" in caught.value.fields["w"][0]


@pytest.fixture
def page(db):
    for _ in range(7):
        an_account()

    def page(**query: str) -> dict:
        return paged(
            asked(**query),
            Account.objects.all(),
            row=lambda account: {"slug": account.slug},
            sorts={"plan": "subscription_plan"},
            default_sort="plan",
        ).data

    return page


@pytest.mark.parametrize("per_page", [1, 2, 3, 6, 7, 8])
def test_the_pages_hold_every_row_once(page, per_page):
    pages = page(per_page=str(per_page))["meta"]["total_pages"]
    assert pages == -(-7 // per_page)
    rows = [row["slug"] for n in range(1, pages + 1) for row in page(per_page=str(per_page), page=str(n))["data"]]
    assert sorted(rows) == sorted(Account.objects.values_list("slug", flat=True))


def test_a_page_past_the_end_costs_one_statement(page, django_assert_num_queries):
    with django_assert_num_queries(1):
        assert page(page="9")["data"] == []


def test_descending_is_ascending_turned_round(page):
    assert page(order="desc")["data"] == page(order="asc")["data"][::-1]
