"""The five presets against providers of their shape: from the consent to the revocation, with all that goes wrong in between.

The knobs are the presets'; only the addresses are the fake provider's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from oauth_app.claim import claim_due
from oauth_app.clients import registrations_of
from oauth_app.fake_provider import Answer, Drop, FakeProvider
from oauth_app.fake_provider.shapes import SHAPES
from oauth_app.models import Connection, RevocationJob
from oauth_app.providers import PROVIDERS
from oauth_app.refresh import refresh
from oauth_app.revocation import revoke_due
from tests.factories import Caller, a_preset_client, age, an_oauth2_secret, consent

Status = Connection.Status


@dataclass
class Story:
    """A connection at a provider of the shape ``name``."""

    name: str
    provider: FakeProvider
    caller: Caller
    connection: Connection

    def now(self) -> Connection:
        return Connection.objects.get(pk=self.connection.pk)

    def refreshed(self) -> Connection:
        """Make it due and refresh it, as a worker does."""
        Connection.objects.filter(pk=self.connection.pk).update(refresh_due_at=Now() - timedelta(seconds=1))
        (claimed,) = claim_due(5)
        refresh(claimed, registrations_of([claimed.secret_id])[claimed.secret_id])
        return self.now()

    def ran_out(self) -> Connection:
        """The same at the end of its token."""
        age(self.connection, expires_in=-1)
        return self.refreshed()

    def shown(self) -> dict[str, Any]:
        data: dict[str, Any] = self.caller.get(f"/v1/secrets/{self.connection.secret_id}/oauth2").json()["data"]
        return data


def shaped(name: str) -> FakeProvider:
    return FakeProvider(**SHAPES[name].switches)


def begun(name: str, provider: FakeProvider, http: Any, caller: Caller | None = None, **given: Any) -> Story:
    caller = caller or Caller()
    client = a_preset_client(name, provider, **given)
    return Story(name, provider, caller, consent(an_oauth2_secret(caller, client, name), http))


@pytest.fixture
def story(request: pytest.FixtureRequest, db: None, http: Any) -> Iterator[Story]:
    with shaped(request.param) as provider:
        yield begun(request.param, provider, http)


at_each = pytest.mark.parametrize("story", SHAPES, indirect=True)


def opened(sealed: Any) -> str:
    return str(sealed.open().reveal())


# Seconds that a token lives, the type, whether a refresh brings a new refresh token, and whether the tokens before it live on.
LIVES = {
    "google": (3599, "Bearer", False, True),
    "github": (28_800, "Bearer", True, False),
    "salesforce": (3600, "Bearer", True, True),
    "microsoft": (3599, "Bearer", True, True),
    "slack": (43_200, "bot", True, True),
}


@at_each
def test_a_consent_and_two_refreshes(story):
    lifetime, token_type, rotates, lives_on = LIVES[story.name]
    first = story.connection
    for row in (first, second := story.refreshed(), third := story.refreshed()):
        assert row.status == Status.CONNECTED
        assert (row.expires_at - row.issued_at).total_seconds() == lifetime
        assert row.token_type == token_type
    assert [row.generation for row in (first, second, third)] == [1, 2, 3]
    assert len({opened(row.refresh_token) for row in (first, second, third)}) == (3 if rotates else 1)
    assert [story.provider.is_live(opened(row.access_token)) for row in (first, second, third)] == [
        lives_on,
        lives_on,
        True,
    ]
    assert third.rotates is rotates
    assert story.provider.reuses == 0


@at_each
def test_what_was_granted_does_not_differ_from_what_was_asked(story):
    story.refreshed()
    shown = story.shown()
    assert shown["attention"] == []
    assert set(shown["scopes_granted"]) >= set(shown["scopes_requested"]) - {"offline_access"}


@at_each
def test_requests_are_as_the_provider_wants_them(story):
    story.refreshed()
    exchange, renewal = story.provider.requests
    assert ("code_verifier" in exchange.form) == (story.name != "slack")
    assert ("scope" in renewal.form) == (story.name == "microsoft")
    method = "basic" if story.name == "slack" else "post"
    assert (exchange.auth_method, renewal.auth_method) == (method, method)
    assert renewal.accept == "application/json"


@pytest.mark.parametrize(
    ("story", "connected_as", "facts"),
    [
        ("google", "fake-user@example.com", set()),
        ("github", "", set()),
        ("salesforce", "{base_url}/id/00D000000000001EAA/005000000000001AAA", {"instance_url", "id"}),
        ("microsoft", "fake-user@example.com", set()),
        ("slack", "Rehearsal", {"team", "app_id", "bot_user_id"}),
    ],
    indirect=["story"],
)
def test_whose_account_it_is_outlives_refreshes(story, connected_as, facts):
    after = story.refreshed()
    assert after.connected_as == connected_as.replace("{base_url}", story.provider.base_url)
    assert set(after.facts) == facts


DEAD = {
    "google": "invalid_grant",
    "github": "bad_refresh_token",
    "salesforce": "invalid_grant",
    "microsoft": "invalid_grant",
    "slack": "invalid_refresh_token",
}


@at_each
def test_a_dead_grant_asks_a_person_at_once(story):
    story.provider.revoke_grants()
    after = story.refreshed()
    assert (after.status, after.failure_code) == (Status.REAUTHORIZATION_REQUIRED, DEAD[story.name])
    assert (after.refresh_token, after.refresh_due_at) == (None, None)


@at_each
def test_refused_credentials_cost_nothing_and_are_said(story):
    before, known = story.now(), story.provider.client_secret
    story.provider.client_secret = "changed there"
    refused = story.refreshed()
    assert (refused.status, refused.failure_reason) == (Status.REFRESH_FAILING, "provider_rejected")
    assert opened(refused.refresh_token) == opened(before.refresh_token)
    assert refused.outcome_unknown_at is None
    story.provider.client_secret = known
    assert story.refreshed().status == Status.CONNECTED


# What a refresh that was cut off ends with, where it took effect, and where it did not.
WAITS, GOES_ON, ENDED = "waits", Status.CONNECTED, Status.REAUTHORIZATION_REQUIRED


@pytest.mark.parametrize("takes_effect", [True, False], ids=["consumed", "not consumed"])
@pytest.mark.parametrize(
    ("story", "at_once", "at_the_end"),
    [
        ("google", (GOES_ON, GOES_ON), None),
        ("github", (ENDED, GOES_ON), None),
        ("salesforce", (WAITS, WAITS), (ENDED, ENDED)),
        ("microsoft", (GOES_ON, GOES_ON), None),
        ("slack", (WAITS, WAITS), (ENDED, GOES_ON)),
    ],
    indirect=["story"],
)
def test_an_answer_that_never_came_is_resolved_as_the_preset_says(story, takes_effect, at_once, at_the_end):
    story.provider.next(Answer.dropped(Drop.CLOSED, takes_effect=takes_effect))
    unknown = story.refreshed()
    assert (unknown.status, unknown.failure_code) == (Status.REFRESH_FAILING, "no_answer")
    assert unknown.outcome_unknown_at is not None
    sent = story.provider.count("refresh_token")
    if at_the_end is None:
        assert story.refreshed().status == at_once[not takes_effect]
        assert story.provider.count("refresh_token") == sent + 1
        return
    waiting = story.refreshed()
    assert waiting.refresh_due_at == waiting.expires_at
    assert story.provider.count("refresh_token") == sent
    assert story.ran_out().status == at_the_end[not takes_effect]
    assert story.provider.count("refresh_token") == sent + (story.name == "slack")


def test_slacks_user_token_is_renewed_like_the_bots(db, http):
    with shaped("slack") as provider:
        story = begun("slack", provider, http, scopes=[], authorize_params={"user_scope": "search:read,users:read"})
        first, second = story.connection, story.refreshed()
        assert first.token_type == "user"
        assert first.granted_scopes == ["search:read", "users:read"]
        assert (second.status, second.generation) == (Status.CONNECTED, 2)
        assert opened(second.refresh_token) != opened(first.refresh_token)


def test_a_microsoft_app_without_offline_access_is_connected_for_now(db, http):
    with shaped("microsoft") as provider:
        row = begun("microsoft", provider, http, scopes=["openid", "User.Read"]).connection
        assert (row.status, row.refresh_token) == (Status.CONNECTED, None)
        assert row.refresh_due_at == row.expires_at


PATHS = {
    "google": "/revoke",
    "github": "/applications/fake-client/token",
    "salesforce": "/revoke",
    "slack": "/api/auth.revoke",
}
Outcome = RevocationJob.Outcome
# How often the provider was told, in which way, and what the history says. With Google one token ends the grant.
REVOKED = {
    "google": (["token_only"], Outcome.REVOKED),
    "github": (["github"], Outcome.REVOKED),
    "salesforce": (["token_only", "token_only"], Outcome.REVOKED),
    "microsoft": ([], Outcome.NOT_SUPPORTED),
    "slack": (["bearer"], Outcome.REVOKED),
}


@pytest.mark.django_db(transaction=True)
def test_what_is_disconnected_is_revoked_in_the_providers_way(http, monkeypatch):
    caller = Caller()
    providers = {name: shaped(name).start() for name in SHAPES}
    try:
        found = {}
        for name, provider in providers.items():
            if name in PATHS:
                preset = PROVIDERS[name]
                revocation = replace(preset.revocation, url=provider.base_url + PATHS[name])
                monkeypatch.setitem(PROVIDERS, name, replace(preset, revocation=revocation))
            story = begun(name, provider, http, caller)
            token = opened(story.connection.access_token)
            assert caller.post(f"/v1/secrets/{story.connection.secret_id}/oauth2/disconnect", {}).status_code == 200
            found[name] = (story, token)
        revoke_due()
        for name, (story, token) in found.items():
            told, outcome = REVOKED[name]
            job = RevocationJob.objects.get(secret_id=story.connection.secret_id)
            assert (name, job.outcome, job.document) == (name, outcome, None)
            assert [entry["style"] for entry in story.provider.revocations] == told
            assert story.now().access_token is None
            assert story.provider.is_live(token) == (not told)
    finally:
        for provider in providers.values():
            provider.stop()
