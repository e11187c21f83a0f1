"""The circuit breaker as plain values: what opens it, for how long, and how it is probed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oauth_app import breaker
from oauth_app.breaker import WELL, Failure, Trouble, after_failure, after_limit, with_probe

NOW = 1_000_000.0


def failed(trouble: Trouble, *whose: tuple[str, str], at: float = NOW, clients: bool = True, **further) -> Trouble:
    """``trouble`` after a failure each of these clients and connections, a second apart."""
    for number, (client, connection) in enumerate(whose):
        trouble = after_failure(trouble, Failure(at + number, client, connection), counts_clients=clients, **further)
    return trouble


def opened_host() -> Trouble:
    return failed(WELL, *[(f"client-{n % 2}", f"connection-{n}") for n in range(breaker.FAILURES)])


def test_a_healthy_one_lets_everybody_call():
    assert (WELL.wait(NOW), WELL.is_open) == (0.0, False)


def test_failures_of_several_clients_open_a_hosts():
    trouble = failed(WELL, *[(f"client-{n % 2}", f"connection-{n}") for n in range(breaker.FAILURES - 1)])
    assert not trouble.is_open
    trouble = failed(trouble, ("client-0", "connection-9"), at=NOW + 5)
    assert trouble.is_open
    assert breaker.FIRST_PERIOD * 0.8 <= trouble.wait(NOW + 5) <= breaker.FIRST_PERIOD


def test_one_clients_failures_never_open_a_hosts():
    trouble = failed(WELL, *[("client", f"connection-{n}") for n in range(100)])
    assert not trouble.is_open
    assert len(trouble.failures) == breaker.MOST_REMEMBERED


def test_failures_of_several_connections_open_a_clients():
    whose = [("client", f"connection-{n % breaker.CONNECTIONS}") for n in range(breaker.FAILURES)]
    assert not failed(WELL, *whose[:-1], clients=False).is_open
    assert failed(WELL, *whose, clients=False).is_open


@pytest.mark.parametrize("broken", [1, 2])
def test_broken_connections_never_open_their_clients(broken):
    trouble = failed(WELL, *[("client", f"connection-{n % broken}") for n in range(100)], clients=False)
    assert not trouble.is_open


def test_failures_of_long_ago_do_not_count():
    trouble = failed(WELL, *[(f"client-{n % 2}", f"connection-{n}") for n in range(breaker.FAILURES - 1)])
    trouble = failed(trouble, ("client-0", "connection-9"), at=NOW + breaker.REMEMBERED + 10)
    assert not trouble.is_open
    assert len(trouble.failures) == 1


def test_what_was_sent_before_it_opened_tells_nothing_new():
    trouble = opened_host()
    assert failed(trouble, ("client-5", "connection-9"), at=NOW + 6) == trouble


def test_while_it_is_half_open_one_probe_is_made_at_a_time():
    trouble = opened_host()
    assert with_probe(trouble, NOW + 5) is None
    after = trouble.blocked_until + 1
    probed = with_probe(trouble, after)
    assert probed is not None
    assert with_probe(probed, after + 1) is None
    assert probed.wait(after + 1) == pytest.approx(breaker.PROBE - 1)
    # One whose process died does not keep it half-open for ever.
    assert with_probe(probed, after + breaker.PROBE) is not None


def test_each_probe_that_fails_doubles_the_period_to_five_minutes():
    trouble, periods = opened_host(), []
    for _ in range(8):
        at = trouble.blocked_until + 1
        trouble = failed(with_probe(trouble, at) or trouble, ("client-0", "connection-0"), at=at)
        periods.append(trouble.wait(at))
        assert trouble.probe_until == 0
    expected = [30, 60, 120, 240, 300, 300, 300, 300]
    assert all(0.8 * most <= period <= most for period, most in zip(periods, expected, strict=True))


def test_a_retry_after_of_a_failure_is_a_minimum():
    whose = [(f"client-{n % 2}", f"connection-{n}") for n in range(breaker.FAILURES)]
    assert failed(WELL, *whose, retry_after=120).wait(NOW + 4) == 120
    assert failed(WELL, *whose, retry_after=1).wait(NOW + 4) >= 0.8 * breaker.FIRST_PERIOD


@pytest.mark.parametrize("seconds", [1, 60, 86_400])
def test_a_limit_pauses_a_client_for_as_long_as_the_provider_says(seconds):
    trouble = after_limit(WELL, NOW, retry_after=seconds)
    assert trouble.wait(NOW) == seconds
    assert trouble.is_open


def test_a_limit_without_a_time_pauses_for_a_period():
    assert 0.8 * breaker.FIRST_PERIOD <= after_limit(WELL, NOW, retry_after=None).wait(NOW) <= breaker.FIRST_PERIOD


def test_a_limit_that_ends_at_once_still_lets_one_caller_try_first():
    trouble = after_limit(WELL, NOW, retry_after=0)
    probed = with_probe(trouble, NOW)
    assert probed is not None
    assert with_probe(probed, NOW) is None


def test_many_calls_that_meet_the_limit_together_pause_as_one():
    trouble = after_limit(WELL, NOW, retry_after=2)
    for _ in range(100):
        trouble = after_limit(trouble, NOW + 0.5, retry_after=2)
    assert trouble.wait(NOW + 0.5) == 2
    # The next period without a time is the second, not the hundredth.
    assert after_limit(trouble, NOW + 5, retry_after=None).wait(NOW + 5) <= 2 * breaker.FIRST_PERIOD


def test_a_shorter_limit_does_not_shorten_a_longer_one():
    trouble = after_limit(after_limit(WELL, NOW, retry_after=60), NOW, retry_after=5)
    assert trouble.wait(NOW) == 60


def test_it_is_over_when_its_failures_are_too_old_to_count_or_nobody_has_anything_to_call():
    counting = failed(WELL, ("client", "connection"))
    assert not counting.is_over(NOW + breaker.REMEMBERED - 1)
    assert counting.is_over(NOW + breaker.REMEMBERED)
    assert not opened_host().is_over(NOW + breaker.REMEMBERED)
    assert opened_host().is_over(NOW + breaker.UNUSED + 60)
    assert not after_limit(WELL, NOW, retry_after=86_400).is_over(NOW + 86_399)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["failure", "limit", "probe"]),
            st.integers(0, 3),
            st.integers(0, 30),
            st.one_of(st.none(), st.integers(0, 600)),
        ),
        max_size=60,
    ),
    st.booleans(),
)
def test_whatever_happens_it_stays_small_and_is_read_back_as_it_was(events, is_host):
    trouble, now = WELL, NOW
    for kind, who, passed, retry_after in events:
        now += passed
        before = trouble
        if kind == "failure":
            failure = Failure(now, f"client-{who}", f"connection-{who}")
            trouble = after_failure(trouble, failure, counts_clients=is_host, retry_after=retry_after)
        elif kind == "limit":
            trouble = after_limit(trouble, now, retry_after=retry_after)
        else:
            probed = with_probe(trouble, now)
            assert (probed is None) == (trouble.wait(now) > 0)
            trouble = probed or trouble
        assert breaker.read(trouble.to_json()) == trouble
        assert len(trouble.failures) <= breaker.MOST_REMEMBERED
        assert trouble.wait(now) <= max(breaker.LONGEST_PERIOD, before.wait(now), retry_after or 0)
        # A pause that was promised is never shortened.
        assert trouble.blocked_until >= before.blocked_until


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "null",
        "[]",
        "{}",
        json.dumps({"failures": 5, "opened": 1, "blocked_until": 1, "probe_until": 1}),
        json.dumps({"failures": [["soon", "c", "c"]], "opened": 1, "blocked_until": 1, "probe_until": 1}),
        json.dumps({"failures": [], "opened": "often", "blocked_until": 1, "probe_until": 1}),
        json.dumps({"failures": [], "opened": 1, "blocked_until": [], "probe_until": 1}),
    ],
)
def test_what_cannot_be_read_is_no_trouble(text):
    assert breaker.read(text) == WELL


def test_an_open_one_survives_being_written_with_its_probe():
    trouble = replace(opened_host(), probe_until=NOW + 0.123456789)
    assert breaker.read(trouble.to_json()) == trouble
