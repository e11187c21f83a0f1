"""What browsers open: the redirect URI, which starts and finishes consents, and consent links. Each says how it went."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from functools import wraps

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods

from knoxcall.context import request_id
from oauth_app.authorize import (
    REQUEST_LIFETIME,
    Outcome,
    Started,
    cookie_name,
    find_connection,
    redirect_uri,
    start_bare,
    start_by_link,
)
from oauth_app.complete import PASSING, Callback, complete
from oauth_app.models import GrantType
from oauth_app.pages import page_for
from secrets_app.audit import Actor

logger = logging.getLogger(__name__)

COOKIE_PATH = "/auth/oauth2/"
# A provider's words are shown up to this length.
LONGEST_QUOTE = 300
# The implicit grant's page reads what no server gets to see, so it alone has a script: a file of ours, and nothing inline.
IMPLICIT_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_UNAVAILABLE = Outcome("vault_unavailable")
_SINGLE = ("state", "code", "error", "iss", "access_token")

View = Callable[..., HttpResponse]


class _Redirect(HttpResponse):
    """A redirect to a provider, or back. Django's own refuses nothing here, but writes the target into its ``repr``."""

    status_code = 302

    def __init__(self, url: str) -> None:
        super().__init__()
        self["Location"] = url

    def __repr__(self) -> str:
        return "<redirect>"


def _private(view: View) -> View:
    """Keep the page out of caches and its address out of referrers, and answer with a page when the database is away."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        try:
            response = view(request, *args, **kwargs)
        except (OperationalError, InterfaceError) as err:
            logger.warning("the database does not answer: %s", type(err).__name__)
            response = _later("vault_unavailable") if request.method == "POST" else _answer(request, _UNAVAILABLE)
        response["Referrer-Policy"] = "no-referrer"
        response["Cache-Control"] = "no-store"
        return response

    return guarded


@csrf_exempt
@require_http_methods(["GET", "POST"])
@_private
def callback(request: HttpRequest, secret_id: uuid.UUID) -> HttpResponse:
    """The redirect URI. Opened with neither code, error nor state it starts a consent; opened by the provider it finishes one.

    For the implicit grant both look the same to us, because what the provider says is in the fragment: a page is answered whose
    script posts it here, or goes on to `?start=1`.
    """
    if request.method == "POST":
        return _posted(request, secret_id)
    if {"code", "error", "state"} & request.GET.keys():
        return _answer(request, _finish(request, secret_id, request.GET, from_fragment=False))
    if "start" not in request.GET and _is_implicit(secret_id):
        return _implicit_page(request)
    return _begin(request, start_bare(secret_id, actor=_actor(request)))


@require_GET
@_private
def connect(request: HttpRequest) -> HttpResponse:
    """A consent link: goes to the provider, as often as it is opened."""
    return _begin(request, start_by_link(request.GET.get("link", ""), actor=_actor(request)))


def _begin(request: HttpRequest, started: Started | Outcome) -> HttpResponse:
    if not isinstance(started, Started):
        return _answer(request, started)
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


def _finish(request: HttpRequest, secret_id: uuid.UUID, brought: QueryDict, *, from_fragment: bool) -> Outcome:
    # A parameter that comes twice is nobody's honest answer (RFC 6749 §3.1).
    if any(len(brought.getlist(name)) > 1 for name in _SINGLE):
        return Outcome("unknown_state")
    # The cookie stays to its end: a page that is loaded again shows the outcome, and the state is good for one exchange.
    return complete(
        secret_id,
        Callback.of({name: str(brought[name]) for name in brought}, from_fragment=from_fragment),
        cookie=request.COOKIES.get(cookie_name(brought.get("state", ""))),
        actor=_actor(request),
    )


def _posted(request: HttpRequest, secret_id: uuid.UUID) -> HttpResponse:
    """What the implicit grant's page read from its fragment. Says where the page goes next: an address that shows the outcome.

    The state is what protects it from other sites; that they cannot even ask is told by the origin.
    """
    own = redirect_uri(secret_id)
    if request.headers.get("Origin", "").lower() != own.removesuffix(f"/auth/oauth2/callback/{secret_id}"):
        return JsonResponse({"error": "wrong_origin"}, status=403)
    outcome = _finish(request, secret_id, request.POST, from_fragment=True)
    if outcome.code in PASSING:
        return _later(outcome.code)
    shown = QueryDict(mutable=True)
    # A state that was not even looked at, because something came twice, must not be used up by looking at what came of it.
    shown["state"] = "" if outcome.code == "unknown_state" else request.POST.get("state", "")
    return JsonResponse({"next": outcome.return_to or f"{own}?{shown.urlencode()}"})


def _later(code: str) -> HttpResponse:
    """Tell the implicit grant's script to try again."""
    return JsonResponse({"error": code}, status=503, headers={"Retry-After": "2"})


def _is_implicit(secret_id: uuid.UUID) -> bool:
    connection = find_connection(secret_id)
    return connection is not None and connection.secret.registration.grant_type == GrantType.IMPLICIT


def _implicit_page(request: HttpRequest) -> HttpResponse:
    response = render(request, "oauth_app/implicit.html", {"request_id": request_id.get()})
    response["Content-Security-Policy"] = IMPLICIT_POLICY
    return response


def _answer(request: HttpRequest, outcome: Outcome) -> HttpResponse:
    if outcome.return_to is not None:
        return _Redirect(outcome.return_to)
    connection = outcome.connection
    said = outcome.provider_said
    page = page_for(
        outcome.code,
        secret_name=connection.secret.name if connection else None,
        provider=connection.secret.registration.provider_label if connection else None,
        environment=connection.environment.name if connection else None,
        connected_as=connection.connected_as if connection else None,
        provider_said=said[:LONGEST_QUOTE] if said else None,
        reason=outcome.reason,
    )
    return render(request, "oauth_app/outcome.html", {"page": page, "request_id": request_id.get()}, status=page.status)


def _actor(request: HttpRequest) -> Actor:
    return Actor("browser", request.META.get("REMOTE_ADDR") or None)
