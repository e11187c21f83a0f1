"""Calling a provider's token endpoint: one request through the outbound client, its answer read, every failure typed."""

from __future__ import annotations

from knoxcall import http
from knoxcall.context import seconds_left
from oauth_app.protocol.answers import TokenAnswer, read_answer
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import OutcomeUnknown, ProviderUnavailable
from oauth_app.protocol.requests import TokenRequest

# Seconds for a whole call. Shorter than the lease (45 s), so nobody else holds the connection while it lasts, and shorter
# than a request may take (25 s), so the reader who makes it can still be answered.
DEADLINE = 20.0


def fetch_token(client: OAuthClient, request: TokenRequest) -> TokenAnswer:
    """Post ``request``; raises a ``TokenRequestFailed``. No transaction and no database connection may be held here."""
    try:
        answer = http.send(
            "POST", request.url, headers=request.headers, body=request.body, deadline=seconds_left(DEADLINE)
        )
    except http.UrlRefused as err:
        raise ProviderUnavailable("address_refused", str(err)) from None
    except http.OutboundError as err:
        if err.sent:
            raise OutcomeUnknown("no_answer", f"The request was sent, and no readable answer came: {err}") from None
        code = "address_refused" if isinstance(err, http.AddressRefused) else "unreachable"
        raise ProviderUnavailable(code, f"The provider could not be reached: {err}") from None
    return read_answer(client, status=answer.status, headers=answer.headers, body=answer.body)
