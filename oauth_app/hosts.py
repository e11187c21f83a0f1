"""Token hosts: how many calls may be under way at one, and whether it is asked at all; shared by all workers and the web.

What is shared lies in Valkey (``oauth_app.sharing``): counts of calls by process, and the breakers (``oauth_app.breaker``), of
which only hosts in trouble have one. While Valkey is away each process goes by what it sees itself.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from django.conf import settings

from oauth_app import breaker
from oauth_app.breaker import WELL, Failure, Trouble, Verdict
from oauth_app.sharing import Valkey

logger = logging.getLogger(__name__)

# Seconds between two looks at what others know, and after which a process that says nothing counts as dead.
SYNC, FORGOTTEN = 0.25, 30.0
_MOST_TRIES = 10

# From a trouble and the time to what becomes of it; `None`: there is none any more.
Transition = Callable[[Trouble, float], Trouble | None]


@dataclass(frozen=True, slots=True)
class Callee:
    """Whom a call goes to: the token host, and the client by its digest."""

    host: str
    client: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """No call may be made for so many seconds; ``is_full``: because too many are under way, and not for a trouble."""

    seconds: float
    is_full: bool = False


class Hosts:
    """What one process knows of the token hosts, and what it tells the others."""

    def __init__(self, url: str, *, cap: int) -> None:
        self._cap = cap
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        # The hosts at which others believe that calls are under way from here.
        self._told: set[str] = set()
        self._has_left = False
        self._telling: threading.Timer | None = None
        self._troubles: dict[str, Trouble] = {}
        self._recovered: set[str] = set()
        # The probes that calls from here hold: until when.
        self._probes: dict[str, float] = {}
        # The shared clock, as seconds to add to this process's own.
        self._offset = time.time() - time.monotonic()
        self._synced_at = float("-inf")
        self._valkey = Valkey(url)
        self._outages = 0

    # What may be called.

    def sync(self) -> None:
        """Look at what others know, and tell them how many calls are under way here, unless that was done a moment ago."""
        if time.monotonic() - self._synced_at >= SYNC:
            self._exchange()

    def tell(self) -> None:
        """The same at once: whoever ends tells that nothing is under way from here any more."""
        self._exchange()

    def blocked(self) -> dict[str, float]:
        """The seconds for which no call may be made, by `h HOST` and `c CLIENT`."""
        now = self._now()
        with self._lock:
            return {key: seconds for key, trouble in self._troubles.items() if (seconds := trouble.wait(now))}

    @property
    def cap(self) -> int:
        """Calls that may be under way at one host."""
        return self._cap

    def calls(self, host: str) -> int:
        """Calls that are under way at ``host`` from here."""
        return self._calls[host]

    def full(self) -> list[str]:
        """The hosts with as many calls under way from here as there may be anywhere."""
        with self._lock:
            return [host for host, calls in self._calls.items() if calls >= self._cap]

    def enter(self, wanted: Mapping[str, int]) -> dict[str, int]:
        """Take up to so many places at each host; returns how many it got. Each is given back by ``leave``."""

        def admitted() -> dict[str, int]:
            with self._lock:
                asked = {host: (self._calls[host], number) for host, number in wanted.items()}
            granted = self._valkey.admit(asked, cap=self._cap, seconds=FORGOTTEN)
            self._told |= {host for host, number in granted.items() if number}
            # Before the next thread asks: it must not be granted the same places.
            return self._with_places(granted)

        places = self._valkey.ask(admitted)
        return self._with_places(wanted) if places is None else places

    def leave(self, host: str, places: int = 1) -> None:
        """Give places back. Others hear of it within a moment."""
        with self._lock:
            self._calls[host] -= places
            if self._calls[host] <= 0:
                del self._calls[host]
            self._has_left = True
            if self._telling is None:
                self._telling = threading.Timer(SYNC, self._tell)
                self._telling.daemon = True
                self._telling.start()

    def ask(self, callee: Callee) -> Blocked | None:
        """Whether a call may be made now: ``None`` if so. Of a host that failed, one caller at a time may try.

        Whoever may, and then makes no call, reports it as ``Verdict.SILENT``: it may have been the one to try.
        """
        keys, now = _keys(callee), self._now()
        if wait := max(self._troubles.get(key, WELL).wait(now) for key in keys):
            return Blocked(wait)
        taken: list[str] = []
        for key in keys:
            if not self._troubles.get(key, WELL).is_open:
                continue
            before, after = self._change(key, _taking_probe)
            if after is None or not before.is_open:
                # It has recovered meanwhile.
                continue
            if after == before:
                # Somebody else was first.
                self._give_probes_back(taken)
                return Blocked(max(before.wait(self._now()), 0.5))
            taken.append(key)
            self._probes[key] = after.probe_until
        return None

    # What came of it.

    def report(
        self, callee: Callee, connection: uuid.UUID, verdict: Verdict, *, retry_after: float | None = None
    ) -> None:
        """Tell what a call says of the provider."""
        host, client = _keys(callee)
        match verdict:
            case Verdict.FAILED:
                failure = Failure(0.0, callee.client[:12], connection.hex[:12])
                # While the host does not answer, that says nothing of its clients.
                if not self._failed(host, failure, retry_after).is_open:
                    self._failed(client, failure, retry_after)
            case Verdict.LIMITED:
                self._answered(host)
                self._change(client, lambda trouble, now: breaker.after_limit(trouble, now, retry_after=retry_after))
            case Verdict.ANSWERED:
                self._answered(host)
                self._answered(client)
        self._give_probes_back((host, client))

    def take_recovered(self) -> list[str]:
        """The keys of what answers again since this was last asked, `h HOST` and `c CLIENT`."""
        with self._lock:
            recovered, self._recovered = self._recovered, set()
        return sorted(recovered)

    def forget_shared(self) -> None:
        """Drop every trouble that is known, for everybody."""
        self._troubles.clear()
        self._valkey.ask(self._valkey.drop_troubles)

    def _failed(self, key: str, failure: Failure, retry_after: float | None) -> Trouble:
        known = self._troubles.get(key, WELL)
        if known.blocked_until > self._now():
            # The call was sent before that, and tells nothing new.
            return known

        def failed(trouble: Trouble, now: float) -> Trouble:
            counts_clients, seen = key.startswith("h "), failure._replace(at=now)
            return breaker.after_failure(trouble, seen, counts_clients=counts_clients, retry_after=retry_after)

        return self._change(key, failed)[1] or WELL

    def _answered(self, key: str) -> None:
        if key not in self._troubles:
            return
        before, after = self._change(key, _after_answer if key.startswith("c ") else lambda trouble, now: None)
        if before.is_open and after is None:
            with self._lock:
                self._recovered.add(key)
            if key.startswith("h "):
                logger.warning("token host %s answers again", key[2:])

    def _give_probes_back(self, keys: Iterable[str]) -> None:
        """End the probes of ``keys`` that are held here, where what came of them did not."""
        for key in keys:
            until = self._probes.pop(key, None)
            if until is not None and self._troubles.get(key, WELL).probe_until == until:
                self._change(key, _without_probe(until))

    def _change(self, key: str, transition: Transition) -> tuple[Trouble, Trouble | None]:
        """Change what everybody knows of ``key``; returns it as it was and as it is. ``None`` is a healthy one."""

        def changed() -> tuple[Trouble, Trouble | None]:
            before, after = self._change_shared(key, transition)
            with self._lock:
                self._know(key, after)
            return before, after

        pair = self._valkey.ask(changed)
        if pair is None:
            with self._lock:
                before = self._troubles.get(key, WELL)
                pair = before, transition(before, self._now())
                self._know(key, pair[1])
        before, after = pair
        if after is not None and after.opened > before.opened and key.startswith("h "):
            seconds = after.wait(self._now())
            logger.warning("token host %s does not answer: no calls for %.0f s", key[2:], seconds)
        return before, after

    def _change_shared(self, key: str, transition: Transition) -> tuple[Trouble, Trouble | None]:
        for _ in range(_MOST_TRIES):
            now, text = self._valkey.trouble(key)
            before = breaker.read(text)
            after = transition(before, now)
            if after == before or (after is None and not text):
                return before, after
            if self._valkey.swap(key, text, "" if after is None or after == WELL else after.to_json()):
                return before, after
        # Everybody else changes it, too. One failure less, or a probe later, does no harm.
        return before, before

    def _know(self, key: str, trouble: Trouble | None) -> None:
        """Under the lock."""
        if trouble is None or trouble == WELL:
            self._troubles.pop(key, None)
        else:
            self._troubles[key] = trouble

    def _with_places(self, places: Mapping[str, int]) -> dict[str, int]:
        """Count as many of ``places`` as there may be from here."""
        with self._lock:
            got = {host: max(0, min(number, self._cap - self._calls[host])) for host, number in places.items()}
            self._calls.update({host: number for host, number in got.items() if number})
        return got

    def _tell(self) -> None:
        with self._lock:
            self._telling = None
            has_left = self._has_left
        if has_left:
            self._exchange()

    def _exchange(self) -> None:
        self._synced_at = time.monotonic()
        is_away = self._valkey.ask(self._tell_and_take_over) is None
        now = self._now()
        with self._lock:
            if is_away:
                self._troubles = {key: known for key, known in self._troubles.items() if not known.is_over(now)}
            self._probes = {key: until for key, until in self._probes.items() if until > now}

    def _tell_and_take_over(self) -> bool:
        with self._lock:
            calls = {host: (self._calls[host], 0) for host in {*self._told, *self._calls}}
            self._has_left = False
        self._valkey.admit(calls, cap=self._cap, seconds=FORGOTTEN)
        self._told = {host for host, (number, _) in calls.items() if number}
        now, texts = self._valkey.troubles()
        known: dict[str, Trouble] = {}
        for key, text in texts.items():
            trouble = breaker.read(text)
            if not trouble.is_over(now):
                known[key] = trouble
            else:
                self._valkey.swap(key, text, "")
        if self._outages != self._valkey.outages:
            # It may have been started anew, and know nothing. Breakers that opened meanwhile stay open.
            for key, trouble in list(self._troubles.items()):
                if trouble.is_open and key not in texts and self._valkey.swap(key, "", trouble.to_json()):
                    known[key] = trouble
            self._outages = self._valkey.outages
        with self._lock:
            self._offset = now - time.monotonic()
            self._troubles = known
        return True

    def _now(self) -> float:
        return time.monotonic() + self._offset


def _taking_probe(trouble: Trouble, now: float) -> Trouble:
    return (breaker.with_probe(trouble, now) if trouble.is_open else None) or trouble


def _without_probe(until: float) -> Transition:
    return lambda trouble, now: replace(trouble, probe_until=0.0) if trouble.probe_until == until else trouble


def _after_answer(trouble: Trouble, now: float) -> Trouble | None:
    """What an answer leaves of a client's pause: all of it while it lasts, for the call was sent before."""
    return trouble if trouble.blocked_until > now else None


def _keys(callee: Callee) -> tuple[str, str]:
    return f"h {callee.host}", f"c {callee.client}"


_hosts: Hosts | None = None
_hosts_lock = threading.Lock()


def hosts() -> Hosts:
    """The token hosts as this process knows them."""
    global _hosts
    with _hosts_lock:
        if _hosts is None:
            _hosts = Hosts(settings.REDIS_URL, cap=settings.KNOXCALL_HOST_CALLS)
        return _hosts


def forget(*, shared: bool = False) -> None:
    """Drop what this process knows, and with ``shared`` what all of them know; the next caller begins anew."""
    global _hosts
    with _hosts_lock:
        dropped, _hosts = _hosts, None
    if shared and dropped is not None:
        dropped.forget_shared()
