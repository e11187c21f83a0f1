"""The benchmarks, each in a tiny configuration: that they run, and count what they say. How fast it is, they judge alone."""

from __future__ import annotations

import contextlib
import json
import os
import time
from importlib import import_module
from typing import Any

import pytest
import requests

from benchmarks import __main__ as runner
from benchmarks import claiming as claims
from benchmarks import starting
from benchmarks.catalogue import BENCHMARKS
from benchmarks.figures import Figure, MeasurementFailed, figures_of, percentile
from benchmarks.provider import LightProvider
from benchmarks.report import Measured, Report
from benchmarks.scale import Scale
from tests.support.services import valkey
from tests.support.vaults import on_production_services

TINY = Scale(seconds=0.3, rows=50, latency_ms=10)


def measured(name: str) -> Any:
    result = import_module(f"benchmarks.{name}").measure(TINY)
    assert all(figure.value > 0 for figure in figures_of(result)), result
    return result


@pytest.mark.django_db(transaction=True)
def test_sealing():
    assert measured("sealing").value_bytes == 1000


@pytest.mark.django_db(transaction=True)
def test_statements_are_within_the_limits_of_the_design():
    counts = measured("statements")
    assert counts.per_fresh_read <= 2
    # At most one write for each, and their share of the claims.
    assert 0 < counts.per_refresh < 1.5


@pytest.mark.django_db(transaction=True)
def test_claiming_in_a_table_that_grows(monkeypatch):
    monkeypatch.setattr(claims, "SIZES", (20, 50))
    monkeypatch.setattr(claims, "SIZES_OF_SQLITE", (20, 50))
    claiming = measured("claiming")
    assert (claiming.small_table.rows, claiming.small_table.due) == (20, 20)
    assert (claiming.larger_table.rows, claiming.larger_table.due) == (50, 50)
    assert claiming.small_table.median_ms <= claiming.small_table.slowest_ms


@pytest.fixture
def services():
    """The environment of workers: the suite's services, or SQLite and a broker of their own."""
    if on_production_services():
        yield {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL")}
    else:
        with valkey() as broker:
            yield {"REDIS_URL": broker}


@pytest.mark.parametrize("name", ["sustained", "steady"])
def test_worker_processes_are_measured(name, services, tmp_path):
    figures = {figure.name: figure.value for figure in runner.measure_apart(name, TINY, services, tmp_path / name)}
    # What only PostgreSQL tells, SQLite does not.
    assert all(value is None or value >= 0 for value in figures.values()), figures
    if name == "sustained":
        assert figures["two_workers_refreshes"] > 0
    else:
        assert figures["p50_ms"] >= TINY.latency_ms
        assert figures["p50_ms"] <= figures["p99_ms"] <= figures["slowest_ms"]


def test_the_provider_gives_a_new_refresh_token_after_its_latency():
    with LightProvider(latency_ms=50, hosts=2) as provider, requests.Session() as http:
        http.trust_env = False
        tokens = []
        for url in provider.token_urls * 2:
            began = time.monotonic()
            answer = http.post(url, data={"grant_type": "refresh_token", "refresh_token": "r"})
            assert time.monotonic() - began >= 0.05
            tokens.append(answer.json()["refresh_token"])
        assert provider.answers() == len(set(tokens)) == 4


@pytest.mark.django_db(transaction=True)
def test_refreshing_is_never_faster_than_its_call_slots():
    refreshing = measured("refreshing")
    assert refreshing.seconds >= TINY.seconds
    assert refreshing.refreshes_per_second <= refreshing.ceiling_per_second


def test_starting(monkeypatch):
    """With houses that are up at once: real ones are started by the tests of the house."""
    monkeypatch.setattr(starting, "running_house", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(starting, "is_healthy", lambda port: True)
    result = starting.measure(TINY)
    assert result.starts == starting.MOST
    assert 0 < result.warm_s < TINY.seconds


def test_the_runner_measures_in_a_process_of_its_own(capsys):
    assert runner.main(["--only", "sealing", "--database", "sqlite", "--seconds", "0.1", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == "python -m benchmarks --only sealing --database sqlite --seconds 0.1 --json -"
    assert document["machine"]["processor"]
    (sealing,) = document["measured"]
    assert {"name": "seal_us", "label": "seal", "unit": "µs"}.items() <= sealing["figures"][1].items()


def test_a_measurement_that_fails_is_noted_and_the_rest_is_measured(capsys, monkeypatch):
    def measure_apart(name: str, *_: object) -> list[Figure]:
        if name == "reading":
            raise MeasurementFailed("answers by status: {500: 1}")
        return [Figure("a_figure", "a figure", "ms", 12.34)]

    monkeypatch.setattr(runner, "measure_apart", measure_apart)
    assert runner.main(["--database", "sqlite", "--markdown"]) == 1
    printed = capsys.readouterr()
    assert "reading on SQLite … failed: answers by status: {500: 1}" in printed.err
    on_sqlite = sum(len(benchmark.databases(["sqlite"])) for benchmark in BENCHMARKS.values())
    assert printed.out.count("| a figure, ms | 12.3 |") == on_sqlite - 1


def test_a_figure_that_a_database_lacks_is_left_empty():
    of_both, of_one = Figure("one", "one", "ms", 1234.5), Figure("two", "two", "", None)
    report = Report(
        "python -m benchmarks",
        {"Python": "3"},
        [Measured("x", "X", "sqlite", [of_both, of_one]), Measured("x", "X", "postgresql", [of_both])],
        [],
    )
    assert report.as_markdown().splitlines()[-2:] == ["| X | one, ms | 1,234 | 1,234 |", "|  | two | – |  |"]
    assert "X  one, ms   1,234       1,234" in report.as_text()


def test_a_percentile_is_a_value_that_was_measured():
    assert percentile([3.0, 1.0, 2.0, 4.0], 50) == 2.0
    assert percentile([3.0, 1.0, 2.0, 4.0], 99) == 4.0
    with pytest.raises(MeasurementFailed):
        percentile([], 50)
