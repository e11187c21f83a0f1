"""The vault's books against the providers': which answers died with a process, and whether each ended as its policy says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from django.db.models import Q
from django.db.models.functions import Now

from oauth_app.models import Connection
from oauth_app.providers import ReplayPolicy
from tests.faults.population import Member, Population, Status, digest_of
from tests.faults.providers import GrantRecord, StrictProvider

# What must have happened by itself that long after it could.
GRACE = timedelta(minutes=1)
# A lease of 45 s, begun at most the 20 s of a call before its request was seen.
LEASE_LESS_CALL = 25.0


@dataclass
class Ledger:
    """What became of the answers of all grants, those that are over included."""

    died: Counter[ReplayPolicy] = field(default_factory=Counter)
    """Answers that a provider sent and that are stored nowhere, by policy."""
    ended: Counter[str] = field(default_factory=Counter)
    """Connections that wait for a person, by policy and failure code."""
    kept: Counter[ReplayPolicy] = field(default_factory=Counter)
    """Living grants whose stored refresh token is the provider's latest."""
    waiting: Counter[ReplayPolicy] = field(default_factory=Counter)
    """Unknown outcomes that wait for the end of a valid access token."""
    replays: int = 0
    """Consumed refresh tokens that were sent again under `one_try`, each after its access token had expired."""
    faults: list[str] = field(default_factory=list)

    def close_ended(self, ended: Iterable[Member], rows: dict[object, Connection]) -> None:
        """Enter grants that are over: nobody touches their rows but a person."""
        for provider, members in _by_provider(ended).items():
            grants = provider.grants()
            for member in members:
                self._enter_ended(member, rows[member.connection.pk], grants[member.first_refresh_token_sha256])

    def close(self, population: Population) -> None:
        """Enter every connection as it is. Nothing may be running."""
        rows = population.rows()
        for provider, members in _by_provider(population).items():
            grants = provider.grants()
            for member in members:
                row = rows[member.connection.pk]
                if member.is_repeatable:
                    self._expect(row, row.status == Status.CONNECTED, f"is {row.status}, and its grant can be repeated")
                    continue
                grant = grants[member.first_refresh_token_sha256]
                if row.status == Status.REAUTHORIZATION_REQUIRED:
                    self._enter_ended(member, row, grant)
                else:
                    self._enter_living(member, row, grant)
            own = [rows[member.connection.pk].generation for member in members if member.is_repeatable]
            self.died[members[0].policy] += provider.repeated_grants() - sum(own)

    def _enter_ended(self, member: Member, row: Connection, grant: GrantRecord) -> None:
        died = grant.refreshes - (row.generation - member.first_generation)
        self.died[member.policy] += died
        self.ended[f"{member.policy}: {row.failure_code}"] += 1
        assert row.failed_at is not None
        assert row.expires_at is not None
        replays = [replay.at for replay in grant.replays]
        self._expect(row, row.failed_at >= row.expires_at, "ended before its access token did")
        if member.policy is ReplayPolicy.NEVER:
            # Whether the request of a process that died got as far as the provider is what nobody knows.
            self._expect(row, died in (0, 1) and not replays, f"never: {died} answers died, replays {replays}")
            self._expect(row, row.failure_code == "refresh_outcome_unknown", f"ended with {row.failure_code}")
        else:
            self._expect(row, member.policy is ReplayPolicy.ONE_TRY, f"{member.policy}: ended, {row.failure_code}")
            self._expect(row, died == 1 and bool(replays), f"{died} answers died, replays {replays}")
            early = [at for at in replays if at < row.expires_at.timestamp()]
            self._expect(row, not early, "replayed while the access token was valid")
            # Once, unless the answer to that died too: then again when its lease has ended.
            pauses = [after - before for before, after in pairwise(replays)]
            self._expect(row, all(pause > LEASE_LESS_CALL for pause in pauses), f"replays with pauses of {pauses} s")
            self.replays += len(replays)
            self._expect(row, row.failure_code == "invalid_grant", f"ended with {row.failure_code}")

    def _enter_living(self, member: Member, row: Connection, grant: GrantRecord) -> None:
        died = grant.refreshes - (row.generation - member.first_generation)
        forgiven = sum(replay.is_forgiven for replay in grant.replays)
        if digest_of(row) == grant.latest_refresh_token_sha256:
            self.kept[member.policy] += 1
            self.died[member.policy] += forgiven
            self._expect(row, not grant.is_revoked, "its grant was revoked")
            self._expect(row, len(grant.replays) == forgiven, "a replay ended its grant")
            self._expect(row, member.policy is ReplayPolicy.SAFE or not forgiven, f"{member.policy}: replayed")
        elif row.outcome_unknown_at is not None and row.refresh_due_at is not None and died == 1:
            self.waiting[member.policy] += 1
            self.died[member.policy] += 1
            self._expect(row, not grant.replays, "replayed, and waits for the end of its access token")
            is_postponed = member.policy is not ReplayPolicy.SAFE and row.refresh_due_at == row.expires_at
            self._expect(row, is_postponed, f"{member.policy}: unknown, and due at {row.refresh_due_at}")
        else:
            self._expect(row, False, f"lost: {grant.refreshes} refreshes, {died} of them not stored; {row.status}")

    def _expect(self, row: Connection, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(f"connection {row.pk} ({row.secret.name}): {fault}")

    def report(self) -> list[str]:
        return [
            f"answers that died with their process: {_counts(self.died)}",
            f"replays under one_try after the access token's end: {self.replays}",
            f"connections that wait for a person: {_counts(self.ended)}",
            f"unknown outcomes that wait for the end of a valid token: {_counts(self.waiting)}",
            f"grants whose stored refresh token is the provider's latest: {_counts(self.kept)}",
            *(f"FAULT {fault}" for fault in self.faults[:20]),
        ]


def stuck(grace: timedelta = GRACE) -> list[str]:
    """Connections whose lease or due time ended longer than ``grace`` ago, and nothing came of it."""
    now = Now()
    left = Q(lease_expires_at__lt=now - grace)
    alive = Q(status__in=[Status.CONNECTED, Status.REFRESH_FAILING])
    is_free = Q(lease_expires_at=None) | Q(lease_expires_at__lt=now - grace)
    overdue = alive & is_free & Q(refresh_due_at__lt=now - grace)
    return [described(row) for row in Connection.objects.filter(left | overdue)]


def not_refreshed_since(moment: datetime) -> list[str]:
    """Connections that have no new token since then, or are not as they should be."""
    behind = Q(refreshed_at__lt=moment) | ~Q(status=Status.CONNECTED)
    return [described(row) for row in Connection.objects.filter(behind)]


def marked() -> list[str]:
    """Connections that somebody holds, or seems to."""
    return [described(row) for row in Connection.objects.filter(~Q(lease_owner=None) | ~Q(attempt_started_at=None))]


def described(row: Connection) -> str:
    """What the schedule knows of it."""
    return (
        f"{row.pk} {row.status} {row.failure_code}, generation {row.generation}: due {row.refresh_due_at}, token until "
        f"{row.expires_at}, lease until {row.lease_expires_at}, marked {row.attempt_started_at}, "
        f"unknown since {row.outcome_unknown_at}"
    )


def _by_provider(members: Iterable[Member]) -> dict[StrictProvider, list[Member]]:
    found: dict[StrictProvider, list[Member]] = {}
    for member in members:
        found.setdefault(member.provider, []).append(member)
    return found


def _counts(counter: Counter) -> str:
    return ", ".join(f"{key} {count}" for key, count in sorted(counter.items()) if count) or "none"
