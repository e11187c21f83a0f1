"""The shapes of five providers: what each one's token endpoint does, as switches.

A shape is where a rehearsal starts; every switch can still be set otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .behaviour import RefreshTokens


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One provider's ways, and what a `custom` secret has to say of them."""

    doc: str
    switches: Mapping[str, Any]
    secret: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `POST /v1/secrets/oauth2` beside the client and the addresses."""
    has_revocation: bool = True
    """Whether `/revoke` is this provider's way to end a token."""


SHAPES: dict[str, Shape] = {
    "google": Shape(
        doc="One refresh token for the life of the grant, left out of refresh answers; an id_token; revoking ends the grant.",
        switches={
            "refresh_tokens": RefreshTokens.KEPT,
            "expires_in": 3599,
            "id_token": {"email_verified": True},
            "revocation_needs_client": False,
            "revoke_ends_grant": True,
        },
        secret={
            "scopes": ["openid", "email", "profile"],
            "authorize_params": {"access_type": "offline", "prompt": "consent"},
            "token_auth_method": "client_secret_post",
            "replay_policy": "safe",
        },
    ),
    "github": Shape(
        doc="Form-encoded unless asked for JSON, errors with status 200, scopes with commas; a refresh ends both old tokens.",
        switches={
            "expires_in": 28_800,
            "refresh_token_expires_in": 15_897_600,
            "token_type": "bearer",
            "refresh_ends_access_token": True,
            "reuse_revokes": False,
            "reuse_error": "bad_refresh_token",
            "refresh_error": "bad_refresh_token",
            "code_error": "bad_verification_code",
            "client_error": "incorrect_client_credentials",
            "error_status": 200,
            "scope_separator": ",",
            "form_encoded": True,
            "json_if_asked": True,
        },
        secret={
            "scopes": ["read:user", "user:email"],
            "token_auth_method": "client_secret_post",
            "replay_policy": "safe",
        },
        has_revocation=False,
    ),
    "salesforce": Shape(
        doc="No expires_in, an instance_url, issued_at in milliseconds; single-use refresh tokens, and a replay ends the grant.",
        switches={
            "refresh_tokens": RefreshTokens.ROTATED,
            "offline_scopes": ("refresh_token", "offline_access"),
            "omit": ("expires_in",),
            "extra": {
                "instance_url": "{base_url}",
                "id": "{base_url}/id/00D000000000001EAA/005000000000001AAA",
                "issued_at": "{now_ms}",
            },
            "revocation_needs_client": False,
        },
        secret={
            "scopes": ["api", "refresh_token"],
            "authorize_params": {"prompt": "consent"},
            "token_auth_method": "client_secret_post",
            "replay_policy": "never",
            "default_expires_in": 3600,
        },
    ),
    "microsoft": Shape(
        doc="A new refresh token each time while the old ones stay valid; offline_access is granted and never named.",
        switches={
            "refresh_tokens": RefreshTokens.RENEWED,
            "offline_scopes": ("offline_access",),
            "unechoed_scopes": ("offline_access",),
            "expires_in": 3599,
            "extra": {"ext_expires_in": 3599},
            "id_token": {"tid": "9188040d-6c67-4c5b-b112-36a304b66dad", "ver": "2.0"},
            "metadata": {"revocation_endpoint": None},
        },
        secret={
            "scopes": ["openid", "profile", "email", "offline_access", "User.Read"],
            "token_auth_method": "client_secret_post",
            "replay_policy": "safe",
        },
        has_revocation=False,
    ),
    "slack": Shape(
        doc="ok: true or false with status 200, the user's tokens under authed_user where user_scope asks; 12 hours.",
        switches={
            "refresh_tokens": RefreshTokens.ROTATED,
            "reuse_revokes": False,
            "reuse_error": "invalid_refresh_token",
            "refresh_error": "invalid_refresh_token",
            "code_error": "invalid_code",
            "client_error": "bad_client_secret",
            "error_status": 200,
            "error_extra": {"ok": False},
            "expires_in": 43_200,
            "token_type": "bot",
            "scope_separator": ",",
            "extra": {
                "ok": True,
                "app_id": "A000000001",
                "bot_user_id": "U000000001",
                "team": {"id": "T000000001", "name": "Rehearsal"},
                "enterprise": None,
            },
            "nest_under": "authed_user",
            "nested_extra": {"id": "U000000002", "token_type": "user"},
            "nested_scope_parameter": "user_scope",
        },
        secret={"scopes": ["chat:write"], "scope_separator": ",", "pkce": False, "replay_policy": "one_try"},
        has_revocation=False,
    ),
}
