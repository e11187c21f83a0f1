"""Fields of the calls for OAuth2 secrets: addresses, scopes, and parameters that are passed on to the provider."""

from __future__ import annotations

import re
from typing import Any

from rest_framework import serializers

from knoxcall.addresses import UrlRefused, in_ascii
from knoxcall.api.fields import TextField, TextMapField
from oauth_app.protocol.metadata import MAX_ISSUER_LENGTH, check_issuer_url

# What the protocol itself sets; a parameter of the request may not stand in its way.
RESERVED_PARAMS = frozenset(
    {
        "state",
        "redirect_uri",
        "client_id",
        "response_type",
        "response_mode",
        "scope",
        "nonce",
        "grant_type",
        "code",
        "code_verifier",
        "refresh_token",
        "client_secret",
    }
)


class OutboundUrlField(TextField):
    """An address that the vault will call or send a browser to."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=2048, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        try:
            return in_ascii(super().to_internal_value(data))
        except UrlRefused as err:
            raise serializers.ValidationError(str(err)) from None


class IssuerUrlField(TextField):
    """An issuer as it spells itself: kept to the letter, because it is compared so (OpenID Connect Discovery §4.3)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_ISSUER_LENGTH, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        try:
            return check_issuer_url(super().to_internal_value(data))
        except UrlRefused as err:
            raise serializers.ValidationError(str(err)) from None


class ScopeField(TextField):
    """One scope: no white space or control characters."""

    def to_internal_value(self, data: Any) -> str:
        scope = super().to_internal_value(data)
        if not re.fullmatch(r"[^\s\x00-\x1f\x7f]{1,500}", scope):
            raise serializers.ValidationError("Must be one scope, without white space.")
        return scope


class ProtocolParamsField(TextMapField):
    """Further parameters of a request to the provider; none that the protocol sets."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        params = super().to_internal_value(data)
        for name in params:
            if name in RESERVED_PARAMS or name.startswith("code_challenge"):
                raise serializers.ValidationError(f"`{name}` is set by the protocol and cannot be given.")
            if not re.fullmatch(r"[A-Za-z0-9_.:\[\]-]{1,100}", name):
                raise serializers.ValidationError("A parameter's name must be 1 to 100 plain characters.")
        return params
