"""The admin as an operator uses it: everything answers, nothing secret is shown, nothing can be changed by accident."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from billing_app.accounts import plan_changed
from billing_app.admin import AccountAdmin
from billing_app.models import Account
from oauth_app.models import Connection, ConnectionEvent, Issuer, ReturnOrigin, RevocationJob
from oauth_app.return_origins import allow_origin
from secrets_app import api_keys
from secrets_app.audit import Actor
from secrets_app.models import ApiKey, AuditEvent, Certificate, Collection, Secret
from tests.factories import Caller, a_certificate, a_client, a_string, an_account, an_oauth2_secret
from tests.support.certificates import chain, issue

OURS = {
    Account,
    Secret,
    Collection,
    Certificate,
    ApiKey,
    AuditEvent,
    Connection,
    RevocationJob,
    ReturnOrigin,
    Issuer,
}
READ_ONLY = sorted(OURS - {Account, ReturnOrigin}, key=lambda model: model.__name__)
PLANTED = "planted-7f3a"


@pytest.fixture
def operator(db) -> Client:
    """A superuser who has logged in by the form."""
    get_user_model().objects.create_superuser("operator", password="a long password")
    client = Client()
    answer = client.post("/admin/login/?next=/admin/", {"username": "operator", "password": "a long password"})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")
    return client


@dataclass
class Vault:
    """One of everything."""

    caller: Caller
    string: Secret
    connected: Connection
    failing: Connection
    certificate: Certificate

    @property
    def rows(self) -> dict[type, object]:
        return {
            Account: self.caller.account,
            Secret: self.string,
            Collection: Collection.objects.get(),
            ApiKey: self.caller.row,
            AuditEvent: AuditEvent.objects.first(),
            Connection: self.connected,
            Certificate: self.certificate,
            RevocationJob: RevocationJob.objects.first(),
            ReturnOrigin: ReturnOrigin.objects.get(),
            Issuer: Issuer.objects.get(),
        }


@pytest.fixture
def vault(db, provider) -> Vault:
    caller = Caller()
    collection = caller.post("/v1/collections", {"name": "a collection"}).json()["data"]["id"]
    string = a_string(caller, value=f"{PLANTED}-value", collection_id=collection)
    credentials = {"client_secret": provider.client_secret, "grant_type": "client_credentials"}
    connected = an_oauth2_secret(caller, a_client(provider, **credentials), "connected")
    assert connected.status == Connection.Status.CONNECTED
    refused = a_client(provider, grant_type="client_credentials", client_secret=f"{PLANTED}-secret")
    failing = an_oauth2_secret(caller, refused, "failing")
    an_oauth2_secret(caller, a_client(provider), "pending")
    ConnectionEvent.objects.create(connection=connected, previous_status="connected", status="refresh_failing")
    certificate = a_certificate(caller, passphrase=f"{PLANTED}-passphrase")
    ended = an_oauth2_secret(caller, a_client(provider, revocation_url=provider.revoke_url, **credentials), "ended")
    assert caller.post(f"/v1/secrets/{ended.secret_id}/oauth2/disconnect", {}).status_code == 200
    allow_origin(caller.account, "https://app.example.com", actor=Actor("test"))
    Issuer.objects.create(url="https://issuer.example", metadata={})
    return Vault(caller, string, connected, failing, certificate)


def address(model: type, what: str = "changelist", row: object = None) -> str:
    base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
    return base + {"changelist": "", "add": "add/"}.get(what, f"{getattr(row, 'pk', '')}/{what}/")


def links(page: str, pattern: str) -> list[str]:
    return sorted({unescape(link) for link in re.findall(r'href="([^"]+)"', page) if re.search(pattern, link)})


# Everything answers


def test_the_front_page_names_every_model(operator, vault):
    page = operator.get("/admin/").content.decode()
    assert all(f'href="{address(model)}"' in page for model in OURS)


def test_these_are_the_models_of_ours_in_the_admin():
    ours = {model for model in admin.site._registry if not model.__module__.startswith("django.")}
    assert ours == OURS


@pytest.mark.parametrize("model", sorted(OURS, key=lambda model: model.__name__))
def test_every_list_search_filter_and_order_answers(operator, vault, model):
    page = operator.get(address(model))
    assert page.status_code == 200
    registered = admin.site._registry[model]
    queries = ["?q=a", "?q=connected", "?q=%00", "?q=%27%22", "?p=1", "?all="]
    queries += [f"?o={n}" for n in range(1, len(registered.list_display) + 1)]
    queries += links(page.content.decode(), r"^\?[a-z_]+(__[a-z]+)*=")
    for query in queries:
        assert operator.get(address(model) + query).status_code in (200, 302), query
    if registered.list_filter:
        assert any("__exact=" in query or "provider=" in query for query in queries)


@pytest.mark.parametrize("model", sorted(OURS, key=lambda model: model.__name__))
def test_every_detail_and_history_answers(operator, vault, model):
    for what in ("change", "history"):
        assert operator.get(address(model, what, vault.rows[model])).status_code == 200


def test_every_connection_has_a_page(operator, vault):
    for connection in Connection.objects.all():
        assert operator.get(address(Connection, "change", connection)).status_code == 200


@pytest.mark.parametrize("model", sorted(OURS, key=lambda model: model.__name__))
def test_a_row_that_is_not_there_leads_back(operator, model):
    for text in ("00000000-0000-4000-8000-000000000000", "nonsense", "%00"):
        assert operator.get(f"{address(model)}{text}/change/").status_code == 302


def test_a_list_costs_the_same_whatever_it_holds(operator, vault, provider, django_assert_max_num_queries):
    for number in range(15):
        an_oauth2_secret(vault.caller, a_client(provider), f"c{number}")
        a_certificate(vault.caller, name=f"certificate{number}")
        Caller(vault.caller.account)
    for model in OURS:
        with django_assert_max_num_queries(12):
            assert operator.get(address(model)).status_code == 200


# What is shown


def test_the_status_of_a_connection_is_a_badge(operator, vault):
    page = operator.get(address(Connection)).content.decode()
    for status in ("connected", "refresh_failing", "not_connected"):
        assert f"kc-badge--{status}" in page
        assert Connection.Status(status).label in page
    detail = operator.get(address(Connection, "change", vault.failing)).content.decode()
    assert "kc-badge--refresh_failing" in detail
    assert "invalid_client" in detail


def test_the_search_finds_and_the_filter_narrows(operator, vault):
    page = operator.get(address(Connection) + "?q=failing").content.decode()
    assert str(vault.failing.pk) in page
    assert str(vault.connected.pk) not in page
    page = operator.get(address(Connection) + "?status__exact=connected").content.decode()
    assert str(vault.connected.pk) in page
    assert str(vault.failing.pk) not in page
    assert str(vault.connected.pk) not in operator.get(address(Connection) + "?provider=google").content.decode()


def test_no_page_shows_a_value_a_digest_or_a_token(operator, vault, provider):
    row, key = api_keys.create_api_key(vault.caller.account.pk, name="a key")
    registration = vault.connected.secret.registration
    never = {
        PLANTED,
        provider.client_secret,
        key,
        key.removeprefix(row.key_id),
        vault.caller.key,
        bytes(row.digest).hex(),
        str(row.pepper_id),
        vault.connected.access_token.open().reveal(),
        vault.connected.access_token.ciphertext.hex(),
        str(bytes(row.digest)),
        registration.document.ciphertext.hex(),
        vault.certificate.private_key.open().reveal().split("\n")[1],
        vault.certificate.private_key.ciphertext.hex(),
        vault.certificate.content.ciphertext.hex(),
        "PRIVATE KEY",
        "<sealed>",
        "****",
        "memoryview",
        "&lt;memory at",
    }
    pages = ["/admin/"]
    for model in OURS:
        pages.append(address(model))
        pages += [address(model, what, found) for found in model.objects.all()[:20] for what in ("change", "history")]
    for path in pages:
        text = operator.get(path).content.decode()
        assert [word for word in never if word in text] == [], path


def test_no_list_reads_what_is_sealed_in_a_string(operator, vault):
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        operator.get(address(Secret))
        operator.get(address(Secret, "change", vault.string))
    assert not any("secrets_app_secretvalue" in query["sql"] for query in queries)


def test_no_page_reads_what_is_sealed_in_a_certificate(operator, vault):
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        operator.get(address(Certificate))
        operator.get(address(Certificate, "change", vault.certificate))
        operator.get(address(Secret, "change", vault.certificate))
    for name in ("content", "private_key", "passphrase"):
        read = f'"secrets_app_certificate"."{name}",'
        assert not any(read in query["sql"] for query in queries), name


@pytest.mark.parametrize(
    ("days", "said", "kind", "chosen"),
    [
        ((-20, -10), "Expired", "reauthorization_required", "expired"),
        ((-20, 10), "Expires soon", "refresh_failing", "soon"),
        ((-20, 40), "Valid", "connected", "later"),
    ],
)
def test_a_certificate_says_how_soon_it_expires(operator, db, days, said, kind, chosen):
    stored = a_certificate(Caller(), issue("x", chain()[1], days=days))
    page = operator.get(address(Certificate)).content.decode()
    assert f'<span class="kc-badge kc-badge--{kind}">{said}</span>' in page
    for choice in ("expired", "soon", "later", "nonsense"):
        page = operator.get(address(Certificate) + f"?expiry={choice}").content.decode()
        assert (str(stored.pk) in page) == (choice in (chosen, "nonsense")), choice


def test_a_certificate_is_found_by_its_names_and_shows_whether_it_has_a_key(operator, vault):
    a_certificate(vault.caller, issue("other"), "keyless", key=False)
    page = operator.get(address(Certificate) + "?q=CN%3Dmiddle").content.decode()
    assert str(vault.certificate.pk) in page
    assert "keyless" not in page
    page = operator.get(address(Certificate)).content.decode()
    assert sorted(re.findall(r'field-has_key"><img src="[^"]+" alt="(\w+)"', page)) == ["False", "True"]


def test_a_certificate_and_its_secret_lead_to_each_other(operator, vault):
    secret = address(Secret, "change", vault.certificate)
    certificate = address(Certificate, "change", vault.certificate)
    assert f'href="{certificate}"' in operator.get(secret).content.decode()
    page = operator.get(certificate).content.decode()
    assert f'href="{secret}"' in page
    assert f'href="{address(AuditEvent)}?resource_id={vault.certificate.pk}"' in page


# What can be done


@pytest.mark.parametrize("model", READ_ONLY)
def test_nothing_is_added_changed_or_deleted(operator, vault, model):
    row = vault.rows[model]
    before = list(model.objects.order_by("pk").values())
    assert operator.get(address(model, "add")).status_code == 403
    assert operator.post(address(model, "add"), {"name": "x"}).status_code == 403
    assert operator.post(address(model, "change", row), {"name": "x", "status": "disconnected"}).status_code == 403
    assert operator.get(address(model, "delete", row)).status_code == 403
    assert operator.post(address(model, "delete", row), {"post": "yes"}).status_code == 403
    operator.post(address(model), {"action": "delete_selected", "_selected_action": [str(row.pk)], "post": "yes"})
    assert list(model.objects.order_by("pk").values()) == before


def test_a_connection_has_no_field_to_type_in(operator, vault):
    page = operator.get(address(Connection, "change", vault.connected)).content.decode()
    assert 'type="text"' not in page
    assert 'name="_save"' not in page


def test_an_account_is_neither_added_nor_deleted(operator, vault):
    row = vault.caller.account
    assert operator.get(address(Account, "add")).status_code == 403
    assert operator.post(address(Account, "delete", row), {"post": "yes"}).status_code == 403
    operator.post(address(Account), {"action": "delete_selected", "_selected_action": [str(row.pk)], "post": "yes"})
    assert Account.objects.filter(pk=row.pk).exists()


def test_an_accounts_plan_and_limit_are_changed(operator, db):
    row = an_account(plan="free")
    body = {"name": "New name", "subscription_plan": "pro", "secrets_limit_override": "7", "bare_start_enabled": ""}
    assert operator.post(address(Account, "change", row), body).status_code == 302
    slug = row.slug
    row.refresh_from_db()
    assert (row.name, row.subscription_plan, row.secrets_limit) == ("New name", "pro", 7)
    assert row.slug == slug
    assert {"id", "slug", "created_at"} <= set(AccountAdmin.readonly_fields)


def test_a_change_of_plan_is_told_like_any_other(operator):
    account = an_account(plan="pro")
    heard = []

    def hear(account, previous, **_):
        heard.append((account.subscription_plan, previous))

    plan_changed.connect(hear)
    try:
        form = {
            "name": account.name,
            "subscription_plan": "free",
            "secrets_limit_override": "",
            "bare_start_enabled": "on",
        }
        assert operator.post(f"/admin/billing_app/account/{account.pk}/change/", form).status_code == 302
    finally:
        plan_changed.disconnect(hear)
    assert heard == [("free", "pro")]


def test_an_account_is_put_on_no_unknown_plan(operator, db):
    row = an_account(plan="free")
    body = {"name": "x", "subscription_plan": "gold", "secrets_limit_override": ""}
    assert operator.post(address(Account, "change", row), body).status_code == 200
    row.refresh_from_db()
    assert row.subscription_plan == "free"


def revoke(client: Client, *rows: ApiKey) -> int:
    body = {"action": "revoke", "_selected_action": [str(row.pk) for row in rows]}
    return client.post(address(ApiKey), body).status_code


def test_a_revoked_key_opens_nothing_from_then_on(operator, vault):
    kept = Caller(vault.caller.account)
    assert vault.caller.get("/v1/secrets").status_code == 200
    assert revoke(operator, vault.caller.row) == 302
    assert vault.caller.get("/v1/secrets").status_code == 401
    assert kept.get("/v1/secrets").status_code == 200


def test_a_revocation_is_recorded_with_the_operators_name(operator, vault):
    revoke(operator, vault.caller.row)
    event = AuditEvent.objects.get(action="api_key.revoked")
    assert event.account == vault.caller.account
    assert (event.resource_type, event.resource_id) == ("api_key", str(vault.caller.row.pk))
    assert (event.actor, event.ip_address) == ("operator", "127.0.0.1")
    assert event.details == {"key_id": vault.caller.row.key_id}


def test_a_key_is_revoked_once(operator, vault):
    first = timezone.now()
    ApiKey.objects.filter(pk=vault.caller.row.pk).update(revoked_at=first)
    revoke(operator, vault.caller.row)
    vault.caller.row.refresh_from_db()
    assert vault.caller.row.revoked_at == first
    assert not AuditEvent.objects.filter(action="api_key.revoked").exists()


@pytest.mark.django_db(transaction=True)
def test_a_revocation_that_cannot_be_recorded_is_not_done(operator, monkeypatch):
    from secrets_app import audit

    caller = Caller()

    def fail(*_, **__):
        raise RuntimeError

    monkeypatch.setattr(audit, "record", fail)
    operator.raise_request_exception = False
    assert revoke(operator, caller.row) == 500
    caller.row.refresh_from_db()
    assert caller.row.revoked_at is None


def test_revoking_needs_the_permission(vault):
    get_user_model().objects.create_user("looker", password="a long password", is_staff=True).user_permissions.add(
        Permission.objects.get(codename="view_apikey")
    )
    looker = Client()
    assert looker.login(username="looker", password="a long password")
    page = looker.get(address(ApiKey))
    assert page.status_code == 200
    assert 'value="revoke"' not in page.content.decode()
    revoke(looker, vault.caller.row)
    vault.caller.row.refresh_from_db()
    assert vault.caller.row.revoked_at is None


# The door


@pytest.mark.parametrize("path", ["/admin/", address(Secret), address(ApiKey)])
def test_a_stranger_is_sent_to_the_login(client, db, path):
    answer = client.get(path)
    assert answer.status_code == 302
    assert answer["Location"].startswith("/admin/login/")


def test_an_api_key_does_not_open_the_admin(vault):
    assert vault.caller.get("/admin/").status_code == 302


def test_a_form_without_its_token_is_refused(db):
    client = Client(enforce_csrf_checks=True)
    answer = client.post("/admin/login/", {"username": "operator", "password": "a long password"})
    assert answer.status_code == 403


# Scripts


@pytest.mark.parametrize("path", ["/admin/", address(Account), address(Connection), "/admin/login/"])
def test_the_policy_lets_the_pages_run(operator, vault, path):
    answer = operator.get(path, follow=True)
    policy = answer["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "style-src 'self'" in policy
    page = answer.content.decode()
    inline = re.findall(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)[^>]*>\s*\S", page)
    assert inline == []
    assert re.findall(r"<style", page) == []
    assert re.findall(r"<[^>]+\s(?:style|on[a-z]+)=\"", page) == []
    sources = re.findall(r'<(?:script|link|img)[^>]*\b(?:src|href)="([^"]+)"', page)
    assert sources
    assert [source for source in sources if not source.startswith(("/static/", "/admin/jsi18n"))] == []


def test_no_template_of_ours_has_an_inline_script_or_style():
    templates = Path(__file__).resolve().parents[1] / "templates"
    for file in templates.rglob("*.html"):
        text = file.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=\"|\son[a-z]+=\"|javascript:", text), file
