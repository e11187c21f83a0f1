"""The calls for OAuth2 secrets and their tokens: parse, make one call, render."""

from __future__ import annotations

import logging
import uuid

from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response

from knoxcall.api.envelope import success
from knoxcall.api.idempotency import idempotent
from knoxcall.api.pagination import flag, whole_number
from knoxcall.api.schema import documented
from knoxcall.api.views import ApiView, parse_id
from oauth_app.api.answers import AccessTokenSerializer, ConnectionAnswer, ConsentLinkAnswer, NewOAuth2SecretAnswer
from oauth_app.api.serializers import (
    AuthorizeSerializer,
    ClientChangeSerializer,
    EnvironmentSerializer,
    NewOAuth2SecretSerializer,
)
from oauth_app.authorize import create_link
from oauth_app.connections import get_shown
from oauth_app.disconnect import disconnect
from oauth_app.registrations import change_client
from oauth_app.tokens import AccessToken, get_access_token, refresh_now
from secrets_app.api.authentication import key_of, scope_of
from secrets_app.api.views import created
from secrets_app.kinds import KINDS
from secrets_app.models import Secret

logger = logging.getLogger(__name__)

LONGEST_MIN_TTL = 3600
ENVIRONMENT = OpenApiParameter("environment", str, description="The base environment where it is left out.")


class OAuth2SecretsView(ApiView):
    """`/v1/secrets/oauth2`"""

    permissions = {"POST": "secrets:write"}

    @documented(
        "Create an OAuth2 secret",
        body=NewOAuth2SecretSerializer,
        answer=NewOAuth2SecretAnswer,
        status=201,
        errors=(400, 403, 409, 413, 415, 503),
        details="With client_credentials and password the token is fetched inside the call. A fetch that fails keeps the "
        "secret, and `connection_error` says why. A field that the call does not know is a 400.",
    )
    @idempotent
    def post(self, request: Request) -> Response:
        return created(request, KINDS[Secret.Type.OAUTH2])


class ConnectionView(ApiView):
    """`/v1/secrets/:id/oauth2`"""

    permissions = {"GET": "secrets:read", "PATCH": "secrets:write"}

    @documented(
        "Read a connection's state",
        answer=ConnectionAnswer,
        parameters=(ENVIRONMENT,),
        errors=(400, 404, 500, 503),
        details="What is connected, until when, and what there is to do; no credential.",
    )
    def get(self, request: Request, secret_id: str) -> Response:
        return _state(request, parse_id(secret_id), request.query_params.get("environment"))

    @documented(
        "Change the client",
        body=ClientChangeSerializer,
        answer=ConnectionAnswer,
        errors=(400, 403, 404, 409, 413, 415, 503),
        details="Connections stay. What failed is tried again at once; scopes count from the next consent on. A client secret "
        "that is replaced is tried for 24 hours more, where the provider refuses the new one, as long as client_id and "
        "token_url stay the same.",
    )
    @idempotent
    def patch(self, request: Request, secret_id: str) -> Response:
        attempt = request.attempt  # type: ignore[attr-defined]
        if attempt.resource_id is None:
            body = ClientChangeSerializer(data=request.data)
            body.is_valid(raise_exception=True)
            change_client(
                scope_of(request),
                parse_id(secret_id),
                body.client_fields(),
                keep_previous=body.validated_data.get("keep_previous", True),
                attempt=attempt,
            )
        return _state(request, parse_id(secret_id), None)


class AuthorizeView(ApiView):
    """`/v1/secrets/:id/oauth2/authorize`"""

    permissions = {"POST": "secrets:write"}

    @documented(
        "Make a consent link",
        body=AuthorizeSerializer,
        answer=ConsentLinkAnswer,
        errors=(400, 403, 404, 413, 415, 503),
        details="Valid for 15 minutes and for one consent that is completed; a newer link voids it. The first connection and "
        "every later one keep the secret's id, name and versions.",
    )
    @idempotent
    def post(self, request: Request, secret_id: str) -> Response:
        body = AuthorizeSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        link = create_link(scope_of(request), parse_id(secret_id), **body.validated_data)
        return success(ConsentLinkAnswer(link).data)


class RefreshView(ApiView):
    """`/v1/secrets/:id/oauth2/refresh`"""

    permissions = {"POST": "secrets:write"}

    @documented(
        "Refresh the token now",
        body=EnvironmentSerializer,
        answer=AccessTokenSerializer,
        errors=(400, 403, 404, 413, 415, 500, 503),
        details="Joins a refresh in flight. A grant that needs no person is made, in an environment that has none, too.",
    )
    @idempotent
    def post(self, request: Request, secret_id: str) -> Response:
        body = EnvironmentSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        environment = body.validated_data.get("environment")
        token = refresh_now(scope_of(request), parse_id(secret_id), environment=environment)
        _log_read(request, secret_id, token)
        return success(AccessTokenSerializer(token).data)


class DisconnectView(ApiView):
    """`/v1/secrets/:id/oauth2/disconnect`"""

    permissions = {"POST": "secrets:write"}

    @documented(
        "Disconnect",
        body=EnvironmentSerializer,
        answer=ConnectionAnswer,
        errors=(400, 403, 404, 413, 415, 500, 503),
        details="The tokens are gone at once. They are revoked at the provider in the background, for up to 24 hours while it "
        "cannot be reached; `revocation` says how that went.",
    )
    @idempotent
    def post(self, request: Request, secret_id: str) -> Response:
        body = EnvironmentSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        environment, attempt = body.validated_data.get("environment"), request.attempt  # type: ignore[attr-defined]
        if attempt.resource_id is None:
            disconnect(scope_of(request), parse_id(secret_id), environment=environment, attempt=attempt)
        return _state(request, parse_id(secret_id), environment)


class TokenView(ApiView):
    """`/v1/secrets/:id/oauth2/token`"""

    permissions = {"GET": "tokens:read"}

    @documented(
        "Read the access token",
        answer=AccessTokenSerializer,
        parameters=(
            ENVIRONMENT,
            OpenApiParameter(
                "min_ttl", int, description="Seconds that the token should still live, 0–3600; best effort."
            ),
            OpenApiParameter("force_refresh", bool, description="Renew it first; joins a refresh in flight."),
            OpenApiParameter(
                "If-None-Match", str, OpenApiParameter.HEADER, description="An ETag: 304 while nothing changed."
            ),
        ),
        errors=(400, 403, 404, 500, 503),
        details="Serves a valid token at once and renews an expired one first, once, however many ask.",
    )
    def get(self, request: Request, secret_id: str) -> Response:
        token = get_access_token(
            scope_of(request),
            parse_id(secret_id),
            environment=request.query_params.get("environment"),
            min_ttl=whole_number(request, "min_ttl", default=0, lowest=0, highest=LONGEST_MIN_TTL),
            force_refresh=flag(request, "force_refresh"),
        )
        _log_read(request, secret_id, token)
        if token.etag in _offered(request):
            return Response(status=304, headers={"ETag": token.etag})
        return success(AccessTokenSerializer(token).data, headers={"ETag": token.etag})


def _state(request: Request, secret_id: uuid.UUID, environment: str | None) -> Response:
    return success(ConnectionAnswer(get_shown(scope_of(request), secret_id, environment)).data)


def _log_read(request: Request, secret_id: str, token: AccessToken) -> None:
    logger.info("token of %s read by %s: generation %d", secret_id, key_of(request).key_id, token.generation)


def _offered(request: Request) -> list[str]:
    """The ETags of `If-None-Match`, compared weakly (RFC 9110 §13.1.2)."""
    return [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
