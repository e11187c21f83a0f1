"""Connections under steady load: most of them by authorization code, every replay policy at a provider of its own."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import requests

from oauth_app.fake_provider import Answer
from oauth_app.models import Connection
from oauth_app.providers import ReplayPolicy
from tests.factories import Caller, a_client, an_oauth2_secret, consent_by_link
from tests.faults.providers import StrictProvider

Status = Connection.Status


@dataclass
class Member:
    """One connection, and how its present grant began."""

    caller: Caller
    connection: Connection
    provider: StrictProvider
    policy: ReplayPolicy
    first_refresh_token_sha256: str = ""
    """Of the present grant; empty where the grant is one that can be repeated."""
    first_generation: int = 0

    @property
    def is_repeatable(self) -> bool:
        return not self.first_refresh_token_sha256

    def row(self) -> Connection:
        return Connection.objects.get(pk=self.connection.pk)


class Population:
    """Connections of several accounts: no account may take all slots of a worker."""

    def __init__(
        self,
        http: requests.Session,
        *,
        accounts: int = 8,
        lifetimes: tuple[int, int] = (20, 40),
        long_life: int | None = None,
    ) -> None:
        self.members: list[Member] = []
        self._http = http
        self._lifetimes, self._long_life = lifetimes, long_life
        self._callers = itertools.cycle([Caller() for _ in range(accounts)])

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members)

    def add(self, provider: StrictProvider, policy: ReplayPolicy, *, by_code: int, repeatable: int = 0) -> None:
        """Connect so many more at ``provider``, by authorization code and by client credentials."""
        for number in range(by_code + repeatable):
            is_long = self._long_life is not None and number % 4 == 3
            provider.set(expires_in=self._long_life if is_long else self.a_lifetime())
            is_by_code = number < by_code
            if not is_by_code:
                provider.next(Answer(delay=0), grant_type="client_credentials")
            grant_type = "authorization_code" if is_by_code else "client_credentials"
            client = a_client(provider, grant_type=grant_type, replay_policy=policy)
            caller = next(self._callers)
            connection = an_oauth2_secret(caller, client, f"secret-{len(self.members)}")
            self.members.append(Member(caller, connection, provider, policy))
            if is_by_code:
                self.reconnect(self.members[-1])

    def reconnect(self, member: Member) -> None:
        """Let a person consent, the first time or again; the provider answers at once."""
        member.provider.next(Answer(delay=0), grant_type="authorization_code")
        row = consent_by_link(member.caller, member.connection, self._http)
        digest = digest_of(row)
        assert digest is not None
        member.first_refresh_token_sha256, member.first_generation = digest, row.generation

    def a_lifetime(self) -> int:
        return random.randint(*self._lifetimes)

    def rows(self) -> dict[Any, Connection]:
        """The connections as they are now, by id."""
        return Connection.objects.in_bulk([member.connection.pk for member in self.members])

    def state(self) -> str:
        """How many are how, in a few words."""
        ended = len(self.ended())
        held = Connection.objects.exclude(lease_owner=None).count()
        return f"{len(self.members) - ended - held} at rest, {held} held, {ended} ended"

    def ended(self) -> list[Member]:
        """Those that wait for a person."""
        waiting = Connection.objects.filter(status=Status.REAUTHORIZATION_REQUIRED)
        ids = set(waiting.values_list("pk", flat=True))
        return [member for member in self.members if member.connection.pk in ids]


def digest_of(row: Connection) -> str | None:
    """The SHA-256 of the stored refresh token, as the providers tell it."""
    if row.refresh_token is None:
        return None
    return hashlib.sha256(row.refresh_token.open().reveal_bytes()).hexdigest()
