"""Controls for tests, in JSON: what an operator of the provider would do in its admin."""

import json
from collections import Counter
from collections.abc import Callable
from functools import wraps

from django.contrib.auth import get_user_model
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST
from oauth2_provider.generators import generate_client_secret
from oauth2_provider.models import AccessToken, Application, RefreshToken

from tests.support.dot import terms

# Rotation deletes the access token that it replaces, so rows do not tell how many there have been.
_issued: Counter[str] = Counter()


@receiver(post_save, sender=AccessToken)
def count_issued(instance: AccessToken, created: bool, **_: object) -> None:
    _issued[instance.application.client_id] += created


def _control(view: Callable[..., dict]) -> Callable[[HttpRequest], JsonResponse]:
    """A view that is posted a JSON object as keyword arguments, and whose dict is the answer."""

    @csrf_exempt
    @require_POST
    @wraps(view)
    def posted(request: HttpRequest) -> JsonResponse:
        return JsonResponse(view(**json.loads(request.body)))

    return posted


@_control
def applications(
    grant: str, redirect_uri: str, confidential: bool, pkce_required: bool | None, access_token_seconds: int | None
) -> dict:
    client_secret = generate_client_secret()
    application = Application.objects.create(
        name="An application",
        authorization_grant_type=grant,
        client_type=Application.CLIENT_CONFIDENTIAL if confidential else Application.CLIENT_PUBLIC,
        client_secret=client_secret,
        redirect_uris=redirect_uri,
    )
    usual = terms.USUAL
    terms.agree(
        application.client_id,
        terms.Terms(
            pkce_required=usual.pkce_required if pkce_required is None else pkce_required,
            access_token_seconds=access_token_seconds or usual.access_token_seconds,
        ),
    )
    return {"client_id": application.client_id, "client_secret": client_secret}


@_control
def redirect_uris(client_id: str, redirect_uri: str) -> dict:
    return {"changed": Application.objects.filter(client_id=client_id).update(redirect_uris=redirect_uri)}


@_control
def users(username: str, password: str) -> dict:
    return {"id": get_user_model().objects.create_user(username, password=password).pk}


@_control
def revocations(client_id: str | None) -> dict:
    live = RefreshToken.objects.filter(revoked__isnull=True)
    if client_id is not None:
        live = live.filter(application__client_id=client_id)
    revoked = list(live)
    for refresh_token in revoked:
        refresh_token.revoke()
    return {"revoked": len(revoked)}


@require_GET
def tokens(request: HttpRequest) -> JsonResponse:
    """How many access tokens of a client, or of all, there are and have been."""
    client_id = request.GET.get("client_id")
    rows = AccessToken.objects.all()
    if client_id is None:
        return JsonResponse({"issued": _issued.total(), "stored": rows.count()})
    stored = rows.filter(application__client_id=client_id).count()
    return JsonResponse({"issued": _issued[client_id], "stored": stored})
