"""Discovery: an issuer is asked when it has to be, believed when it may be, and its outages stop nobody."""

from __future__ import annotations

import json
import socket
import threading
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from django.db import OperationalError
from django.db.models.functions import Now

from knoxcall import addresses, waiting
from knoxcall.api.errors import DependencyUnavailable
from oauth_app import discovery, tasks
from oauth_app.discovery import DiscoveryFailed, discover, issuer_changed, refetch_stale
from oauth_app.models import Issuer
from tests.support.crowd import all_at_once
from tests.support.tls import Peer, Request, ok, says

OIDC = "/.well-known/openid-configuration"
RFC8414 = "/.well-known/oauth-authorization-server"


class FakeIssuer:
    """An issuer that says what is in ``document``, at the paths in ``at``, unless told to ``say`` something else."""

    def __init__(self) -> None:
        self.peer = Peer(self._answer)
        self.at = [OIDC]
        self.say: Any = None
        self.document: dict[str, Any] = {}

    @property
    def asked(self) -> list[str]:
        return [request.line.split()[1] for request in self.peer.requests]

    def listen(self) -> None:
        self.url = f"http://127.0.0.1:{self.peer.port}"
        self.document = {"issuer": self.url, "token_endpoint": f"{self.url}/token"}

    def _answer(self, connection: socket.socket, request: Request) -> bool | None:
        if request.line.split()[1] not in self.at:
            return says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")(connection, request)
        say = self.say or ok(json.dumps(self.document).encode(), "Content-Type: application/json")
        return say(connection, request)


@pytest.fixture
def issuer(db):
    made = FakeIssuer()
    with made.peer.listening():
        made.listen()
        yield made


@pytest.fixture
def changes():
    """The token endpoints that receivers were told of."""
    seen: list[str] = []

    def receive(*, issuer: Issuer, metadata, **_: Any) -> None:
        assert issuer.metadata == metadata.to_json()
        seen.append(metadata.token_endpoint)

    issuer_changed.connect(receive)
    yield seen
    issuer_changed.disconnect(receive)


def make_older(**by: float) -> None:
    Issuer.objects.update(fetched_at=Now() - timedelta(**by))


