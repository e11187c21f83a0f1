"""Token hosts as several processes know them: two `Hosts` on one real Valkey are two processes."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knoxcall.house import find_broker
from oauth_app import breaker, sharing
from oauth_app import hosts as hosts_module
from oauth_app.breaker import Verdict
from oauth_app.hosts import Blocked, Callee, Hosts
from tests.support.crowd import all_at_once
from tests.support.services import valkey
from tests.support.stoppable import Stoppable, stoppable_valkey

HOST, OTHER = "token.example:443", "other.example:443"
NOBODY = "redis://127.0.0.1:1/0"
PERIOD = 0.4


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    with valkey() as url:
        yield url


@pytest.fixture
def db(broker) -> Iterator[redis.Redis]:
    """What is shared, with nothing in it yet."""
    with redis.Redis.from_url(broker, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def two(broker, db) -> tuple[Hosts, Hosts]:
    return Hosts(broker, cap=10), Hosts(broker, cap=10)


@pytest.fixture(params=["shared", "by itself"])
def one(request) -> Hosts:
    """One process, with a Valkey and without."""
    if request.param == "by itself":
        return Hosts(NOBODY, cap=10)
    request.getfixturevalue("db")
    return Hosts(request.getfixturevalue("broker"), cap=10)


@pytest.fixture
def quick(monkeypatch) -> None:
    """Breakers that open for less than half a second."""
    monkeypatch.setattr(breaker, "FIRST_PERIOD", PERIOD)


def hear(*processes: Hosts) -> None:
    """Let what each process has to tell be told, and then be heard by all."""
    for process in (*processes, *processes):
        time.sleep(max(0.0, process._synced_at + hosts_module.SYNC - time.monotonic()))
        process.sync()


def wait_until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def client(name: str, host: str = HOST) -> Callee:
    return Callee(host, hashlib.sha256(name.encode()).hexdigest()[:32])


def fail(process: Hosts, count: int = breaker.FAILURES, *, clients: int = 2, host: str = HOST, **further: Any) -> None:
    """So many failures without an answer between them, of so many clients, each of another connection."""
    for number in range(count):
        process.report(client(f"c{number % clients}", host), uuid.uuid4(), Verdict.FAILED, **further)


def fail_client(process: Hosts, name: str, count: int = breaker.FAILURES, *, connections: int = 5) -> None:
    own = [uuid.uuid4() for _ in range(connections)]
    for number in range(count):
        process.report(client(name), own[number % connections], Verdict.FAILED)


def answer(process: Hosts, callee: Callee) -> None:
    process.report(callee, uuid.uuid4(), Verdict.ANSWERED)


def seconds_of(blocked: Blocked | None) -> float:
    assert blocked is not None
    assert not blocked.is_full
    return blocked.seconds


# How many calls.


def test_no_more_calls_are_under_way_at_a_host_than_there_may_be_from_all_together(two):
    web, worker = two
    assert worker.enter({HOST: 7}) == {HOST: 7}
    assert web.enter({HOST: 7}) == {HOST: 3}
    assert worker.enter({HOST: 1}) == web.enter({HOST: 1}) == {HOST: 0}
    assert (worker.calls(HOST), web.calls(HOST)) == (7, 3)


def test_hosts_are_counted_apart_and_in_one_question(two):
    one, other = two
    assert one.enter({HOST: 12, OTHER: 4}) == {HOST: 10, OTHER: 4}
    assert other.enter({HOST: 1, OTHER: 10}) == {HOST: 0, OTHER: 6}
    assert one.full() == [HOST]
    assert one.enter({}) == {}


def test_others_hear_of_a_place_that_was_given_back_although_nothing_else_happens_here(two):
    one, other = two
    one.enter({HOST: 10})
    assert other.enter({HOST: 1}) == {HOST: 0}
    one.leave(HOST, 4)
    wait_until(lambda: other.enter({HOST: 1})[HOST])
    assert other.enter({HOST: 10}) == {HOST: 3}


def test_others_hear_of_the_last_place_too(two, db):
    one, other = two
    one.enter({HOST: 10})
    for _ in range(10):
        one.leave(HOST)
    wait_until(lambda: other.enter({HOST: 10})[HOST] == 10)
    assert one.calls(HOST) == 0


def test_the_places_of_a_dead_process_run_out(two, monkeypatch):
    monkeypatch.setattr(hosts_module, "FORGOTTEN", 0.5)
    dead, living = two
    dead.enter({HOST: 10})
    assert living.enter({HOST: 1}) == {HOST: 0}
    time.sleep(0.6)
    assert living.enter({HOST: 10}) == {HOST: 10}


def test_the_places_of_a_living_process_do_not_run_out(two, monkeypatch):
    monkeypatch.setattr(hosts_module, "FORGOTTEN", 0.6)
    worker, web = two
    worker.enter({HOST: 10})
    for _ in range(4):
        hear(worker)
    assert web.enter({HOST: 1}) == {HOST: 0}


def test_threads_of_one_process_that_enter_at_once_do_not_get_more_than_there_is(one):
    granted = all_at_once(*[lambda: one.enter({HOST: 2})[HOST]] * 12)
    assert sum(granted) == 10
    assert one.calls(HOST) == 10


def test_threads_of_two_processes_that_enter_at_once_do_not_get_more_than_there_is(two):
    granted = all_at_once(*[lambda hosts=hosts: hosts.enter({HOST: 2})[HOST] for hosts in two for _ in range(8)])
    assert sum(granted) == 10


_Step = tuple[str, int, str, int]
_steps: st.SearchStrategy[list[_Step]] = st.lists(
    st.tuples(
        st.sampled_from(["enter", "enter", "leave", "leave", "tell", "fail", "answer"]),
        st.integers(0, 1),
        st.sampled_from([HOST, OTHER]),
        st.integers(1, 6),
    ),
    max_size=40,
)


@given(_steps)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_places_are_never_lost_and_never_given_twice(broker, db, steps):
    db.flushall()
    two = Hosts(broker, cap=8), Hosts(broker, cap=8)
    hosts = [HOST, OTHER]
    held = [dict.fromkeys(hosts, 0), dict.fromkeys(hosts, 0)]
    # What others believe, at most: it may be told sooner.
    told = [dict.fromkeys(hosts, 0), dict.fromkeys(hosts, 0)]
    for kind, who, host, number in steps:
        process, others = two[who], told[1 - who][host]
        if kind == "enter":
            got = process.enter({host: number})[host]
            assert min(number, 8 - others - held[who][host]) <= got <= number
            held[who][host] += got
            told[who][host] = held[who][host]
            assert held[0][host] + held[1][host] <= 8
        elif kind == "leave" and held[who][host]:
            number = min(number, held[who][host])
            process.leave(host, number)
            held[who][host] -= number
        elif kind == "tell":
            process._exchange()
            told[who] = dict(held[who])
        elif kind == "fail":
            process.report(client(str(number), host), uuid.uuid4(), Verdict.FAILED)
        elif kind == "answer":
            process.report(client(str(number), host), uuid.uuid4(), Verdict.ANSWERED)
        assert process.calls(host) == held[who][host]
    for who, process in enumerate(two):
        for host in hosts:
            process.leave(host, held[who][host])
        process._exchange()
    assert Hosts(broker, cap=8).enter({HOST: 8, OTHER: 8}) == {HOST: 8, OTHER: 8}


# Whether it is asked at all.


def test_a_healthy_host_may_be_called(one):
    assert one.ask(client("a")) is None
    answer(one, client("a"))
    assert one.blocked() == {}
    assert one.take_recovered() == []


def test_the_breaker_of_a_host_opens_for_everybody(two):
    worker, web = two
    # Neither has seen enough by itself.
    fail(worker, 3)
    assert worker.ask(client("a")) is None
    fail(web, 2)
    assert 0 < seconds_of(web.ask(client("somebody"))) <= breaker.FIRST_PERIOD
    hear(worker)
    assert 0 < seconds_of(worker.ask(client("somebody else"))) <= breaker.FIRST_PERIOD
    assert list(worker.blocked()) == list(web.blocked()) == [f"h {HOST}"]


def test_one_hosts_breaker_stops_no_call_to_another(one):
    fail(one)
    assert one.ask(client("c0")) is not None
    assert one.ask(client("c0", OTHER)) is None
    assert one.enter({OTHER: 10}) == {OTHER: 10}


def test_one_clients_failures_never_stop_the_others_at_a_shared_host(one):
    fail_client(one, "bad", 200, connections=50)
    assert one.ask(client("bad")) is not None
    assert one.ask(client("good")) is None
    assert list(one.blocked()) == [f"c {client('bad').client}"]


@pytest.mark.parametrize("broken", [1, 2])
def test_a_broken_connection_never_stops_the_others_of_its_client(one, broken):
    fail_client(one, "a", 200, connections=broken)
    assert one.ask(client("a")) is None
    assert one.blocked() == {}


def test_an_answer_between_failures_shows_that_the_host_is_there(two):
    worker, web = two
    fail(worker, 4)
    hear(worker, web)
    # In another process, of another client.
    answer(web, client("good"))
    fail(web, 4)
    assert web.ask(client("a")) is None


def test_while_a_host_is_away_that_is_not_counted_against_its_clients(one, quick):
    fail(one, 60, clients=4)
    assert list(one.blocked()) == [f"h {HOST}"]
    time.sleep(PERIOD)
    assert one.ask(client("c0")) is None
    answer(one, client("c0"))
    # Nobody has to be probed by itself now.
    assert [one.ask(client(f"c{number}")) for number in (0, 1, 1, 2, 3, 3)] == [None] * 6


@pytest.mark.parametrize("seconds", [1, 120])
def test_a_429_stops_its_client_for_as_long_as_the_provider_says_and_nobody_else(two, seconds):
    worker, web = two
    worker.report(client("a"), uuid.uuid4(), Verdict.LIMITED, retry_after=seconds)
    hear(worker, web)
    for process in two:
        assert seconds - 1 < seconds_of(process.ask(client("a"))) <= seconds
        assert process.ask(client("b")) is None
        assert process.ask(client("a", OTHER)) is not None


def test_a_429_is_an_answer_of_its_host(one):
    fail(one, 4)
    one.report(client("a"), uuid.uuid4(), Verdict.LIMITED)
    fail(one, 4)
    assert one.ask(client("b")) is None


def test_an_answer_to_what_was_sent_before_a_429_does_not_end_the_pause(one):
    one.report(client("a"), uuid.uuid4(), Verdict.LIMITED, retry_after=30)
    answer(one, client("a"))
    assert seconds_of(one.ask(client("a"))) > 29
    assert one.take_recovered() == []


def test_after_a_pause_one_call_is_made_and_then_all(one):
    one.report(client("a"), uuid.uuid4(), Verdict.LIMITED, retry_after=PERIOD)
    time.sleep(PERIOD)
    assert one.ask(client("a")) is None
    assert one.ask(client("a")) is not None
    answer(one, client("a"))
    assert [one.ask(client("a")) for _ in range(3)] == [None] * 3
    assert one.take_recovered() == [f"c {client('a').client}"]
    assert one.take_recovered() == []


def test_a_retry_after_of_failures_is_honoured(two):
    worker, web = two
    fail(worker, retry_after=200)
    hear(worker, web)
    assert 195 < seconds_of(web.ask(client("a"))) <= 200


def test_a_process_that_has_only_just_begun_goes_by_the_same_clock(two):
    worker, _ = two
    # It has never looked at what others know.
    worker.report(client("a"), uuid.uuid4(), Verdict.LIMITED, retry_after=2)
    assert seconds_of(worker.ask(client("a"))) <= 2


# The probe.


def test_a_half_open_host_is_probed_by_one_caller_of_all_processes(two, quick):
    fail(two[0])
    hear(*two)
    time.sleep(PERIOD)
    answers = all_at_once(*[lambda hosts=hosts: hosts.ask(client("a")) for hosts in two for _ in range(8)])
    assert answers.count(None) == 1
    assert all(answer is None or answer.seconds > 0 for answer in answers)


def test_threads_of_a_process_that_is_by_itself_make_one_probe_too(quick):
    alone = Hosts(NOBODY, cap=10)
    fail(alone)
    time.sleep(PERIOD)
    assert all_at_once(*[lambda: alone.ask(client("a"))] * 16).count(None) == 1


def test_a_probe_that_is_answered_lets_everybody_call_again(two, quick):
    worker, web = two
    fail(worker)
    hear(worker, web)
    time.sleep(PERIOD)
    assert web.ask(client("a")) is None
    answer(web, client("a"))
    assert [web.ask(client("b")) for _ in range(3)] == [None] * 3
    hear(worker)
    assert [worker.ask(client("b")) for _ in range(3)] == [None] * 3
    # Whoever saw it makes its connections due, and nobody else.
    assert (web.take_recovered(), worker.take_recovered()) == ([f"h {HOST}"], [])


def test_a_probe_that_fails_closes_the_host_for_twice_as_long(one, quick):
    fail(one)
    time.sleep(PERIOD)
    assert one.ask(client("a")) is None
    one.report(client("a"), uuid.uuid4(), Verdict.FAILED)
    assert PERIOD < seconds_of(one.ask(client("a"))) <= 2 * PERIOD
    assert one.take_recovered() == []


def test_a_probe_that_was_not_made_is_given_back_at_once(one, quick):
    fail(one)
    time.sleep(PERIOD)
    for _ in range(3):
        assert one.ask(client("a")) is None
        assert one.ask(client("b")) is not None
        one.report(client("a"), uuid.uuid4(), Verdict.SILENT)


def test_a_client_that_pauses_does_not_take_its_hosts_probe(one, quick):
    fail(one)
    one.report(client("paused"), uuid.uuid4(), Verdict.LIMITED, retry_after=30)
    fail(one)
    time.sleep(PERIOD)
    assert one.ask(client("paused")) is not None
    assert one.ask(client("a")) is None


def test_whoever_may_not_probe_the_client_gives_the_hosts_probe_back(two, quick):
    worker, web = two
    worker.report(client("a"), uuid.uuid4(), Verdict.LIMITED, retry_after=PERIOD)
    fail(worker)
    hear(worker, web)
    time.sleep(PERIOD)
    # One process probes the client at another host; the other has not heard of that.
    assert worker.ask(client("a", OTHER)) is None
    assert web.ask(client("a")) is not None
    assert web.ask(client("b")) is None


def test_the_probe_of_a_process_that_died_runs_out(two, quick, monkeypatch):
    monkeypatch.setattr(breaker, "PROBE", 0.5)
    dead, living = two
    fail(dead)
    hear(dead, living)
    time.sleep(PERIOD)
    assert dead.ask(client("a")) is None
    assert living.ask(client("a")) is not None
    time.sleep(0.5)
    assert living.ask(client("a")) is None


def test_a_failure_that_says_nothing_of_the_provider_is_not_counted(one):
    for _ in range(50):
        one.report(client("a"), uuid.uuid4(), Verdict.SILENT)
        one.report(client("b"), uuid.uuid4(), Verdict.SILENT)
    assert one.ask(client("a")) is None


def test_the_log_says_when_a_host_is_not_called_and_when_it_answers_again(one, quick, caplog):
    caplog.set_level("INFO", logger="oauth_app.hosts")
    fail(one, 50)
    time.sleep(PERIOD)
    assert one.ask(client("a")) is None
    answer(one, client("a"))
    answer(one, client("a"))
    lines = [record.getMessage() for record in caplog.records if record.name == "oauth_app.hosts"]
    assert len(lines) == 2
    assert all(HOST in line for line in lines)


# What is kept.


def sizes(process: Hosts) -> int:
    return sum(len(part) for part in vars(process).values() if hasattr(part, "__len__"))


def test_nothing_is_kept_of_hosts_that_came_and_went(one, monkeypatch):
    monkeypatch.setattr(breaker, "REMEMBERED", 0.2)
    for number in range(200):
        host = f"host-{number}"
        one.enter({host: 11})
        one.enter({host: 1})
        one.leave(host, 10)
        one.report(client(host, host), uuid.uuid4(), Verdict.FAILED)
    time.sleep(0.3)
    hear(one)
    assert sizes(one) == 0


def test_nothing_stays_in_valkey(two, db, monkeypatch):
    monkeypatch.setattr(breaker, "REMEMBERED", 0.2)
    for process in two:
        process.enter({HOST: 3, OTHER: 3})
        fail(process, 2)
    keys = [key for key in db.scan_iter() if key != sharing.TROUBLES]
    assert len(keys) == 2
    assert all(0 < db.pttl(key) <= hosts_module.FORGOTTEN * 1000 for key in keys)
    for process in two:
        process.leave(HOST, 3)
        process.leave(OTHER, 3)
    time.sleep(0.3)
    hear(*two)
    assert db.keys() == []


def test_what_others_wrote_and_nobody_can_read_is_no_trouble(two, db):
    db.hset(sharing.TROUBLES, mapping={f"h {HOST}": "{", f"h {OTHER}": '{"of": "another release"}'})
    worker, web = two
    hear(worker, web)
    assert worker.ask(client("a")) is None
    fail(worker)
    hear(web)
    assert web.ask(client("a")) is not None


def test_a_question_that_valkey_refuses_leaves_each_process_by_itself(two, db):
    db.set(sharing.TROUBLES, "of another type")
    worker, _ = two
    fail(worker)
    assert worker.ask(client("a")) is not None
    assert worker.enter({HOST: 4}) == {HOST: 4}


def test_dropping_what_is_shared_drops_it_for_all(two):
    worker, web = two
    fail(worker)
    worker.forget_shared()
    hear(web)
    assert worker.ask(client("a")) is None
    assert web.ask(client("a")) is None


# While Valkey is away.


@pytest.fixture
def stoppable() -> Iterator[Stoppable]:
    with stoppable_valkey() as server:
        server.start()
        yield server


def lines_about_valkey(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "oauth_app.sharing"]


def test_without_valkey_each_process_keeps_the_limits_by_itself_and_says_so_once(caplog):
    one, other = Hosts(NOBODY, cap=10), Hosts(NOBODY, cap=10)
    assert one.enter({HOST: 12}) == other.enter({HOST: 12}) == {HOST: 10}
    fail(one)
    assert one.ask(client("a")) is not None
    assert other.ask(client("a")) is None
    all_at_once(*[lambda: (one.sync(), one.enter({OTHER: 1}), one.leave(OTHER))] * 8)
    assert len(lines_about_valkey(caplog)) == 2


def test_a_valkey_that_stops_and_comes_back_is_used_again(stoppable, caplog, monkeypatch):
    monkeypatch.setattr(sharing, "AWAY", 0.4)
    worker, web = Hosts(stoppable.url, cap=10), Hosts(stoppable.url, cap=10)
    worker.enter({HOST: 6})
    stoppable.stop(signal.SIGKILL)
    for process in (worker, web):
        hear(process)
    assert web.enter({HOST: 12}) == {HOST: 10}
    assert worker.enter({HOST: 12}) == {HOST: 4}
    fail(worker)
    assert worker.ask(client("a")) is not None
    assert web.ask(client("a")) is None
    stoppable.start()
    time.sleep(0.5)
    hear(worker, web)
    # It has forgotten everything, and was told anew of the calls under way and of the breaker.
    assert web.ask(client("a")) is not None
    newcomer = Hosts(stoppable.url, cap=10)
    assert newcomer.enter({HOST: 1, OTHER: 1}) == {HOST: 0, OTHER: 1}
    worker.leave(HOST, 10)
    web.leave(HOST, 8)
    hear(worker, web)
    assert newcomer.enter({HOST: 10}) == {HOST: 8}
    said = lines_about_valkey(caplog)
    assert [sum(word in line for line in said) for word in ("away", "back")] == [2, 2]


def test_a_valkey_that_is_away_is_not_asked_again_and_again(monkeypatch):
    process = Hosts(NOBODY, cap=10)
    asked: list[float] = []
    monkeypatch.setattr(process._valkey, "admit", lambda *_, **__: asked.append(time.monotonic()) or refuse())

    def refuse() -> None:
        raise redis.ConnectionError

    for _ in range(200):
        process.enter({HOST: 1})
        process.leave(HOST)
    assert len(asked) == 1


def test_a_valkey_that_hangs_holds_nobody_up_for_long(stoppable):
    process = Hosts(stoppable.url, cap=10)
    process.enter({HOST: 1})
    assert stoppable._running is not None
    stoppable._running.send_signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        granted = all_at_once(*[lambda: process.enter({HOST: 1})[HOST]] * 24)
        assert time.monotonic() - begun < 4 * sharing.PATIENCE
        assert sum(granted) == 9
    finally:
        stoppable._running.send_signal(signal.SIGCONT)


def test_a_socket_is_as_good_as_a_port(tmp_path):
    path = tmp_path / "v.sock"
    command = [find_broker(), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(path.exists)
        one, other = Hosts(f"unix://{path}", cap=10), Hosts(f"unix://{path}", cap=10)
        assert one.enter({HOST: 7}) == {HOST: 7}
        assert other.enter({HOST: 7}) == {HOST: 3}
    finally:
        running.terminate()
        running.wait(10)


def test_many_who_report_at_once_open_it_too(two):
    fail(two[0], 4, clients=1)
    hear(*two)

    def report(process: Hosts) -> None:
        process.report(client("other"), uuid.uuid4(), Verdict.FAILED)

    all_at_once(*[lambda process=process: report(process) for process in two for _ in range(16)])
    hear(*two)
    assert all(process.ask(client("a")) is not None for process in two)
