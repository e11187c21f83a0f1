"""What workers of pytest-xdist own, they own alone."""

from __future__ import annotations

import pytest

from tests.support import workers


def all_workers(monkeypatch, count, own):
    monkeypatch.setattr(workers, "COUNT", count)
    for number in range(count):
        monkeypatch.setattr(workers, "NUMBER", number)
        yield list(own())


@pytest.mark.parametrize("own", [workers.own_redis_databases, workers.own_ports])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_no_two_workers_own_the_same(monkeypatch, count, own):
    owned = [one for each in all_workers(monkeypatch, count, own) for one in each]
    assert len(owned) == len(set(owned))


def test_every_worker_has_a_redis_database_for_vaults_too(monkeypatch):
    for count in (1, 8):
        assert all(len(each) >= 2 for each in all_workers(monkeypatch, count, workers.own_redis_databases))
    with pytest.raises(RuntimeError):
        list(all_workers(monkeypatch, 9, workers.own_redis_databases))


def test_the_database_of_a_redis_is_in_its_path():
    assert workers.with_redis_database("redis://:word@127.0.0.1:6379/0", 3) == "redis://:word@127.0.0.1:6379/3"
