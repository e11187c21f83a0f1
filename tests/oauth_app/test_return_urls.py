"""Where browsers are sent after a consent: to listed origins, spelt one way, with three words about how it went and no more."""

from __future__ import annotations

import json
import re
import uuid
from datetime import timedelta
from io import StringIO
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db.models.functions import Now
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from oauth_app import return_urls
from oauth_app.models import AuthorizationRequest, Connection, ReturnOrigin
from oauth_app.return_origins import allow_origin, remove_origin
from oauth_app.return_urls import check_return_url, normal_origin, return_address
from secrets_app.audit import Actor
from secrets_app.models import AuditEvent, Secret
from tests.factories import Caller, a_client, an_oauth2_secret
from tests.support.person import Person, changed, query_of

APP = "https://app.example.com"
OTHER = "https://other.example.com"
BACK = f"{APP}/done?from=vault"


@pytest.fixture
def caller(db) -> Caller:
    caller = Caller()
    for origin in (APP, OTHER):
        allow_origin(caller.account, origin, actor=Actor("test"))
    return caller


@pytest.fixture
def connection(caller, provider) -> Connection:
    """Of a secret that was created with a return address."""
    return an_oauth2_secret(caller, a_client(provider, return_url=BACK))


def link_for(caller: Caller, connection: Connection, **body: Any) -> str:
    answer = caller.post(f"/v1/secrets/{connection.secret_id}/oauth2/authorize", body)
    assert answer.status_code == 200, answer.content
    url: str = answer.json()["data"]["authorize_url"]
    return url


# Origins


