"""Who is calling: the API key, sent as `Authorization: Bearer` or as `x-api-key`."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from knoxcall.api.errors import Unauthorized
from knoxcall.marks import UseMarks
from secrets_app.api_keys import find_api_key
from secrets_app.models import ApiKey
from secrets_app.vault import Scope

uses = UseMarks()


class ApiKeyAuthentication(BaseAuthentication):
    """Sets ``request.auth`` and ``request.user`` to the ``ApiKey``. Anything but a live key is one and the same 401."""

    def authenticate(self, request: Request) -> tuple[ApiKey, ApiKey]:
        api_key = find_api_key(_shown(request))
        if api_key is None:
            raise Unauthorized
        uses.note(ApiKey.objects.all(), api_key.pk)
        return api_key, api_key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def scope_of(request: Request) -> Scope:
    """The scope of an authenticated request."""
    return Scope.of_key(key_of(request), request.META.get("REMOTE_ADDR") or None)


def key_of(request: Request) -> ApiKey:
    """The key that signed an authenticated request."""
    key: ApiKey = request.auth  # type: ignore[assignment]
    return key


def _shown(request: Request) -> str:
    header = request.headers.get("Authorization", "")
    scheme, _, token = header.partition(" ")
    if header:
        return token.strip() if scheme.lower() == "bearer" else ""
    return request.headers.get("X-Api-Key", "").strip()


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the schema names it."""

    target_class = "secrets_app.api.authentication.ApiKeyAuthentication"
    name = ["bearer", "apiKey"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        return [
            {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer tk_live_…`"},
            {"type": "apiKey", "in": "header", "name": "x-api-key"},
        ]