DOWN = says(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


# Asking


def test_an_issuer_says_all_that_its_url_does_not(db, provider):
    metadata = discover(provider.issuer)
    assert metadata.authorization_endpoint == provider.authorize_url
    assert (metadata.token_endpoint, metadata.revocation_endpoint) == (provider.token_url, provider.revoke_url)
    assert metadata.pkce


def test_what_was_fetched_serves_without_a_request(issuer):
    assert discover(issuer.url) == discover(issuer.url)
    make_older(hours=23)
    discover(issuer.url)
    (request,) = issuer.peer.requests
    assert request.line == f"GET {OIDC} HTTP/1.1"
    assert request.header("Accept") == "application/json"


def test_after_a_day_it_is_asked_again(issuer):
    discover(issuer.url)
    make_older(hours=25)
    issuer.document["token_endpoint"] = f"{issuer.url}/new"
    assert discover(issuer.url).token_endpoint == f"{issuer.url}/new"
    discover(issuer.url)
    assert len(issuer.asked) == 2


@pytest.mark.parametrize(("path", "asked"), [("", ""), ("/", ""), ("/tenant", "/tenant"), ("/tenant/", "/tenant")])
def test_where_openid_connect_is_not_spoken_rfc_8414_is(issuer, path, asked):
    issuer.at = [RFC8414 + asked]
    issuer.document["issuer"] = issuer.url + path
    assert discover(issuer.url + path).issuer == issuer.url + path
    assert issuer.asked == [asked + OIDC, RFC8414 + asked]


def test_one_slash_makes_another_issuer(issuer):
    with pytest.raises(DiscoveryFailed, match=f"`{issuer.url}`, and not of `{issuer.url}/`"):
        discover(f"{issuer.url}/")
    assert discover(issuer.url).issuer == issuer.url


# What is not believed


def redirect(connection: socket.socket, request: Request) -> bool:
    connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
    return True


@pytest.mark.parametrize(
    "say",
    [
        ok(b'{"issuer": "https://evil.example", "token_endpoint": "https://evil.example/t"}'),
        ok(b"<html>Sign in</html>", "Content-Type: text/html"),
        ok(b'{"issuer": "' + b"x" * 2**20 + b'"}'),
        redirect,
        DOWN,
        says(b"", keep=False),
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", keep=False),
    ],
    ids=["another issuer", "HTML", "over 1 MiB", "a redirect", "an outage", "nothing", "half of it"],
)
def test_a_first_fetch_that_brings_no_metadata_fails_and_leaves_nothing(issuer, say):
    issuer.at.append("/elsewhere")
    issuer.say = say
    with pytest.raises(DiscoveryFailed):
        discover(issuer.url)
    assert issuer.asked == [OIDC]
    assert not Issuer.objects.exists()


def test_an_issuer_that_does_not_answer_is_not_waited_for(issuer):
    stopped = threading.Event()
    issuer.say = lambda *_: stopped.wait(30) and None
    with pytest.raises(DiscoveryFailed, match="did not answer in time"):
        discover(issuer.url, deadline=0.1)
    stopped.set()


def test_no_word_of_the_issuer_is_repeated_but_its_name(issuer):
    issuer.document |= {"token_endpoint": "https://10.0.0.1/hunter2", "scopes_supported": ["hunter2 hunter2"]}
    with pytest.raises(DiscoveryFailed) as failed:
        discover(issuer.url)
    assert "hunter2" not in failed.value.message


@pytest.mark.parametrize(
    "url", ["http://id.example", "http://127.0.0.1:1", "https://127.0.0.1:1", "https://10.0.0.1", "https://localhost"]
)
def test_without_an_exemption_neither_plain_http_nor_this_machine_is_called(issuer, url, settings):
    settings.KNOXCALL_OUTBOUND_ALLOW = []
    for refused in (url, issuer.url):
        with pytest.raises(DiscoveryFailed):
            discover(refused)
    assert issuer.asked == []


def test_a_name_that_leads_inside_is_not_called(db, monkeypatch):
    monkeypatch.setattr(addresses, "look_up", lambda host: [ip_address("10.0.0.1")])
    with pytest.raises(DiscoveryFailed, match="does not call"):
        discover("https://id.example")


@pytest.mark.parametrize("url", ["https://id.example/?tenant=a", "https://id.example/#a", "x" * 501, "\u0000"])
def test_what_cannot_be_an_issuer_is_not_even_looked_up(db, url):
    with pytest.raises(DiscoveryFailed):
        discover(url)


# Outages


@pytest.mark.parametrize(
    "say", [DOWN, says(b"", keep=False), ok(b'{"issuer": "https://evil.example", "token_endpoint": "https://e"}')]
)
def test_in_an_outage_what_is_stored_serves_on_and_is_asked_for_every_five_minutes(issuer, say, caplog):
    known = discover(issuer.url)
    make_older(days=6)
    issuer.say = say
    assert discover(issuer.url) == discover(issuer.url) == known
    assert len(issuer.asked) == 2
    (record,) = [record for record in caplog.records if record.name == discovery.logger.name]
    assert (record.levelname, issuer.url in record.getMessage()) == ("WARNING", True)

    Issuer.objects.update(failed_at=Now() - timedelta(minutes=6))
    assert discover(issuer.url) == known
    assert len(issuer.asked) == 3
    Issuer.objects.update(failed_at=Now() - timedelta(minutes=6))
    issuer.say = None
    discover(issuer.url)
    assert Issuer.objects.get().failed_at is None


def test_after_a_week_of_outage_nothing_serves(issuer):
    discover(issuer.url)
    make_older(days=8)
    issuer.say = DOWN
    for _ in range(2):
        with pytest.raises(DiscoveryFailed, match="503"):
            discover(issuer.url)
    assert len(issuer.asked) == 3


def test_where_too_many_wait_what_is_stored_serves_and_a_first_fetch_is_turned_away(issuer, monkeypatch):
    known = discover(issuer.url)
    make_older(hours=25)
    monkeypatch.setattr(waiting, "_places", threading.BoundedSemaphore(1))
    with waiting.place():
        assert discover(issuer.url) == known
        with pytest.raises(DependencyUnavailable):
            discover(f"{issuer.url}/another")
    assert len(issuer.asked) == 1


# Changes


def test_the_schedule_asks_those_older_than_a_day_and_tells_of_changes(issuer, changes):
    discover(issuer.url)
    assert refetch_stale() == 0
    make_older(hours=25)
    issuer.document["token_endpoint"] = f"{issuer.url}/new"
    assert refetch_stale() == 1
    make_older(hours=25)
    tasks.refetch_issuers()
    assert len(issuer.asked) == 3
    assert changes == [f"{issuer.url}/new"]


def test_a_change_that_a_request_sees_first_is_told_of_too(issuer, changes):
    discover(issuer.url)
    make_older(hours=25)
    issuer.document["token_endpoint"] = f"{issuer.url}/new"
    discover(issuer.url)
    assert changes == [f"{issuer.url}/new"]


def test_a_change_that_cannot_be_taken_over_is_seen_again(issuer):
    known = discover(issuer.url)
    make_older(hours=25)
    issuer.document["token_endpoint"] = f"{issuer.url}/new"

    def receive(**_: Any) -> None:
        raise LookupError

    issuer_changed.connect(receive)
    try:
        assert refetch_stale() == 0
        assert discover(issuer.url) == known
    finally:
        issuer_changed.disconnect(receive)
    Issuer.objects.update(failed_at=Now() - timedelta(minutes=6))
    assert refetch_stale() == 1


def test_a_database_that_is_away_is_not_blamed_on_the_issuer(issuer, monkeypatch):
    def store(*_: Any) -> bool:
        raise OperationalError

    monkeypatch.setattr(discovery, "_store", store)
    with pytest.raises(OperationalError):
        discover(issuer.url)


def test_the_schedule_asks_the_longest_untried_first_and_no_failed_one_at_once_again(issuer):
    paths = [f"/{name}" for name in "abc"]
    for path in paths:
        Issuer.objects.create(url=issuer.url + path, metadata={})
    make_older(days=30)
    Issuer.objects.filter(url=issuer.url + "/a").update(failed_at=Now() - timedelta(days=1))
    assert refetch_stale(limit=2) == 0
    assert refetch_stale(limit=2) == 0
    assert refetch_stale(limit=2) == 0
    assert sorted(path for path in issuer.asked[:4] if OIDC in path) == [f"/b{OIDC}", f"/c{OIDC}"]
    assert [path for path in issuer.asked[4:] if OIDC in path] == [f"/a{OIDC}"]


def test_a_round_of_the_schedule_that_took_long_begins_no_further_call(issuer, monkeypatch):
    discover(issuer.url)
    make_older(hours=25)
    monkeypatch.setattr(discovery, "LONGEST_ROUND", 0)
    assert refetch_stale() == 0
    assert len(issuer.asked) == 1


@pytest.mark.django_db(transaction=True)
def test_of_eight_at_once_none_fails_and_one_tells_of_a_change(issuer, changes):
    ask = [lambda: discover(issuer.url)] * 8
    assert len(set(all_at_once(*ask))) == 1
    make_older(hours=25)
    issuer.document["token_endpoint"] = f"{issuer.url}/new"
    assert {metadata.token_endpoint for metadata in all_at_once(*ask)} == {f"{issuer.url}/new"}
    assert changes == [f"{issuer.url}/new"]
