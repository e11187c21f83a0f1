"""Reads of fresh tokens beside callers that wait for a provider that hangs: by the benchmark that measures them."""

from __future__ import annotations

from benchmarks.vaults import add_secret
from benchmarks.waiting import read_beside_callers
from tests.support.fake_provider_process import FakeProviderProcess


def test_fresh_tokens_are_read_beside_callers_that_wait(vault):
    with FakeProviderProcess() as hanging:
        beside = read_beside_callers(vault, hanging, add_secret(vault, hanging, "fresh beside"), 0.3)
    assert beside.waited >= beside.callers / 2
    assert beside.requests_per_second > 0
    assert 0 < beside.p50_ms <= beside.p99_ms
