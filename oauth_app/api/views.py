"""The calls for OAuth2 secrets and their tokens: parse, make one call, render."""

from __future__ import annotations

import logging

from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from knoxcall.api.envelope import success
from knoxcall.api.idempotency import idempotent
from knoxcall.api.pagination import flag, whole_number
from knoxcall.api.schema import documented
from knoxcall.api.views import ApiView, parse_id
from oauth_app.api.serializers import AccessTokenSerializer, ConnectionErrorSerializer, NewOAuth2SecretSerializer
from oauth_app.tokens import get_access_token
from secrets_app.api.authentication import key_of, scope_of
from secrets_app.api.serializers import SecretRowSerializer
from secrets_app.api.views import created
from secrets_app.kinds import KINDS
from secrets_app.models import Secret

logger = logging.getLogger(__name__)

LONGEST_MIN_TTL = 3600


class NewOAuth2SecretAnswer(SecretRowSerializer):
    """The row, with what the person who set it up needs next."""

    provider = serializers.CharField()
    grant_type = serializers.CharField()
    connection_status = serializers.CharField()
    redirect_uri = serializers.CharField(help_text="Register it at the provider; open it to start the consent.")
    mtls_certificate_id = serializers.UUIDField(allow_null=True)
    connection_error = ConnectionErrorSerializer(required=False)


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


class TokenView(ApiView):
    """`/v1/secrets/:id/oauth2/token`"""

    permissions = {"GET": "tokens:read"}

    @documented(
        "Read the access token",
        answer=AccessTokenSerializer,
        parameters=(
            OpenApiParameter("environment", str, description="The base environment where it is left out."),
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
        logger.info("token of %s read by %s: generation %d", secret_id, key_of(request).key_id, token.generation)
        if token.etag in _offered(request):
            return Response(status=304, headers={"ETag": token.etag})
        return success(AccessTokenSerializer(token).data, headers={"ETag": token.etag})


def _offered(request: Request) -> list[str]:
    """The ETags of `If-None-Match`, compared weakly (RFC 9110 §13.1.2)."""
    return [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
