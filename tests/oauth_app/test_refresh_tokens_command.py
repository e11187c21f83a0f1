"""`manage.py refresh_tokens`: which connections, what is said of them, and how it is stopped."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Callable, Iterable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.db import connection as database
from django.db.models import F
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from oauth_app.fake_provider import Answer
from oauth_app.management import choosing, refreshing
from oauth_app.management.commands import refresh_tokens
from oauth_app.models import ClientRegistration, Connection
from oauth_app.sweep import Sweeper
from tests.factories import Caller, a_client, age, an_account, an_oauth2_secret, consent
from tests.support.crowd import all_at_once

pytestmark = pytest.mark.django_db

Status = Connection.Status


class FakeSweeper:
    """Keeps the promises of the real one without a call: says of each connection what the test wants to be said."""

    def __init__(self) -> None:
        self.results: dict[uuid.UUID, str | Callable[[], str]] = {}
        self.seen: list[uuid.UUID] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.made = self.stopped = 0

    def __call__(self) -> FakeSweeper:
        self.made += 1
        return self

    def refresh_these(
        self,
        ids: Iterable[uuid.UUID],
        *,
        on_done: Callable[[uuid.UUID, str], None],
        should_stop: Callable[[], bool],
        only_due: bool,
    ) -> None:
        for pk in ids:
            if should_stop():
                return
            self.seen.append(pk)
            self.meanwhile()
            result = self.results.get(pk, "refreshed")
            on_done(pk, result if isinstance(result, str) else result())

    def stop(self) -> None:
        self.stopped += 1


@pytest.fixture
def sweeper(monkeypatch) -> FakeSweeper:
    fake = FakeSweeper()
    monkeypatch.setattr(refresh_tokens, "Sweeper", fake)
    monkeypatch.setattr(refreshing, "PAUSE", 0.01)
    monkeypatch.setattr(refreshing, "PATIENCE", 0.05)
    return fake


@pytest.fixture
def caller() -> Caller:
    return Caller(an_account(slug="acme"))


def a_connection(caller: Caller, provider: Any, name: str, *, due_in: float = -1, **columns: Any) -> Connection:
    """One that needs no person, due ``due_in`` seconds from now."""
    connection = an_oauth2_secret(caller, a_client(provider, grant_type="client_credentials"), name)
    due = Now() + timedelta(seconds=due_in)
    Connection.objects.filter(pk=connection.pk).update(**{"refresh_due_at": due, **columns})
    return connection


def run(*arguments: str) -> tuple[int, str]:
    """Exit status and what was printed."""
    out = StringIO()
    try:
        call_command("refresh_tokens", *arguments, stdout=out, stderr=StringIO())
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


def summary(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("--json", *arguments)[1])
    return found


def names(sweeper: FakeSweeper) -> list[str]:
    by_id = dict(Connection.objects.values_list("pk", "secret__name"))
    return [by_id[pk] for pk in sweeper.seen]


# Which


@pytest.mark.parametrize("arguments", [(), ("--due",)], ids=str)
def test_what_is_due_is_refreshed_oldest_deadline_first(caller, provider, sweeper, arguments):
    a_connection(caller, provider, "late", due_in=-60)
    a_connection(caller, provider, "not-yet", due_in=60)
    a_connection(caller, provider, "latest", due_in=-600)
    a_connection(caller, provider, "just", due_in=-1)
    assert run(*arguments)[0] == 0
    assert names(sweeper) == ["latest", "late", "just"]
    assert (sweeper.made, sweeper.stopped) == (1, 1)


def test_all_is_whatever_can_be_refreshed_and_has_not_ended(caller, provider, http, sweeper):
    a_connection(caller, provider, "robot", due_in=3600)
    a_connection(caller, provider, "dead", status=Status.REAUTHORIZATION_REQUIRED, refresh_due_at=None)
    a_connection(caller, provider, "over", status=Status.DISCONNECTED, refresh_due_at=None)
    an_oauth2_secret(caller, a_client(provider), "never-connected")
    consent(an_oauth2_secret(caller, a_client(provider), "consented"), http)
    provider.refresh_tokens = "never"
    consent(an_oauth2_secret(caller, a_client(provider), "no-refresh-token"), http)
    assert run("--all")[0] == 0
    assert sorted(names(sweeper)) == ["consented", "robot"]


def test_provider_and_account_narrow_it_down(caller, provider, sweeper):
    a_connection(caller, provider, "mine")
    a_connection(Caller(an_account(slug="other")), provider, "theirs")
    ClientRegistration.objects.filter(secret__name="theirs").update(provider="google")
    for arguments, expected in (
        (("--account", "acme"), ["mine"]),
        (("--all", "--provider", "google"), ["theirs"]),
        (("--provider", "google", "--account", "acme"), []),
    ):
        sweeper.seen.clear()
        run(*arguments)
        assert names(sweeper) == expected


@pytest.mark.parametrize("arguments", [("--provider", "gogle"), ("--account", "nobody"), ("--due", "--all")], ids=str)
def test_options_that_mean_nothing_are_refused_before_anything_is_sent(caller, provider, sweeper, arguments):
    a_connection(caller, provider, "one")
    with pytest.raises(CommandError):
        run(*arguments)
    assert sweeper.made == 0


@pytest.mark.parametrize("which", ["--due", "--all"])
def test_pages_hold_each_connection_once_though_refreshes_move_them(caller, provider, sweeper, monkeypatch, which):
    monkeypatch.setattr(choosing, "PAGE", 2)
    for number in range(7):
        # Some at the very same moment.
        a_connection(caller, provider, f"c{number}", due_in=0)
    Connection.objects.update(refresh_due_at=Now() - timedelta(hours=1))
    sweeper.meanwhile = lambda: Connection.objects.filter(pk=sweeper.seen[-1]).update(
        refresh_due_at=Now() + timedelta(hours=1), generation=F("generation") + 1
    )
    run(which)
    assert sorted(names(sweeper)) == [f"c{number}" for number in range(7)]


# A rehearsal


def test_a_dry_run_counts_by_provider_and_neither_calls_nor_writes(caller, provider, sweeper):
    for name in ("one", "two", "three"):
        a_connection(caller, provider, name)
    ClientRegistration.objects.filter(secret__name="three").update(provider="google")
    before = list(Connection.objects.order_by("pk").values())
    calls = provider.count("client_credentials")
    assert summary("--dry-run") == {"connections": 3, "providers": {"custom": 2, "google": 1}}
    lines = run("--dry-run")[1].splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["2", "custom"], ["1", "google"]]
    assert lines[-1].split()[0] == "3"
    assert sweeper.made == 0
    assert provider.count("client_credentials") == calls
    assert list(Connection.objects.order_by("pk").values()) == before


def test_a_dry_run_costs_the_same_few_statements_whatever_there_is(caller, provider, sweeper):
    def statements() -> int:
        with CaptureQueriesContext(database) as queries:
            run("--dry-run", "--all")
        return len(queries)

    a_connection(caller, provider, "first")
    one = statements()
    for number in range(4):
        a_connection(caller, provider, f"c{number}")
    assert statements() == one


# What is said


def test_the_summary_counts_every_result_and_failures_by_their_code(caller, provider, sweeper):
    results = [
        *("refreshed", "refreshed", "failed:http_503", "failed:http_503", "failed:timeout", "ended:invalid_grant"),
        *("held", "busy", "busy", "postponed", "fault"),
    ]
    for number, result in enumerate(results):
        sweeper.results[a_connection(caller, provider, f"c{number}").pk] = result
    status, printed = run("--json")
    document = json.loads(printed)
    assert status == 1
    assert isinstance(document.pop("seconds"), float)
    assert document == {
        "connections": 11,
        "refreshed": 2,
        "failed": {"http_503": 2, "timeout": 1},
        "ended": {"invalid_grant": 1},
        "held": 1,
        "busy": 2,
        "postponed": 1,
        "fault": 1,
        "not_reached": 0,
        "interrupted": False,
    }
    shown = run()[1]
    assert "2 of 11" in shown.splitlines()[0]
    assert all(code in shown for code in ("http_503 2", "timeout 1", "invalid_grant 1"))


@pytest.mark.parametrize(
    ("result", "status"),
    [("held", 0), ("busy", 0), ("postponed", 0), ("failed:http_503", 1), ("ended:invalid_grant", 1), ("fault", 1)],
)
def test_the_exit_status_says_whether_any_failed(caller, provider, sweeper, result, status):
    a_connection(caller, provider, "fine")
    sweeper.results[a_connection(caller, provider, "other").pk] = result
    assert run()[0] == status


def test_nothing_to_do_is_no_failure(sweeper):
    status, printed = run()
    assert (status, printed.count("\n")) == (0, 1)


def test_what_found_no_place_is_tried_again_while_others_move(caller, provider, sweeper):
    answers = iter(["busy", "busy", "refreshed"])
    sweeper.results[a_connection(caller, provider, "crowded", due_in=-60).pk] = lambda: next(answers)
    a_connection(caller, provider, "other")
    document = summary()
    assert (document["refreshed"], document["busy"]) == (2, 0)
    assert names(sweeper) == ["crowded", "other", "crowded", "crowded"]


def test_a_host_that_is_spared_does_not_keep_the_others_from_their_turn(caller, provider, sweeper, monkeypatch):
    monkeypatch.setattr(refreshing, "AT_ONCE", 2)
    monkeypatch.setattr(choosing, "PAGE", 2)
    for number in range(4):
        sweeper.results[a_connection(caller, provider, f"spared-{number}", due_in=-60).pk] = "busy"
    a_connection(caller, provider, "other")
    document = summary()
    assert (document["refreshed"], document["busy"], document["not_reached"]) == (1, 4, 0)


@pytest.mark.django_db(transaction=True)
def test_a_database_that_goes_away_ends_it_with_what_is_known(provider, sweeper, monkeypatch):
    caller = Caller()
    for number in range(3):
        a_connection(caller, provider, f"c{number}")

    def leave() -> None:
        if len(sweeper.seen) == 2:
            raise OperationalError("away")

    sweeper.meanwhile = leave
    out = StringIO()
    with pytest.raises(CommandError):
        call_command("refresh_tokens", "--json", stdout=out, stderr=StringIO())
    assert json.loads(out.getvalue())["refreshed"] == 1
    assert sweeper.stopped == 1


# Stopping


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_after_what_is_in_flight_with_a_summary(caller, provider, sweeper, signum, status):
    for number in range(5):
        a_connection(caller, provider, f"c{number}")
    before = signal.getsignal(signum)

    def stop_at_the_second() -> None:
        if len(sweeper.seen) == 2:
            os.kill(os.getpid(), signum)

    sweeper.meanwhile = stop_at_the_second
    ended, printed = run("--json")
    document = json.loads(printed)
    assert ended == status
    assert (document["refreshed"], document["not_reached"], document["interrupted"]) == (2, 3, True)
    assert sweeper.stopped == 1
    assert signal.getsignal(signum) is before


def test_a_fault_of_the_sweep_leaves_no_thread_and_no_handler_behind(caller, provider, sweeper, monkeypatch):
    a_connection(caller, provider, "one")
    before = signal.getsignal(signal.SIGINT)

    def broken(ids: Any, **_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(sweeper, "refresh_these", broken)
    with pytest.raises(RuntimeError):
        run()
    assert sweeper.stopped == 1
    assert signal.getsignal(signal.SIGINT) is before


# With the real one


@pytest.mark.django_db(transaction=True)
def test_tokens_are_refreshed_and_stored(provider):
    caller = Caller()
    for number in range(5):
        a_connection(caller, provider, f"c{number}", due_in=3600)
    assert summary()["refreshed"] == 0
    status, printed = run("--all", "--json")
    assert (status, json.loads(printed)["refreshed"]) == (0, 5)
    assert set(Connection.objects.values_list("generation", "lease_owner")) == {(2, None)}


@pytest.mark.django_db(transaction=True)
def test_a_failure_is_counted_by_its_code_and_a_held_connection_left_alone(provider):
    caller = Caller()
    a_connection(caller, provider, "failing")
    held = a_connection(caller, provider, "held")
    lease = {"lease_owner": uuid.uuid4(), "lease_expires_at": Now() + timedelta(seconds=40)}
    Connection.objects.filter(pk=held.pk).update(**lease)
    provider.answer = Answer.error("invalid_client", status=401)
    status, printed = run("--json")
    document = json.loads(printed)
    assert status == 1
    assert (document["failed"], document["held"]) == ({"invalid_client": 1}, 1)


@pytest.mark.django_db(transaction=True)
def test_more_of_one_account_than_may_be_called_at_once_are_all_refreshed(provider, monkeypatch):
    monkeypatch.setattr(refresh_tokens, "Sweeper", lambda: Sweeper(slots=8))
    caller = Caller()
    for number in range(10):
        a_connection(caller, provider, f"c{number}")
    provider.delay = 0.05
    assert summary()["refreshed"] == 10
    assert provider.peak_in_flight <= 2


@pytest.mark.django_db(transaction=True)
def test_two_commands_at_once_refresh_each_connection_once(provider, http):
    caller = Caller()
    for number in range(6):
        age(consent(an_oauth2_secret(caller, a_client(provider), f"c{number}"), http), expires_in=60)
    provider.delay = 0.3
    ids = list(Connection.objects.values_list("pk", flat=True))
    said: list[str] = []

    def note(_: uuid.UUID, result: str) -> None:
        said.append(result)

    def command() -> None:
        # All of it but for the signals, which only a main thread can have.
        sweeper = Sweeper()
        try:
            refreshing.refresh_all(sweeper, iter(ids), note=note, should_stop=lambda: False)
        finally:
            sweeper.stop()

    all_at_once(command, command)
    assert sorted(said) == ["held"] * 6 + ["refreshed"] * 6
    assert provider.refreshes == 6
