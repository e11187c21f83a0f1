"""The envelope of every success: ``{"data": …, "meta": {"request_id": …}}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework.response import Response

from knoxcall.context import request_id


def success(
    data: Any, *, status: int = 200, meta: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Wrap ``data``. ``meta`` joins the request id; paged lists put their four numbers there."""
    body = {"data": data, "meta": {**(meta or {}), "request_id": request_id.get()}}
    return Response(body, status=status, headers=dict(headers) if headers else None)
