"""When to stop calling a provider that does not answer, and when to ask again: a circuit breaker, as plain values.

There is one for each token host, and one for each client at it. A host's breaker opens on failures of several clients, a client's
on failures of several of its connections: one that is broken by itself stops nobody else. Times are seconds on a clock that all
who share the value agree on; the clock is an argument.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

# Failures without an answer between them that open a breaker, and of how many different clients or connections.
FAILURES = 5
CLIENTS = 2
CONNECTIONS = 3
# Seconds after which a failure says nothing any more.
REMEMBERED = 120.0
MOST_REMEMBERED = 20
# Seconds after which a breaker that nobody probed is forgotten: nobody has anything to call there.
UNUSED = 3600.0
# Seconds that a breaker stays open: the first time, and at most. It doubles each time that the probe fails.
FIRST_PERIOD, LONGEST_PERIOD = 15.0, 300.0
# Seconds of a `Retry-After` that a host is left alone for, however many it names: others than its clients suffer from it.
LONGEST_REST = 3600.0
# Seconds that a probe may take: longer than a call.
PROBE = 25.0

_random: random.Random = random.SystemRandom()


class Verdict(StrEnum):
    """What a call says of the provider."""

    ANSWERED = "answered"
    """It answered, if only to refuse."""
    LIMITED = "limited"
    """It has had too many requests of this client (429)."""
    FAILED = "failed"
    """No connection, no answer in time, or a 5xx."""
    SILENT = "silent"
    """Nothing: the call was not made, for reasons of ours."""


class Failure(NamedTuple):
    """One failed call: when, and whose."""

    at: float
    client: str
    connection: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a host, or with a client at it. A healthy one has none."""

    failures: tuple[Failure, ...] = ()
    opened: int = 0
    """How many times it opened since it was last well."""
    blocked_until: float = 0.0
    probe_until: float = 0.0
    """While it is half-open: until when the one call that may be made is under way."""

    def wait(self, now: float) -> float:
        """Seconds in which no call may be made; 0 where one may, or may be tried as a probe."""
        return max(0.0, self.blocked_until - now, self.probe_until - now)

    @property
    def is_open(self) -> bool:
        """Whether calls are held back, or probed one at a time."""
        return self.opened > 0

    def is_over(self, now: float) -> bool:
        """Whether it says nothing any more."""
        newest = max([self.blocked_until, self.probe_until, *(failure.at for failure in self.failures)])
        return newest <= now - (UNUSED if self.is_open else REMEMBERED)

    def to_json(self) -> str:
        return json.dumps(asdict(self))


WELL = Trouble()


@lru_cache(maxsize=2_000)
def read(text: str) -> Trouble:
    """Read a trouble back. Anything else, which another release may have written, is none.

    All of them are read several times a second, and few have changed.
    """
    try:
        data = json.loads(text)
        failures = tuple(
            Failure(float(at), str(client), str(connection)) for at, client, connection in data["failures"]
        )
        return Trouble(failures, int(data["opened"]), float(data["blocked_until"]), float(data["probe_until"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return WELL


def after_failure(
    trouble: Trouble, failure: Failure, *, counts_clients: bool, retry_after: float | None = None
) -> Trouble:
    """``trouble`` after one more failed call; ``counts_clients`` for a host's, which needs several clients to fail."""
    now = failure.at
    if trouble.blocked_until > now:
        # It was sent before the breaker opened, and tells nothing new.
        return trouble
    recent = [known for known in trouble.failures if known.at > now - REMEMBERED]
    failures = (*recent, failure)[-MOST_REMEMBERED:]
    if counts_clients:
        is_enough = len({known.client for known in failures}) >= CLIENTS
    else:
        is_enough = len({known.connection for known in failures}) >= CONNECTIONS
    if trouble.is_open or (len(failures) >= FAILURES and is_enough):
        return _opened(replace(trouble, failures=failures), now, retry_after)
    return replace(trouble, failures=failures)


def after_limit(trouble: Trouble, now: float, *, retry_after: float | None) -> Trouble:
    """``trouble`` of a client after a 429: it pauses as long as the provider says, or for a period."""
    if trouble.blocked_until > now:
        # One of many that were sent before the first of them was answered: it opens nothing once more.
        return replace(trouble, blocked_until=max(trouble.blocked_until, now + (retry_after or 0.0)))
    return _opened(trouble, now, retry_after, is_exact=True)


def with_probe(trouble: Trouble, now: float) -> Trouble | None:
    """``trouble`` with a probe taken; ``None`` where none may be made now."""
    return None if trouble.wait(now) else replace(trouble, probe_until=now + PROBE)


def _opened(trouble: Trouble, now: float, retry_after: float | None, *, is_exact: bool = False) -> Trouble:
    if is_exact and retry_after is not None:
        period = retry_after
    else:
        longest = min(LONGEST_PERIOD, FIRST_PERIOD * 2 ** min(trouble.opened, 10))
        period = max(longest * _random.uniform(0.8, 1.0), min(LONGEST_REST, retry_after or 0.0))
    until = max(trouble.blocked_until, now + period)
    return replace(trouble, opened=trouble.opened + 1, blocked_until=until, probe_until=0.0)
