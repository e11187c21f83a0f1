"""What a failed call says of the provider: met at the wire, so that every kind of failure is what it is in real life."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from knoxcall import connections
from knoxcall.client_certificates import ClientCertificate
from oauth_app import calls
from oauth_app.breaker import Verdict
from oauth_app.calls import fetch_token, verdict_on
from oauth_app.fake_provider import Answer, Drop
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import (
    ClientRefused,
    GrantDead,
    OutcomeUnknown,
    ProviderUnavailable,
    TokenRequestFailed,
)
from oauth_app.protocol.requests import grant_request
from tests.factories import a_client
from tests.support.tls import Peer, ok, server_context


@pytest.fixture
def client(provider) -> OAuthClient:
    return a_client(provider, grant_type="client_credentials")


def failure_of(client: OAuthClient) -> TokenRequestFailed:
    with pytest.raises(TokenRequestFailed) as caught:
        fetch_token(client, grant_request)
    return caught.value


def at(url: str, **further: Any) -> OAuthClient:
    return OAuthClient(
        provider="custom",
        grant_type="client_credentials",
        client_id="client",
        client_secret="secret",
        auth_url=url,
        token_url=url,
        **further,
    )


ANSWERED = {
    "a dead grant": Answer.error("invalid_grant"),
    "a refused client": Answer.error("invalid_client", status=401),
    "an unknown error": Answer.error("out_of_tea"),
    "slow_down with a 400": Answer.error("slow_down"),
    "forbidden": Answer.empty(403),
    "not found": Answer.html(404),
    "gone for a moment, with a 4xx": Answer.empty(408),
    "an error of Slack's": Answer.ok_false("token_revoked"),
    "a 200 with an error of its own": Answer.ok_false("fatal_error"),
    "a page instead of a token": Answer.html(200),
    "nothing with a 200": Answer.empty(200),
    "a token of the wrong kind": Answer.json({"access_token": 5}),
    "a redirect": Answer(status=302, body=b"", headers={"Location": "https://elsewhere.example/"}),
}
FAILED = {
    "busy": Answer.busy(503),
    "busy for a stated time": Answer.busy(503, retry_after=60),
    "an error in JSON with a 500": Answer.error("server_error", status=500),
    "turned away with a 503": Answer.error("temporarily_unavailable", status=503),
    "even a dead grant, with a 500": Answer.error("invalid_grant", status=500),
    "a bad gateway": Answer.html(502),
    "a gateway's time-out": Answer.html(504),
    "over its capacity": Answer.empty(529),
    "a connection that is reset": Answer.dropped(Drop.RESET),
    "a connection that is closed": Answer.dropped(Drop.CLOSED),
    "half an answer": Answer.dropped(Drop.MID_ANSWER),
    "an answer that is too large": Answer(body=b"x" * 2_000_000),
}
LIMITED = {
    "a limit": Answer.busy(429),
    "a limit for a stated time": Answer.busy(429, retry_after=60),
    "a limit in JSON": Answer.error("rate_limited", status=429),
    "a limit that looks like a dead grant": Answer.error("invalid_grant", status=429),
}


@pytest.mark.parametrize("kind", ANSWERED)
def test_whatever_is_answered_shows_that_the_provider_is_there(client, provider, kind):
    provider.answer = ANSWERED[kind]
    assert verdict_on(failure_of(client)) is Verdict.ANSWERED


@pytest.mark.parametrize("kind", FAILED)
def test_a_5xx_and_an_answer_that_does_not_come_are_failures_of_the_provider(client, provider, kind):
    provider.answer = FAILED[kind]
    assert verdict_on(failure_of(client)) is Verdict.FAILED


@pytest.mark.parametrize("kind", LIMITED)
def test_a_429_is_a_limit_of_the_clients(client, provider, kind):
    provider.answer = LIMITED[kind]
    assert verdict_on(failure_of(client)) is Verdict.LIMITED


def test_a_time_out_is_a_failure(client, provider, monkeypatch):
    monkeypatch.setattr(calls, "DEADLINE", 0.2)
    provider.answer = Answer.hang()
    failure = failure_of(client)
    assert isinstance(failure, OutcomeUnknown)
    assert verdict_on(failure) is Verdict.FAILED


def test_a_provider_that_cannot_be_reached_has_failed(client, provider):
    provider.stop()
    failure = failure_of(client)
    assert isinstance(failure, ProviderUnavailable)
    assert verdict_on(failure) is Verdict.FAILED


def test_a_handshake_that_fails_is_a_failure():
    with Peer(ok()).listening() as peer:
        assert verdict_on(failure_of(at(f"https://127.0.0.1:{peer.port}/token"))) is Verdict.FAILED


@pytest.mark.parametrize(
    "url",
    ["http://provider.example/token", "https://10.0.0.1/token", "https://[fe80::1]/token", "ftp://127.0.0.1/token"],
)
def test_an_address_that_the_vault_does_not_call_says_nothing_of_a_provider(url):
    assert verdict_on(failure_of(at(url))) is Verdict.SILENT


@pytest.fixture
def demanding(settings, tmp_path, monkeypatch) -> Iterator[Peer]:
    """A peer that wants a certificate of an authority that nobody has one of."""
    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    settings.KNOXCALL_OUTBOUND_CA_BUNDLE = str(bundle)
    pool = connections.Pool()
    monkeypatch.setattr(connections, "_pool", pool)
    with Peer(ok(), tls=server_context(authority, "127.0.0.1", clients=trustme.CA())).listening() as peer:
        yield peer
    pool.close_idle()


@pytest.mark.parametrize("kind", ["refused", "unusable"])
def test_what_is_wrong_with_our_certificate_says_nothing_of_the_provider(demanding, kind):
    leaf = trustme.CA().issue_cert("vault.example")
    key = leaf.private_key_pem.bytes() if kind == "refused" else b"no key"
    certificate = ClientCertificate(owner="one", chain=leaf.cert_chain_pems[0].bytes(), private_key=key)
    failure = failure_of(at(f"https://127.0.0.1:{demanding.port}/token", certificate=certificate))
    assert isinstance(failure, ClientRefused)
    assert failure.code == f"client_certificate_{kind}"
    assert verdict_on(failure) is Verdict.SILENT


@pytest.mark.parametrize("kind", [GrantDead, ClientRefused, ProviderUnavailable, OutcomeUnknown])
@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.ANSWERED),
        (400, Verdict.ANSWERED),
        (401, Verdict.ANSWERED),
        (429, Verdict.LIMITED),
        (499, Verdict.ANSWERED),
        (500, Verdict.FAILED),
        (599, Verdict.FAILED),
    ],
)
def test_the_status_decides_whatever_it_means_for_the_connection(kind, status, verdict):
    failure = kind("some_code", "Some message.")
    failure.status = status
    assert verdict_on(failure) is verdict


@pytest.mark.parametrize("kind", [GrantDead, ClientRefused, ProviderUnavailable, OutcomeUnknown])
@pytest.mark.parametrize("code", ["seal_broken", "not_stored", "address_refused"])
def test_what_never_reached_a_provider_says_nothing_of_it(kind, code):
    assert verdict_on(kind(code, "Some message.")) is Verdict.SILENT
