"""The redirect URI: it starts a consent, finishes it, and says in plain words what happened."""

from __future__ import annotations

import logging
import uuid

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from knoxcall.context import request_id
from oauth_app.authorize import REQUEST_LIFETIME, Callback, Outcome, Started, complete, cookie_name, start_bare
from oauth_app.pages import page_for
from secrets_app.audit import Actor

logger = logging.getLogger(__name__)

COOKIE_PATH = "/auth/oauth2/"
# A provider's words are shown up to this length.
LONGEST_QUOTE = 300


class _Redirect(HttpResponse):
    """A redirect to a provider. Django's own refuses nothing here, but writes the target into its ``repr``."""

    status_code = 302

    def __init__(self, url: str) -> None:
        super().__init__()
        self["Location"] = url

    def __repr__(self) -> str:
        return "<redirect to the provider>"


@require_GET
def callback(request: HttpRequest, secret_id: uuid.UUID) -> HttpResponse:
    """Opened with neither code, error nor state it starts a consent; opened by the provider it finishes one."""
    actor = Actor("browser", request.META.get("REMOTE_ADDR") or None)
    try:
        if not {"code", "error", "state"} & request.GET.keys():
            response = _start(request, secret_id, actor)
        else:
            response = _finish(request, secret_id, actor)
    except (OperationalError, InterfaceError) as err:
        logger.warning("the database does not answer: %s", type(err).__name__)
        response = _page(request, Outcome("vault_unavailable"))
    response["Referrer-Policy"] = "no-referrer"
    response["Cache-Control"] = "no-store"
    return response


def _start(request: HttpRequest, secret_id: uuid.UUID, actor: Actor) -> HttpResponse:
    started = start_bare(secret_id, actor=actor)
    if not isinstance(started, Started):
        return _page(request, started)
    response = _Redirect(started.url)
    response.set_cookie(
        started.cookie_name,
        started.cookie_value,
        max_age=int(REQUEST_LIFETIME.total_seconds()),
        path=COOKIE_PATH,
        secure=not settings.PLAIN_HTTP,
        httponly=True,
        # Not Strict: the provider's redirect would come without it.
        samesite="Lax",
    )
    return response


def _finish(request: HttpRequest, secret_id: uuid.UUID, actor: Actor) -> HttpResponse:
    # A parameter that comes twice is nobody's honest answer (RFC 6749 §3.1).
    if any(len(request.GET.getlist(name)) > 1 for name in ("state", "code", "error", "iss")):
        return _page(request, Outcome("unknown_state"))
    state = request.GET.get("state", "")
    outcome = complete(
        secret_id,
        Callback(
            state=state,
            code=request.GET.get("code"),
            error=request.GET.get("error"),
            error_description=request.GET.get("error_description"),
            issuer=request.GET.get("iss"),
        ),
        cookie=request.COOKIES.get(cookie_name(state)),
        actor=actor,
    )
    # The cookie stays to its end: a page that is loaded again shows the outcome, and the state is good for one exchange.
    return _page(request, outcome)


def _page(request: HttpRequest, outcome: Outcome) -> HttpResponse:
    connection = outcome.connection
    said = outcome.provider_said
    page = page_for(
        outcome.code,
        secret_name=connection.secret.name if connection else None,
        provider=connection.secret.registration.provider_label if connection else None,
        environment=connection.environment.name if connection else None,
        provider_said=said[:LONGEST_QUOTE] if said else None,
        reason=outcome.reason,
    )
    return render(request, "oauth_app/outcome.html", {"page": page, "request_id": request_id.get()}, status=page.status)
