"""The background refresh: claim what is due, call in a pool of threads of its own, as often as somebody says so.

A round claims no more than there are free call slots, so that whatever is claimed goes on the wire at once. Threads only call;
one thread claims, and one stores (``oauth_app.storing``). Beat asks for a sweep once a second; a worker that has heard nothing
for five seconds sweeps by itself.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from django.db import Error, connections

from knoxcall.waiting import release_connection
from oauth_app import outage
from oauth_app.breaker import Verdict
from oauth_app.claim import claim_due, claim_these, give_back_doubtful, hand_back_all
from oauth_app.clients import callee_of, registrations_of
from oauth_app.hosts import hosts
from oauth_app.models import ClientRegistration, Connection, GrantType
from oauth_app.outcome import Outcome, unsent_outcome
from oauth_app.queueing import Queueing, Refused
from oauth_app.recovery import make_recovered_due
from oauth_app.refresh import attempt, tell_host
from oauth_app.storing import storer

logger = logging.getLogger(__name__)

CALL_SLOTS = 192
SILENCE = 5.0
# Seconds to wait for a quarter of the slots to be free, so that one claim serves several calls.
GATHERING = 0.02
# Seconds to wait for a host or an account that holds all it may: nothing else is due.
CROWDED = 0.05
# A tick goes on while there is work, so that a busy minute is not served in steps of one pool a second.
LONGEST_TICK = 5.0
# Seconds that the statements of a claim may take: that long a lock is waited for.
LONGEST_CLAIM = 15.0

# Told of each connection what became of it: `refreshed`, `held`, `busy`, `postponed`, `failed:CODE`, `ended:CODE` or `fault`.
OnDone = Callable[[uuid.UUID, str], None]


@dataclass(frozen=True, slots=True)
class _Job:
    """A claimed connection on its way to a call."""

    connection: Connection
    registration: ClientRegistration
    host: str | None
    """The token host at which it holds a place; ``None``: nothing will be called."""
    on_done: OnDone | None


class Sweeper:
    """Refreshes due connections in one process. ``tick`` may be called by anybody at any time; one runs at a time."""

    def __init__(self, slots: int = CALL_SLOTS) -> None:
        self._slots = slots
        self._pool = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="refresh")
        self._ticking = threading.Lock()
        self._changed = threading.Condition()
        self._in_flight = 0
        self._by_account: Counter[uuid.UUID] = Counter()
        self._stopping = threading.Event()
        self._asked = threading.Event()
        self._queueing = Queueing(slots)
        self._storer = storer()

    # When.

    def wake(self) -> None:
        """Ask for a sweep."""
        self._asked.set()

    def run(self) -> None:
        """Sweep whenever somebody asks, and every five seconds if nobody does, until stopped."""
        is_silent = False
        while not self._stopping.is_set():
            if self._asked.wait(SILENCE):
                is_silent = False
            elif not is_silent and not self._stopping.is_set():
                is_silent = True
                logger.info("nobody asked for a sweep in %.0f s; sweeping without being asked", SILENCE)
            self._asked.clear()
            try:
                while not self._stopping.is_set() and self.tick():
                    pass
            except outage.AWAY as err:
                outage.notice(err)
            except Exception:
                logger.exception("a fault of ours in the sweep")
            finally:
                connections.close_all()

    def tick(self) -> int:
        """Claim and send what is due; returns how many. Returns 0 at once where another tick is running."""
        if not self._ticking.acquire(blocking=False):
            return 0
        try:
            outage.tell_return()
            give_back_doubtful()
            self._storer.adopt_spool()
            make_recovered_due()
            return self._sweep()
        finally:
            self._ticking.release()

    def ask_to_stop(self) -> None:
        """Claim nothing more. Only sets a flag: it is called by signal handlers."""
        self._stopping.set()

    def stop(self) -> None:
        """Claim nothing more, wait for the calls in flight, each of which has a deadline, and for their answers to be stored."""
        self._stopping.set()
        self._asked.set()
        with self._changed:
            self._changed.notify_all()
        # A tick under way gives back what it has claimed and will not send: were the process to end before, that would count as
        # sent. It notices the stop within a statement or two; one that hangs in a silent database is not waited for.
        is_over = self._ticking.acquire(timeout=LONGEST_CLAIM)
        self._pool.shutdown(wait=True)
        self._storer.drain()
        hosts().tell()
        if is_over:
            self._ticking.release()

    # What.

    def _sweep(self) -> int:
        swept = 0
        deadline = time.monotonic() + LONGEST_TICK
        while not self._stopping.is_set() and (left := deadline - time.monotonic()) > 0:
            free = self._wait_for_slots(left)
            if self._storer.is_holding():
                break
            if not free:
                # What waits to be stored comes first.
                self._wait_for_landing(CROWDED)
                continue
            avoid = self._queueing.avoid(self._by_account)
            claimed = claim_due(free, avoid)
            swept += self._send(claimed)
            self._queueing.clear_front()
            if len(claimed) < free:
                if not self._queueing.is_crowded:
                    break
                self._wait_for_landing(CROWDED)
        return swept

    def refresh_these(
        self,
        ids: Iterable[uuid.UUID],
        *,
        on_done: OnDone,
        should_stop: Callable[[], bool] = lambda: False,
        only_due: bool = False,
    ) -> None:
        """Refresh connections, due or ``only_due`` ones, and tell ``on_done`` what became of each, from whatever thread.

        ``ids`` are read as places become free. Returns when all are done, or when ``should_stop`` says so and those in flight
        have ended. What somebody else holds, or has ended, is `held`; where the host takes no more calls now it is `busy`, and
        given back as it was.
        """
        waiting, batch = iter(ids), [uuid.UUID(int=0)]
        under_way = _Tally(on_done)
        while batch and not should_stop() and not self._stopping.is_set():
            free = self._wait_for_slots(1.0)
            if self._storer.is_holding() or not free:
                time.sleep(CROWDED)
                continue
            batch = list(islice(waiting, free))
            claimed = claim_these(batch, only_due=only_due)
            for pk in set(batch) - {connection.pk for connection in claimed}:
                on_done(pk, "held")
            under_way.add(len(claimed))
            self._send(claimed, on_done=under_way.done)
        under_way.wait()

    def _wait_for_slots(self, seconds: float) -> int:
        def at_least(free: int) -> bool:
            return self._slots - self._in_flight >= free or self._stopping.is_set()

        with self._changed:
            self._changed.wait_for(lambda: at_least(1), timeout=seconds)
            # Calls end in clusters: a claim for each would cost as much as the refreshes that it is for.
            self._changed.wait_for(lambda: at_least(max(1, self._slots // 4)), timeout=GATHERING)
            # Answers that wait to be stored take places, too: a slow database must not let them pile up.
            taken = self._in_flight + max(0, self._storer.waiting - self._slots // 4)
            return 0 if self._stopping.is_set() else max(0, self._slots - taken)

    def _wait_for_landing(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait(timeout=seconds)

    def _send(self, claimed: list[Connection], *, on_done: OnDone | None = None) -> int:
        """Send those of ``claimed`` that may be sent, and give back the others; returns how many were sent."""
        if not claimed:
            return 0
        try:
            registrations = registrations_of(connection.secret_id for connection in claimed)
        except Error:
            # Nothing was sent, and the rows must say so.
            self._give_back([(connection, Refused()) for connection in claimed], on_done)
            raise
        jobs: list[_Job] = []
        refused: list[tuple[Connection, Refused]] = []
        places = self._queueing.places(
            Counter(
                callee_of(registrations[connection.secret_id]).host
                for connection in claimed
                if connection.secret_id in registrations
                and _needs_call(connection, registrations[connection.secret_id])
            )
        )
        with self._changed:
            by_account = Counter(self._by_account)
        for connection in claimed:
            registration = registrations.get(connection.secret_id)
            if registration is None or self._stopping.is_set():
                # Deleted meanwhile, or told to stop: nothing was sent, and the row must say so.
                refused.append((connection, Refused()))
                continue
            host = registration.token_host if _needs_call(connection, registration) else None
            if host is not None:
                no = self._queueing.refusal(connection.account_id, callee_of(registration), places, by_account)
                if no is not None:
                    refused.append((connection, no))
                    continue
                by_account[connection.account_id] += 1
            jobs.append(_Job(connection, registration, host, on_done))
        self._queueing.give_back(places)
        # First, whatever becomes of the statement below: these hold places.
        for job in jobs:
            self._submit(job)
        self._give_back(refused, on_done)
        return len(jobs)

    def _give_back(self, refused: list[tuple[Connection, Refused]], on_done: OnDone | None) -> None:
        for reason in {no for _, no in refused}:
            rows = [connection for connection, no in refused if no == reason]
            # Whoever asked for these by name finds them as they were.
            wait = Refused() if on_done else reason
            try:
                hand_back_all(rows, seconds=wait.seconds, spread=wait.spread)
            except outage.AWAY as err:
                outage.notice(err)
                for connection in rows:
                    self._storer.submit(unsent_outcome(connection))
            for connection in rows:
                if on_done:
                    on_done(connection.pk, "busy")

    def _submit(self, job: _Job) -> None:
        with self._changed:
            self._in_flight += 1
            self._by_account[job.connection.account_id] += 1
        try:
            self._pool.submit(self._refresh, job)
        except RuntimeError:
            # The pool was shut down a moment ago.
            hosts().report(callee_of(job.registration), job.connection.pk, Verdict.SILENT)
            self._landed(job)
            self._give_back([(job.connection, Refused())], job.on_done)

    def _refresh(self, job: _Job) -> None:
        try:
            outcome = attempt(job.connection, job.registration)
            stored = self._storer.submit(outcome)
            tell_host(outcome, job.registration)
            if job.on_done is not None:
                stored.add_done_callback(_told(job, outcome))
        except Exception:
            logger.exception("connection %s: a fault of ours", job.connection.pk)
            if job.on_done is not None:
                job.on_done(job.connection.pk, "fault")
        finally:
            release_connection()
            self._landed(job)

    def _landed(self, job: _Job) -> None:
        if job.host is not None:
            hosts().leave(job.host)
        with self._changed:
            self._in_flight -= 1
            self._by_account[job.connection.account_id] -= 1
            if not self._by_account[job.connection.account_id]:
                del self._by_account[job.connection.account_id]
            self._changed.notify_all()


class _Tally:
    """Counts what is under way for one caller, and passes on what became of it."""

    def __init__(self, on_done: OnDone) -> None:
        self._on_done = on_done
        self._changed = threading.Condition()
        self._left = 0

    def add(self, number: int) -> None:
        with self._changed:
            self._left += number

    def done(self, pk: uuid.UUID, result: str) -> None:
        self._on_done(pk, result)
        with self._changed:
            self._left -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._left)


def _needs_call(connection: Connection, registration: ClientRegistration) -> bool:
    """Whether the provider may be called at all: what has no means to be renewed is only told so."""
    return connection.refresh_token is not None or GrantType(registration.grant_type).is_repeatable


def _told(job: _Job, outcome: Outcome) -> Callable[[Future[bool]], None]:
    def tell(stored: Future[bool]) -> None:
        assert job.on_done is not None
        job.on_done(outcome.connection_id, _result(outcome, is_stored=stored.result()))

    return tell


def _result(outcome: Outcome, *, is_stored: bool) -> str:
    if not is_stored:
        return "held"
    if outcome.is_token:
        return "refreshed"
    code = outcome.columns.get("failure_code")
    if code is None:
        return "postponed"
    is_over = outcome.columns["status"] == Connection.Status.REAUTHORIZATION_REQUIRED
    return f"{'ended' if is_over else 'failed'}:{code}"


_sweeper: Sweeper | None = None
_sweeper_lock = threading.Lock()


def sweeper() -> Sweeper:
    """The sweeper of this process."""
    global _sweeper
    with _sweeper_lock:
        if _sweeper is None:
            _sweeper = Sweeper()
        return _sweeper
