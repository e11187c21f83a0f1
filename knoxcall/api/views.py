"""The base of every view under `/v1`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.views import APIView

from knoxcall.api.errors import MethodNotAllowed, NotFound, ValidationFailed
from knoxcall.middleware import API_VERSION


class ApiView(APIView):
    """Checks the key, its permission and the asked API version before any method runs."""

    # The permission that each method needs.
    permissions: ClassVar[Mapping[str, str]] = {}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        version = request.headers.get("KnoxCall-Version")
        if version is not None and version != API_VERSION:
            message = f"This server speaks {API_VERSION}."
            raise ValidationFailed(f"KnoxCall-Version: {message}", fields={"KnoxCall-Version": [message]})
        for name, values in request.query_params.lists():
            # No stored text has a NUL, and PostgreSQL refuses to be asked for one.
            if "\0" in name or any("\0" in value for value in values):
                raise ValidationFailed("The query must not contain NUL.")

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        error = MethodNotAllowed()
        error.headers["Allow"] = ", ".join(method for method in self.allowed_methods if method != "OPTIONS")
        raise error

    @property
    def default_response_headers(self) -> dict[str, str]:
        # DRF would send Allow with everything; it belongs to a 405.
        return {}

    # DRF would answer OPTIONS with a description of the view; the schema does that.
    options = http_method_not_allowed


def body_of(request: Request) -> dict[str, Any]:
    """The JSON object that was sent; an empty one where there was no body."""
    data: Any = request.data
    return data if isinstance(data, dict) else {}


def parse_id(text: str) -> uuid.UUID:
    """Read an id of the path. A malformed one is ``NotFound``: not to be told from another account's."""
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        raise NotFound from None
    # uuid.UUID also takes braces, urn: and a text without hyphens; there is one spelling of an address.
    if str(parsed) != text.lower():
        raise NotFound
    return parsed
