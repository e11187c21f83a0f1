"""`/healthz`: whether this process can do its work, for load balancers and supervisors."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import Error, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

logger = logging.getLogger(__name__)


class HealthMiddleware:
    """Answers `/healthz` before anything looks at the Host header: load balancers ask by address, and over plain http."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return healthz(request) if request.path == "/healthz" else self.get_response(request)


@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 `{"status": "ok"}` when the database answers, 503 otherwise."""
    no_store = {"Cache-Control": "no-store"}
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()
    except Error as err:
        logger.warning("healthz: the database does not answer: %s", type(err).__name__)
        return JsonResponse({"status": "unavailable", "database": "unreachable"}, status=503, headers=no_store)
    return JsonResponse({"status": "ok", "database": "ok"}, headers=no_store)
