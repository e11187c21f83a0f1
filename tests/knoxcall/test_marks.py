"""Marks of use: at most one write a minute, for all processes together."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import InterfaceError
from django.db.models.functions import Now

from knoxcall.marks import UseMarks
from secrets_app.models import ApiKey
from tests.factories import Caller


@pytest.fixture
def key(db) -> ApiKey:
    return Caller().row


def last_used(key: ApiKey):
    key.refresh_from_db()
    return key.last_used_at


def test_the_first_use_is_noted(key):
    UseMarks().note(ApiKey.objects.all(), key.pk)
    assert last_used(key) is not None


def test_further_uses_within_a_minute_cost_nothing(key, django_assert_num_queries):
    marks = UseMarks()
    marks.note(ApiKey.objects.all(), key.pk)
    with django_assert_num_queries(0):
        marks.note(ApiKey.objects.all(), key.pk)


def test_another_process_does_not_move_a_fresh_mark(key):
    UseMarks().note(ApiKey.objects.all(), key.pk)
    noted = last_used(key)
    UseMarks().note(ApiKey.objects.all(), key.pk)
    assert last_used(key) == noted


def test_an_old_mark_is_moved(key):
    ApiKey.objects.update(last_used_at=Now() - timedelta(minutes=2))
    old = last_used(key)
    UseMarks().note(ApiKey.objects.all(), key.pk)
    assert last_used(key) > old


def test_a_database_that_does_not_take_it_is_not_the_users_trouble(db, caplog):
    class Away:
        def filter(self, *args, **kwargs):
            raise InterfaceError("away")

    UseMarks().note(Away(), "x")
    assert "InterfaceError" in caplog.text
