"""What operators see: failing connections first, ways between what belongs together, and nothing that is sealed."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from oauth_app.fake_provider import Answer
from oauth_app.models import ClientRegistration, Connection, ConnectionEvent
from oauth_app.tokens import refresh_now
from secrets_app.admin import moment
from secrets_app.audit import Action
from secrets_app.models import ApiKey, AuditEvent, Secret
from tests.factories import Caller, a_client, age, an_oauth2_secret, consent, consent_by_link

pytestmark = pytest.mark.django_db

LIST = "/admin/oauth_app/connection/"
Status = Connection.Status


@pytest.fixture
def operator() -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("operator", password="-"))
    return client


@pytest.fixture
def caller() -> Caller:
    return Caller()


def connection_named(caller: Caller, provider: Any, name: str, **columns: Any) -> Connection:
    connection = an_oauth2_secret(caller, a_client(provider), name)
    Connection.objects.filter(pk=connection.pk).update(**columns)
    connection.refresh_from_db()
    return connection


def text_of(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, path
    return answer.content.decode()


def names_in(page: str) -> list[str]:
    return re.findall(r'<th class="field-secret[^"]*"><a [^>]*>([^<]*)</a>', page)


def test_what_needs_a_person_comes_first(operator, caller, provider):
    an_oauth2_secret(caller, a_client(provider, grant_type="client_credentials"), "a-fine")
    connection_named(caller, provider, "b-new")
    connection_named(caller, provider, "c-failing", status=Status.REFRESH_FAILING)
    connection_named(caller, provider, "d-dead", status=Status.REAUTHORIZATION_REQUIRED)
    assert names_in(text_of(operator, LIST)) == ["d-dead", "c-failing", "b-new", "a-fine"]


def test_each_status_is_counted_and_its_count_is_a_filter(operator, caller, provider):
    for name in ("one", "two"):
        connection_named(caller, provider, name, status=Status.REFRESH_FAILING)
    connection_named(caller, provider, "three")
    page = text_of(operator, LIST)
    assert "Refresh failing: 2" in page
    assert "Not connected: 1" in page
    assert "Disconnected" not in page
    chosen = text_of(operator, f"{LIST}?status__exact=refresh_failing")
    assert names_in(chosen) == ["one", "two"]
    assert 'aria-current="true"' in chosen
    # The others stay in sight, with their numbers.
    assert "Not connected: 1" in chosen


def test_an_empty_vault_has_a_list_too(operator):
    assert "0 connections" in text_of(operator, LIST)


def test_the_list_takes_as_many_statements_for_ten_as_for_one(
    operator, caller, provider, django_assert_max_num_queries
):
    connection_named(caller, provider, "one")
    with django_assert_max_num_queries(100) as one:
        text_of(operator, LIST)
    for number in range(9):
        connection_named(caller, provider, f"further-{number}")
    with django_assert_max_num_queries(100) as ten:
        text_of(operator, LIST)
    assert len(ten) == len(one)


def test_no_page_reads_what_is_sealed(operator, caller, provider, django_assert_max_num_queries):
    connection = connection_named(caller, provider, "one")
    for path in (LIST, f"{LIST}{connection.pk}/change/"):
        with django_assert_max_num_queries(100) as statements:
            text_of(operator, path)
        asked = " ".join(statement["sql"].split(" FROM ")[0] for statement in statements)
        assert '"access_token"' not in asked
        assert '"document"' not in asked
        assert re.findall(r'"refresh_token"(?! IS NOT NULL)', asked) == []


def test_whether_there_is_a_refresh_token_is_all_that_is_said_of_it(operator, caller, provider, http):
    connection = connection_named(caller, provider, "one")
    path = f"{LIST}{connection.pk}/change/"
    assert "icon-no" in text_of(operator, path)
    consent(connection, http)
    assert "icon-yes" in text_of(operator, path)


def test_a_provider_without_a_preset_goes_by_its_host(operator, caller, provider):
    connection_named(caller, provider, "one")
    assert provider.token_url.split("/")[2] in text_of(operator, LIST)


def test_a_token_without_an_end_never_expires(operator, caller, provider):
    connection_named(caller, provider, "one", issued_at=timezone.now(), expires_at=None)
    assert '<td class="field-token_expires">never</td>' in text_of(operator, LIST)


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        ({"refresh_due_at": timedelta(minutes=50, seconds=5)}, "in 50 min"),
        ({"refresh_due_at": timedelta(seconds=-5)}, "now"),
        ({"refresh_due_at": None}, "–"),
    ],
)
def test_the_next_refresh_is_said_as_a_distance(operator, caller, provider, columns, shown):
    due = columns["refresh_due_at"]
    connection_named(caller, provider, "one", refresh_due_at=due and timezone.now() + due)
    cell = re.search(r'<td class="field-next_refresh">(.*?)</td>', text_of(operator, LIST))
    assert cell
    assert re.sub(r"<[^>]+>", "", cell[1]) == shown


def test_a_refresh_under_way_is_said(operator, caller, provider):
    lease = {"lease_owner": caller.account.pk, "lease_expires_at": timezone.now() + timedelta(seconds=40)}
    connection_named(caller, provider, "one", **lease)
    assert '<td class="field-next_refresh">under way</td>' in text_of(operator, LIST)


def test_the_history_shows_states_as_badges(operator, caller, provider):
    connection = connection_named(caller, provider, "one")
    ConnectionEvent.objects.create(connection=connection, previous_status="connected", status="refresh_failing")
    page = text_of(operator, f"{LIST}{connection.pk}/change/")
    assert '<span class="kc-badge kc-badge--refresh_failing">Refresh failing</span>' in page
    assert '<span class="kc-badge kc-badge--connected">Connected</span>' in page


def test_an_unknown_outcome_is_in_the_list_and_on_the_page_until_it_is_resolved(operator, caller, provider, http):
    connection = age(consent(connection_named(caller, provider, "one"), http), expires_in=600)
    pages = (LIST, f"{LIST}{connection.pk}/change/")
    provider.next(Answer(drop="closed"))
    refresh_now(caller.scope, connection.secret_id, environment=None)
    assert ["refresh_outcome_unknown" in text_of(operator, page) for page in pages] == [True, True]
    # Nobody knows still, and now a person has to consent anew.
    Connection.objects.update(status=Status.REAUTHORIZATION_REQUIRED, refresh_due_at=None)
    assert ["refresh_outcome_unknown" in text_of(operator, page) for page in pages] == [True, True]
    consent_by_link(caller, connection, http)
    assert ["refresh_outcome_unknown" in text_of(operator, page) for page in pages] == [False, False]


def test_what_needs_a_consent_soon_can_be_chosen_and_says_until_when(operator, caller, provider, http):
    for name in ("soon", "later", "rolling", "robot", "dead"):
        consent(connection_named(caller, provider, name), http)
    rows = {name: Connection.objects.filter(secret__name=name) for name in ("soon", "later", "robot", "dead")}
    for row in rows.values():
        row.update(reauthorize_by=timezone.now() + timedelta(days=3))
    rows["later"].update(reauthorize_by=timezone.now() + timedelta(days=30))
    rows["dead"].update(status=Status.REAUTHORIZATION_REQUIRED, refresh_due_at=None)
    ClientRegistration.objects.filter(secret__name="robot").update(grant_type="password")
    page = text_of(operator, f"{LIST}?consent=soon")
    assert names_in(page) == ["soon"]
    assert "reauthorize_soon" in page
    ends_at = rows["later"].get().reauthorize_by
    page = text_of(operator, f"{LIST}{rows['later'].get().pk}/change/")
    assert re.search(rf"field-reauthorize_by.*?{ends_at.year}", page, re.DOTALL)
    assert names_in(text_of(operator, LIST)) == ["dead", "later", "robot", "rolling", "soon"]


def test_secret_connection_account_and_audit_lead_to_each_other(operator, caller, provider):
    connection = connection_named(caller, provider, "one")
    secret, account = connection.secret_id, connection.account_id
    ways = {
        f"{LIST}{connection.pk}/change/": [
            reverse("admin:secrets_app_secret_change", args=[secret]),
            reverse("admin:billing_app_account_change", args=[account]),
            f"/admin/secrets_app/auditevent/?resource_id={secret}",
        ],
        f"/admin/secrets_app/secret/{secret}/change/": [
            f"{LIST}?secret__id__exact={secret}",
            f"/admin/secrets_app/auditevent/?resource_id={secret}",
        ],
        f"/admin/billing_app/account/{account}/change/": [
            f"{LIST}?account__id__exact={account}",
            f"/admin/secrets_app/secret/?account__id__exact={account}",
            f"/admin/secrets_app/apikey/?account__id__exact={account}",
            f"/admin/secrets_app/auditevent/?account__id__exact={account}",
        ],
        f"/admin/secrets_app/apikey/{caller.row.pk}/change/": [
            f"/admin/secrets_app/auditevent/?actor={caller.row.key_id}",
        ],
    }
    for path, targets in ways.items():
        page = text_of(operator, path)
        for target in targets:
            assert f'href="{target}"' in page, path
            assert operator.get(target).status_code == 200


def test_links_show_what_they_promise(operator, caller, provider):
    connection_named(caller, provider, "mine")
    connection_named(Caller(), provider, "theirs")
    assert names_in(text_of(operator, f"{LIST}?account__id__exact={caller.account.pk}")) == ["mine"]
    secret = Secret.objects.get(name="mine")
    events = text_of(operator, f"/admin/secrets_app/auditevent/?resource_id={secret.pk}")
    assert "1 audit event" in events


def test_an_audit_event_leads_to_what_it_is_about_while_that_exists(operator, caller, provider):
    connection = connection_named(caller, provider, "one")
    page = text_of(operator, "/admin/secrets_app/auditevent/")
    assert f'<a href="/admin/secrets_app/secret/{connection.secret_id}/change/">secret one</a>' in page
    caller.delete(f"/v1/secrets/{connection.secret_id}")
    deleted = AuditEvent.objects.get(action=Action.SECRET_DELETED)
    page = text_of(operator, f"/admin/secrets_app/auditevent/{deleted.pk}/change/")
    assert "secret one" in page
    assert f"/admin/secrets_app/secret/{connection.secret_id}/" not in page


def test_audit_events_are_filtered_by_action(operator, caller, provider):
    connection_named(caller, provider, "one")
    assert "1 audit event" in text_of(operator, "/admin/secrets_app/auditevent/?action=secret.created")
    assert "0 audit events" in text_of(operator, "/admin/secrets_app/auditevent/?action=secret.deleted")


@pytest.mark.parametrize(
    ("columns", "state"),
    [
        ({}, "Active"),
        ({"expires_at": timezone.now() - timedelta(days=1)}, "Expired"),
        ({"revoked_at": timezone.now() - timedelta(days=3)}, "Revoked"),
    ],
)
def test_a_key_says_whether_it_still_opens_anything(operator, caller, columns, state):
    ApiKey.objects.filter(pk=caller.row.pk).update(**columns)
    assert f">{state}</span>" in text_of(operator, "/admin/secrets_app/apikey/")


def test_the_header_leads_only_where_one_may_go():
    client = Client()
    client.force_login(get_user_model().objects.create_user("clerk", password="-", is_staff=True))
    page = text_of(client, "/admin/")
    assert LIST not in page
    assert "/admin/secrets_app/apikey/" not in page


@pytest.mark.parametrize(
    ("away", "said"),
    [
        (timedelta(seconds=40.2), "in 40 s"),
        (timedelta(seconds=-40), "40 s ago"),
        (timedelta(minutes=52, seconds=10), "in 52 min"),
        (timedelta(hours=-3), "3 h ago"),
        (timedelta(days=30, hours=1), "in 30 days"),
    ],
)
def test_a_moment_is_said_as_a_distance_with_its_exact_time_beside_it(away, said):
    at = timezone.now() + away
    shown = str(moment(at))
    assert f">{said}</time>" in shown
    assert at.strftime("%H:%M:%S UTC") in shown
