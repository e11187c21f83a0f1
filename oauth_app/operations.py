"""What an operator can do to a connection in the admin: send somebody a link, refresh it, end it. Each asks before it acts."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from knoxcall.api.errors import ApiError
from knoxcall.api.idempotency import NoKey
from oauth_app.authorize import LINK_LIFETIME, create_link
from oauth_app.disconnect import disconnect
from oauth_app.models import Connection
from oauth_app.tokens import refresh_now
from secrets_app.admin import actor_of
from secrets_app.vault import Scope

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it, in a sentence; ``link`` is shown to be copied, once."""

    message: str
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """Something to do: what it is called, what it means, and the use case that does it. ``act`` may raise an ``ApiError``."""

    title: str
    explanation: str
    button: str
    act: Callable[[Scope, Connection, HttpRequest], Done]
    takes_return_url: bool = False


def _make_link(scope: Scope, connection: Connection, request: HttpRequest) -> Done:
    return_url = request.POST.get("return_url", "").strip() or None
    link = create_link(scope, connection.secret_id, environment=connection.environment.name, return_url=return_url)
    minutes = int(LINK_LIFETIME.total_seconds() // 60)
    return Done(
        f"Send this link to whoever is to consent. It works for {minutes} minutes and is shown only now.", link.url
    )


def _refresh(scope: Scope, connection: Connection, request: HttpRequest) -> Done:
    token = refresh_now(scope, connection.secret_id, environment=connection.environment.name)
    if token.refresh_error is not None:
        return Done(f"It could not be refreshed: {token.refresh_error['message']} The present token is still valid.")
    return Done("The token was refreshed.")


def _disconnect(scope: Scope, connection: Connection, request: HttpRequest) -> Done:
    disconnect(scope, connection.secret_id, environment=connection.environment.name, attempt=NoKey())
    return Done("The connection has ended. Its tokens are gone here, and are being revoked at the provider.")


OPERATIONS: dict[str, Operation] = {
    "consent-link": Operation(
        title="Make a consent link",
        explanation="A link for whoever is to consent, with this account or with another. An earlier link that was not used "
        "works no more. The secret keeps its id and name, and the connection works on until somebody has consented anew.",
        button="Make a link",
        act=_make_link,
        takes_return_url=True,
    ),
    "refresh": Operation(
        title="Refresh now",
        explanation="The provider is asked for a new token at once, whatever the schedule says. That may take 20 seconds.",
        button="Refresh",
        act=_refresh,
    ),
    "disconnect": Operation(
        title="Disconnect",
        explanation="The tokens are gone for everyone at once, and are revoked at the provider. To connect again, somebody has "
        "to consent again.",
        button="Disconnect",
        act=_disconnect,
    ),
}


def view_of(model_admin: ModelAdmin, operation: Operation) -> Callable[..., HttpResponse]:
    """The admin view of ``operation``: GET explains it and asks, POST does it."""

    def view(request: HttpRequest, connection_id: uuid.UUID) -> HttpResponse:
        if not request.user.has_perm("oauth_app.change_connection"):
            raise PermissionDenied
        connection = (
            Connection.objects.select_related("secret__registration", "environment").filter(pk=connection_id).first()
        )
        if connection is None:
            raise Http404
        done, problem = None, None
        if request.method == "POST":
            scope = Scope(connection.account_id, connection.secret.mode, actor_of(request))
            try:
                done = operation.act(scope, connection, request)
            except ApiError as err:
                problem = err.message
        context = {
            **model_admin.admin_site.each_context(request),
            "title": operation.title,
            "subtitle": str(connection),
            "opts": model_admin.opts,
            "connection": connection,
            "operation": operation,
            "done": done,
            "problem": problem,
            "return_url": request.POST.get("return_url", ""),
        }
        response = TemplateResponse(request, "admin/oauth_app/connection/operation.html", context)
        # The link is in it.
        response["Cache-Control"] = "no-store"
        return response

    return view
