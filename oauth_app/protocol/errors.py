"""How a token request can fail, sorted by what it means for the refresh token and for what to do next."""

from __future__ import annotations

import re
from typing import ClassVar

# Permanent: the grant itself is gone. A person must consent again (RFC 6749 §5.2; providers' own words).
DEAD_GRANT = frozenset(
    {
        "invalid_grant",
        "bad_refresh_token",
        "invalid_refresh_token",
        "token_revoked",
        "account_inactive",
        "interaction_required",
        "bad_verification_code",
        "unverified_user_email",
    }
)
# Permanent until somebody changes the configuration: the provider refuses us as a client.
CLIENT_REFUSED = frozenset(
    {
        "invalid_client",
        "unauthorized_client",
        "invalid_scope",
        "unsupported_grant_type",
        "incorrect_client_credentials",
        "invalid_client_id",
        "bad_client_secret",
        "redirect_uri_mismatch",
    }
)
# The ones that say that the provider does not know the client secret: it looked at nothing else. The last is Auth0's, and means
# this with a 401 only, as which alone it is a refusal of the client (`answers`).
WRONG_CREDENTIALS = frozenset({"invalid_client", "incorrect_client_credentials", "bad_client_secret", "access_denied"})
# Said with a 200: something went wrong at the provider, after it had begun (Slack's own words for it).
BROKE_OFF = frozenset({"fatal_error", "internal_error", "server_error"})
# Said by the provider itself with a 5xx: it did not look at the request. Any other 5xx may have consumed the refresh token,
# whatever its body says: gateways write `error` into JSON too.
TURNED_AWAY = frozenset({"temporarily_unavailable", "slow_down", "rate_limited", "rate_limit_exceeded"})


class TokenRequestFailed(Exception):
    """A token request brought no token. ``code`` is a provider's error code or ours; ``message`` is our words only.

    ``consumed`` says whether the refresh token may have been used up. ``reason`` is that of the contract's `token_error`.
    """

    consumed: ClassVar[bool] = False
    retryable: ClassVar[bool] = True
    reason: ClassVar[str] = "provider_unavailable"

    def __init__(self, code: str, message: str, *, retry_after: int | None = None) -> None:
        self.code = code
        self.message = message
        self.retry_after = retry_after
        # Of the answer that said so; None where none came.
        self.status: int | None = None
        super().__init__(f"{code}: {message}")


class GrantDead(TokenRequestFailed):
    """The provider says that the grant is over."""

    retryable = False
    reason = "reauthorization_required"


class ClientRefused(TokenRequestFailed):
    """The provider refuses our client credentials or what we ask for."""

    retryable = False
    reason = "provider_rejected"


class ProviderUnavailable(TokenRequestFailed):
    """Nothing was consumed: the request did not arrive, or was turned away before it was looked at."""


class OutcomeUnknown(TokenRequestFailed):
    """The request was sent and no readable answer came: the refresh token may be consumed."""

    consumed = True


def plain_code(code: object) -> str:
    """A provider's error code as far as it can be shown: lower-case words. Anything else could hold anything.

    What follows a colon is left out: some put the description there.
    """
    if not isinstance(code, str):
        return "unrecognised_error"
    code = code.partition(":")[0]
    if len(code) <= 64 and re.fullmatch(r"[a-z]{2,20}(?:_[a-z]{1,20}){0,4}", code):
        return code
    return "unrecognised_error"