@pytest.mark.parametrize(
    ("typed", "origin"),
    [
        ("https://app.example.com", "https://app.example.com"),
        (" HTTPS://App.Example.COM/ ", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("https://app.example.com:0443", "https://app.example.com"),
        ("https://app.example.com:8443/", "https://app.example.com:8443"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("https://192.0.2.1", "https://192.0.2.1"),
        ("https://[2001:DB8:0:0:0:0:0:1]", "https://[2001:db8::1]"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_an_origin_is_spelt_as_browsers_spell_it(typed, origin):
    assert normal_origin(typed) == origin


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "app.example.com",
        "https://",
        "https://app.example.com/path",
        "https://app.example.com?",
        "http://app.example.com",
        "http://localhost.example.com",
        "https://*.example.com",
        "null",
        "ftp://app.example.com",
        "https://app..example.com",
        # These are addresses to browsers, and not the ones they look like.
        "https://0x7f.1",
        "https://127.0x1",
        "https://2130706433",
        "https://010.0.0.1",
        "https://1.2.3.4.5",
        "https://[:::]",
        "https://[1]",
    ],
)
def test_what_is_no_origin_is_refused(typed):
    with pytest.raises(ValueError, match=r"."):
        normal_origin(typed)


HOSTILE = [
    "https://app.example.com.evil.example/",
    "https://app.example.com@evil.example/",
    "https://app.example.com:443@evil.example/",
    "https://user@app.example.com/",
    "https://user:password@app.example.com/",
    "https://evil.example\\@app.example.com/",
    "https://app.example.com\\@evil.example/",
    "https://app.example.com\\.evil.example/",
    "https:\\\\app.example.com/",
    "https:/app.example.com/",
    "https:app.example.com/",
    "https:///app.example.com/",
    "//app.example.com/",
    "/done",
    "app.example.com",
    "\thttps://app.example.com/",
    " https://app.example.com/",
    "ht\ntps://app.example.com/",
    "https://app.example.com\t.evil.example/",
    "https://app.example.com/\r\nSet-Cookie: a=b",
    "https://app.example.com/\n",
    "https://app.example.com/\0",
    "https://app.example.com/a b",
    "https://app.example.com./",
    "https://app.example.com:/",
    "https://app.example.com:0/",
    "https://app.example.com:65979/",
    "https://app.example.com:443443/",
    "https://app.example.com:-443/",
    "https://app.example.com:+443/",
    "https://app.example.com:\uff14\uff14\uff13/",
    "https://app.example.com:8443/",
    "https://app%2eexample.com/",
    "https://app.example.com%2f@evil.example/",
    "https://app.example.com%00.evil.example/",
    "https://\u0430pp.example.com/",
    "https://app\u3002example.com/",
    "https://app.example.com\uff0fevil.example/",
    "https://app.example.com\u2044evil.example/",
    "http\u017f://app.example.com/",
    "https://app.example.com/#fragment",
    "https://app.example.com/done#",
    "https://app.example.com?result=connected",
    "https://app.example.com/?a=b&secret_id=1",
    "https://app.example.com/?%72esult=connected",
    "https://app.example.com/?environment",
    "http://app.example.com/",
    "wss://app.example.com/",
    "javascript:alert(1)",
    "javascript://app.example.com/%0aalert(1)",
    "data:text/html,https://app.example.com/",
    "blob:https://app.example.com/",
    "https://[::1",
    "https://[:::]/",
    "https://[::ffff:1.2.3.4]/",
    "https://0x7f.1/",
    "https://2130706433/",
    "https://010.0.0.1/",
    f"https://app.example.com/{'a' * 3000}",
    f"https://{'a' * 300}.example.com/",
    "",
]


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_address_is_refused(caller, url):
    with pytest.raises(ValueError, match=r"."):
        check_return_url(caller.account.pk, url)


@pytest.mark.parametrize(
    "url",
    [APP, f"{APP}/", f"{APP}?a=b", BACK, f"{APP}:443/a/@b:c;d", "HTTPS://App.Example.com/Done", f"{APP}/%2f?next=//x"],
)
def test_an_address_of_a_listed_origin_is_taken_as_it_is(caller, url):
    assert check_return_url(caller.account.pk, url) == url


def test_another_accounts_list_counts_for_nothing(caller):
    with pytest.raises(ValueError, match="not allowed"):
        check_return_url(Caller().account.pk, BACK)


def seen_by_a_browser(url: str) -> str:
    """The origin where a browser would go: WHATWG's parser, as far as it matters to an address that starts with a scheme."""
    cleaned = re.sub(r"[\t\n\r]", "", url.strip("".join(map(chr, range(33)))))
    scheme, _, rest = cleaned.partition(":")
    authority = re.split(r"[/\\?#]", rest.lstrip("/\\"), maxsplit=1)[0].rpartition("@")[2]
    host, port = re.fullmatch(r"(.*?)(?::([0-9]*))?", authority, re.DOTALL).groups()
    is_usual = not port or int(port) == {"https": 443, "http": 80}.get(scheme.lower())
    return f"{scheme.lower()}://{host.lower()}{'' if is_usual else f':{int(port)}'}"


_PIECES = [*"://\\@?#%. \t\n-0", "https", "HTTP", "//", ":443", ":80", ":8443", "[::1]", "%2e", "\u017f", "\u212a"]
_HOSTS = ["app.example.com", "App.Example.com", "evil.example", "localhost", "127.0.0.1"]
_ADDRESSES = st.lists(st.sampled_from(_PIECES + _HOSTS) | st.text(max_size=3), max_size=10).map("".join)


@given(
    _ADDRESSES | st.builds("https://app.example.com{}".format, _ADDRESSES) | st.builds("https://{}".format, _ADDRESSES)
)
def test_whatever_is_taken_means_the_same_to_every_reader(url):
    try:
        # What check_return_url looks for on the list.
        origin = return_urls._split(url).origin
    except ValueError:
        return
    parts = urlsplit(url)
    usual = {"https": 443, "http": 80}[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    assert origin == f"{parts.scheme}://{host}{'' if parts.port in (None, usual) else f':{parts.port}'}"
    assert origin == seen_by_a_browser(url)
    assert (parts.username, parts.password, parts.fragment) == (None, None, "")
    sent = return_address(url, secret_id=uuid.uuid4(), environment="production", result="denied")
    assert seen_by_a_browser(sent) == origin
    assert {"secret_id", "environment", "result"} <= query_of(sent).keys()


# Going there


def test_a_success_goes_there_with_three_words_and_no_more(connection, person):
    answer = person.consent(connection)
    assert answer.status_code == 302
    assert answer["Location"].startswith(f"{BACK}&")
    assert query_of(answer["Location"]) == {
        "from": "vault",
        "secret_id": str(connection.secret_id),
        "environment": "production",
        "result": "connected",
    }
    assert answer["Referrer-Policy"] == "no-referrer"
    assert answer["Cache-Control"] == "no-store"
    assert answer.content == b""


def test_a_reload_goes_there_again(connection, person):
    back = person.at_provider(person.start(connection))
    assert person.open(back)["Location"] == person.open(back)["Location"]


@pytest.mark.parametrize(
    ("brought", "result"),
    [
        ({"error": "access_denied"}, "denied"),
        ({"error": "server_error", "error_description": "Words of theirs"}, "provider_error"),
        ({"code": "unknown"}, "exchange_failed"),
    ],
)
def test_what_went_wrong_is_told_as_a_code(connection, person, brought, result):
    back = changed(person.at_provider(person.start(connection)), **{"code": None, **brought})
    answer = person.open(back)
    assert answer.status_code == 302
    assert query_of(answer["Location"])["result"] == result
    assert "Words" not in answer["Location"]


def test_a_consent_that_ran_out_goes_there_too(connection, person):
    back = person.at_provider(person.start(connection))
    AuthorizationRequest.objects.update(created_at=Now() - timedelta(hours=1), expires_at=Now())
    assert query_of(person.open(back)["Location"])["result"] == "expired"


def test_whoever_proves_nothing_is_sent_nowhere(connection, caller, person, http, provider):
    back = person.at_provider(person.start(connection))
    other = an_oauth2_secret(caller, a_client(provider, return_url=BACK), name="other")
    stranger = Person(http).open(back)
    unknown = person.open(changed(back, state="x" * 43))
    elsewhere = person.open(back.replace(str(connection.secret_id), str(other.secret_id)))
    twice = person.open(f"{back}&state=again")
    assert [page.status_code for page in (stranger, unknown, elsewhere, twice)] == [403, 400, 400, 400]


def test_a_link_that_is_over_is_a_page(connection, caller, person):
    link = link_for(caller, connection, return_url=BACK)
    assert person.consent_by(link).status_code == 302
    assert person.open(link).status_code == 410


def test_an_origin_that_was_removed_meanwhile_is_not_gone_to(connection, caller, person):
    back = person.at_provider(person.start(connection))
    remove_origin(caller.account, APP, actor=Actor("test"))
    page = person.open(back)
    assert page.status_code == 200
    assert APP not in page.content.decode()


def test_a_links_own_address_goes_before_the_secrets(connection, caller, person):
    assert person.consent_by(link_for(caller, connection))["Location"].startswith(BACK)
    own = person.consent_by(link_for(caller, connection, return_url=f"{OTHER}/x"))
    assert own["Location"].startswith(f"{OTHER}/x?secret_id=")
    # What its maker did not choose does not take its place.
    link = link_for(caller, connection, return_url=f"{OTHER}/x")
    remove_origin(caller.account, OTHER, actor=Actor("test"))
    assert person.consent_by(link).status_code == 200


def test_the_environment_that_was_meant_is_told(connection, caller, person):
    caller.post("/v1/environments", {"name": "staging", "display_name": "Staging"})
    answer = person.consent_by(link_for(caller, connection, environment="staging"))
    assert query_of(answer["Location"])["environment"] == "staging"


def test_a_secret_is_created_with_an_address_of_a_listed_origin_only(caller, provider, person):
    body = {
        "name": "crm",
        "provider": "custom",
        "client_id": provider.client_id,
        "client_secret": provider.client_secret,
        "auth_url": provider.authorize_url,
        "token_url": provider.token_url,
    }
    refused = caller.post("/v1/secrets/oauth2", {**body, "return_url": "https://unlisted.example/"})
    assert refused.status_code == 400
    assert list(refused.json()["fields"]) == ["return_url"]
    assert not Secret.objects.exists()
    answer = caller.post("/v1/secrets/oauth2", {**body, "return_url": BACK})
    assert answer.status_code == 201
    connection = Connection.objects.get(secret_id=answer.json()["data"]["id"])
    assert person.consent(connection)["Location"].startswith(BACK)


# The list


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("allow_origin", *arguments, stdout=out)
    return out.getvalue().strip()


@pytest.mark.django_db
def test_the_command_adds_lists_and_removes():
    account = Caller().account
    assert run(account.slug) == f"No origin is allowed for {account.slug}."
    assert run(account.slug, "HTTPS://App.Example.com:443/") == APP
    run(account.slug, OTHER)
    assert run(account.slug) == f"{APP}\n{OTHER}"
    assert json.loads(run(account.slug, "--json")) == [APP, OTHER]
    assert run(account.slug, APP, "--remove") == OTHER
    events = AuditEvent.objects.filter(account=account, action__startswith="return_origin.").order_by("created_at")
    assert [(event.action, event.actor, event.details["origin"]) for event in events] == [
        ("return_origin.allowed", "command line", APP),
        ("return_origin.allowed", "command line", OTHER),
        ("return_origin.removed", "command line", APP),
    ]


@pytest.mark.django_db
def test_the_command_lists_an_origin_once():
    slug = Caller().account.slug
    run(slug, APP)
    assert run(slug, f"{APP}/") == APP
    assert AuditEvent.objects.filter(action="return_origin.allowed").count() == 1


def test_the_command_says_what_is_wrong(caller):
    slug = caller.account.slug
    for arguments in (
        ["nobody"],
        [slug, "nonsense"],
        [slug, "--remove"],
        [slug, "https://unlisted.example", "--remove"],
    ):
        with pytest.raises(CommandError):
            run(*arguments)
    assert caller.account.return_origins.count() == 2


@pytest.fixture
def operator(db) -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("operator", password="-"))
    return client


LIST = "/admin/oauth_app/returnorigin/"


def test_an_operator_adds_an_origin_in_its_one_spelling(operator):
    account = Caller().account
    for _ in range(2):
        answer = operator.post(f"{LIST}add/", {"account": str(account.pk), "origin": "HTTPS://App.Example.com:443/"})
    # The second time it is there already, which is said.
    assert answer.status_code == 200
    assert [row.origin for row in account.return_origins.all()] == [APP]
    event = AuditEvent.objects.get(action="return_origin.allowed")
    assert (event.actor, event.details) == ("operator", {"origin": APP})


@pytest.mark.parametrize("typed", ["", "nonsense", f"{APP}/path", "https://user@app.example.com"])
def test_an_operator_cannot_add_nonsense(operator, typed):
    answer = operator.post(f"{LIST}add/", {"account": str(Caller().account.pk), "origin": typed})
    assert answer.status_code == 200
    assert not ReturnOrigin.objects.exists()


@pytest.mark.parametrize("at_once", [False, True])
def test_an_operator_removes_origins(operator, caller, at_once):
    rows = list(caller.account.return_origins.all())
    if at_once:
        chosen = {"action": "delete_selected", "_selected_action": [row.pk for row in rows], "post": "yes"}
        assert operator.post(LIST, chosen).status_code == 302
    else:
        for row in rows:
            assert operator.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not ReturnOrigin.objects.exists()
    removed = AuditEvent.objects.filter(action="return_origin.removed")
    assert sorted((event.actor, event.details["origin"]) for event in removed) == [
        ("operator", APP),
        ("operator", OTHER),
    ]
