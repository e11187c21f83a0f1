"""Calling a provider: one request through the outbound client, its answer read, every failure typed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from knoxcall import http
from knoxcall.clock import PeerDates
from knoxcall.context import seconds_left
from oauth_app.breaker import Verdict
from oauth_app.protocol.answers import TokenAnswer, read_answer
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import (
    WRONG_CREDENTIALS,
    ClientRefused,
    OutcomeUnknown,
    ProviderUnavailable,
    TokenRequestFailed,
)
from oauth_app.protocol.requests import TokenRequest

# Seconds for a whole call. Shorter than the lease (45 s), so nobody else holds the connection while it lasts, and shorter
# than a request may take (25 s), so the reader who makes it can still be answered.
DEADLINE = 20.0
# The codes of calls that no answer came to.
UNREACHABLE, NO_ANSWER = "unreachable", "no_answer"

# What the providers' clocks say of ours.
dates = PeerDates()


class _Request(Protocol):
    @property
    def url(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


def fetch_token(client: OAuthClient, build: Callable[[OAuthClient], TokenRequest]) -> TokenAnswer:
    """Send the token request that ``build`` makes for the client; raises a ``TokenRequestFailed``.

    A provider that does not know the client's new secret is asked again with the one that it replaced: it turned the request
    away before it looked at the grant (RFC 6749 §5.2, `invalid_client`), so nothing was used up. No transaction and no database
    connection may be held here.
    """
    ends_at = time.monotonic() + seconds_left(DEADLINE)
    try:
        return _fetch(client, build(client), ends_at)
    except ClientRefused as refusal:
        if client.previous_client_secret is None or refusal.code not in WRONG_CREDENTIALS:
            raise
        previous = replace(client, client_secret=client.previous_client_secret)
        try:
            return replace(_fetch(previous, build(previous), ends_at), used_previous_secret=True)
        except ClientRefused:
            # Neither is known there: what is wrong is the new one.
            raise refusal from None


def _fetch(client: OAuthClient, request: TokenRequest, ends_at: float) -> TokenAnswer:
    answer = send(client, "POST", request, deadline=ends_at - time.monotonic())
    dates.note(client.token_host, answer.headers.get("Date"))
    try:
        return read_answer(client, status=answer.status, headers=answer.headers, body=answer.body)
    except TokenRequestFailed as failure:
        failure.status = answer.status
        raise


def verdict_on(failure: TokenRequestFailed) -> Verdict:
    """What a failed call says of the provider, whatever it says of the connection."""
    if failure.status is None:
        return Verdict.FAILED if failure.code in (UNREACHABLE, NO_ANSWER) else Verdict.SILENT
    if failure.status == 429:
        return Verdict.LIMITED
    return Verdict.FAILED if failure.status >= 500 else Verdict.ANSWERED


def send(client: OAuthClient, method: str, request: _Request, *, deadline: float = DEADLINE) -> http.Answer:
    """Send ``request`` on behalf of ``client``, with its certificate; raises a ``TokenRequestFailed`` where no answer came."""
    try:
        return http.send(
            method,
            request.url,
            headers=request.headers,
            body=request.body,
            deadline=seconds_left(deadline),
            certificate=client.certificate,
        )
    except http.UrlRefused as err:
        raise ProviderUnavailable("address_refused", str(err)) from None
    except http.ClientCertificateRefused as err:
        raise ClientRefused("client_certificate_refused", str(err)) from None
    except http.ClientCertificateUnusable as err:
        raise ClientRefused("client_certificate_unusable", str(err)) from None
    except http.OutboundError as err:
        if err.sent:
            raise OutcomeUnknown(NO_ANSWER, f"The request was sent, and no readable answer came: {err}") from None
        code = "address_refused" if isinstance(err, http.AddressRefused) else UNREACHABLE
        raise ProviderUnavailable(code, f"The provider could not be reached: {err}") from None
