"""Who may have how many of a sweep's call slots: shares of hosts and accounts, and what is passed over meanwhile.

A claim is ordered by deadline alone. What is due and may not be called now is passed over, and put off before it gathers at the
front of that order, so that the outage of one host, or the burst of one account, delays nobody else.
"""

from __future__ import annotations

import math
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from oauth_app.claim import Avoid, put_off
from oauth_app.hosts import Callee, hosts
from oauth_app.recovery import avoided

# No account holds more of a worker's call slots than this share.
ACCOUNT_SHARE = 4
# Who holds all that it may gets nothing more until it is down to this share of that: claims for one call each cost too much.
READMITTED = 0.75
# Seconds after its host's breaker, or its client's pause, over which what was put off comes back.
SPREAD_AFTER_TROUBLE = 30.0
# Seconds for which what finds no place is put off, each row a random part: at first, and at most.
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
# Seconds between two looks at the front of the queue.
CLEARING = 1.0
# So many rows that were put off at once are a crowd.
CROWD = 200
# Seconds for which a host that others have filled is not asked for another place.
REFUSED = 0.1
# Waits are told apart in steps of so many seconds: each needs a statement.
STEP = 5.0
_MOST_NAMES = 200


@dataclass(frozen=True, slots=True)
class Refused:
    """A claimed connection that is not called: due again after so many seconds, and up to ``spread`` more."""

    seconds: float = 0.0
    spread: float = 0.0


class Queueing:
    """The shares of one sweeper. Used by the thread that claims, and by no other."""

    def __init__(self, slots: int) -> None:
        self._account_share = max(1, slots // ACCOUNT_SHARE)
        self._full_hosts: set[str] = set()
        # The hosts that others have filled, and until when they are not asked.
        self._refused: dict[str, float] = {}
        self._full_accounts: set[uuid.UUID] = set()
        self._blocked: dict[str, float] = {}
        # Of those who are or were full, where it is not the first.
        self._delays: dict[object, float] = {}
        # Who was full when the front was last looked at.
        self._full_before: set[object] = set()
        self._cleared_at = float("-inf")

    @property
    def is_crowded(self) -> bool:
        """Whether somebody is passed over only because of the calls that it has under way."""
        return bool(self._full_hosts or self._full_accounts)

    def avoid(self, by_account: Mapping[uuid.UUID, int]) -> Avoid:
        """What the next claim passes over; ``by_account`` is how many calls each account has under way here."""
        gate, now = hosts(), time.monotonic()
        gate.sync()
        self._blocked = dict(list(gate.blocked().items())[:_MOST_NAMES])
        self._refused = {host: until for host, until in self._refused.items() if until > now}
        self._full_hosts = {host for host in self._full_hosts if gate.calls(host) > gate.cap * READMITTED}
        self._full_hosts |= {*gate.full(), *self._refused}
        lowest = self._account_share * READMITTED
        # A copy: calls end while this goes through them.
        under_way = dict(by_account)
        self._full_accounts = {account for account in self._full_accounts if under_way.get(account, 0) > lowest}
        self._full_accounts |= {account for account, calls in under_way.items() if calls >= self._account_share}
        blocked = avoided(self._blocked)
        return replace(blocked, hosts={*blocked.hosts, *self._full_hosts}, accounts=set(self._full_accounts))

    def places(self, wanted: Mapping[str, int]) -> Counter[str]:
        """Places at the token hosts for the calls to be made; what is left is for ``give_back``."""
        gate, until = hosts(), time.monotonic() + REFUSED
        places = Counter(gate.enter(wanted))
        refused = [host for host, number in wanted.items() if places[host] < number]
        self._full_hosts.update(refused)
        # Where the calls are from here their ends are seen.
        self._refused |= {host: until for host in refused if gate.calls(host) <= gate.cap * READMITTED}
        return places

    def refusal(
        self, account: uuid.UUID, callee: Callee, places: Counter[str], by_account: Mapping[uuid.UUID, int]
    ) -> Refused | None:
        """Why a call may not be made now; ``None``: it may, and has taken one of ``places``."""
        if by_account.get(account, 0) >= self._account_share:
            self._full_accounts.add(account)
            return Refused(spread=self._delay(account))
        if not places[callee.host]:
            return Refused(spread=self._delay(callee.host))
        if blocked := hosts().ask(callee):
            return Refused(math.ceil(blocked.seconds / STEP) * STEP, SPREAD_AFTER_TROUBLE)
        places[callee.host] -= 1
        return None

    def give_back(self, places: Mapping[str, int]) -> None:
        """Give back the places that no call took."""
        for host, left in places.items():
            if left:
                hosts().leave(host, left)

    def clear_front(self) -> None:
        """Put off what is due and passed over, about once a second: of those who are full, where that lasts."""
        if time.monotonic() - self._cleared_at < CLEARING:
            return
        for keys in _alike(self._blocked):
            put_off(avoided(keys), seconds=min(self._blocked[key] for key in keys), spread=SPREAD_AFTER_TROUBLE)
        full: dict[object, Avoid] = {host: Avoid(hosts=frozenset([host])) for host in self._full_hosts}
        full |= {account: Avoid(accounts=frozenset([account])) for account in self._full_accounts}
        # Most are full for a moment only, and their rows are next.
        moved = {who: put_off(full[who], spread=self._delay(who)) for who in full.keys() & self._full_before}
        delays = {who: self._delay_after(who, moved.get(who, 0)) for who in {*full, *self._delays}}
        self._delays = {who: delay for who, delay in delays.items() if delay > FIRST_DELAY}
        self._full_before = set(full)
        self._cleared_at = time.monotonic()

    def _delay(self, who: object) -> float:
        return self._delays.get(who, FIRST_DELAY)

    def _delay_after(self, who: object, moved: int) -> float:
        """Rows come back later the more of them there are: each time one is put off costs as much as a claim."""
        factor = 2.0 if moved > CROWD else 0.5
        return min(LONGEST_DELAY, max(FIRST_DELAY, self._delay(who) * factor))


def _alike(blocked: Mapping[str, float]) -> Iterable[list[str]]:
    """The keys by how long they are to wait, within a factor of two: a statement for each would take seconds."""
    alike: dict[int, list[str]] = defaultdict(list)
    for key, seconds in blocked.items():
        alike[int(seconds).bit_length()].append(key)
    return alike.values()
