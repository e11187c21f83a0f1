"""The `oauth2` kind of secret: what it adds to the vault's common calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import F, Prefetch, QuerySet

from billing_app.limits import check_oauth2_allowed
from billing_app.models import Account
from knoxcall.api.errors import invalid
from knoxcall.api.idempotency import Attempt
from knoxcall.clock import iso
from oauth_app.authorize import redirect_uri
from oauth_app.models import Connection, GrantType
from oauth_app.providers import PROVIDERS
from secrets_app.kinds import SecretKind
from secrets_app.models import Secret
from secrets_app.vault import Scope


def _by_provider(queryset: QuerySet, value: str) -> QuerySet:
    if value not in PROVIDERS:
        raise invalid("provider", f"Must be one of: {', '.join(PROVIDERS)}.")
    return queryset.filter(registration__provider=value)


def _by_status(queryset: QuerySet, value: str) -> QuerySet:
    if value not in Connection.Status.values:
        raise invalid("connection_status", f"Must be one of: {', '.join(Connection.Status.values)}.")
    return queryset.filter(connections__environment=F("base_environment"), connections__status=value)


class OAuth2Kind(SecretKind):
    """A client registration with a connection per environment."""

    name = Secret.Type.OAUTH2
    filters = {"provider": _by_provider, "connection_status": _by_status}

    def create(self, scope: Scope, data: Mapping[str, Any], attempt: Attempt) -> Secret:
        from oauth_app.api.serializers import NewOAuth2SecretSerializer
        from oauth_app.registrations import configured, create_oauth2_secret

        body = NewOAuth2SecretSerializer(data=data)
        body.is_valid(raise_exception=True)
        # Also checked under the account's lock; asked here so that nobody's issuer is called for a plan without OAuth2.
        check_oauth2_allowed(Account.objects.get(pk=scope.account_id))
        said = body.validated_data
        grant = GrantType(said.get("grant_type", GrantType.AUTHORIZATION_CODE))
        configuration = configured(scope, said["provider"], grant, body.given())
        return create_oauth2_secret(
            scope,
            body.new_secret(),
            configuration.client(scope.account_id),
            certificate=configuration.certificate,
            attempt=attempt,
        )

    def dismantle(self, secret: Secret, scope: Scope) -> None:
        from oauth_app.disconnect import dismantle

        dismantle(secret)

    def answer(self, secret: Secret) -> dict[str, Any]:
        answer: dict[str, Any] = {"redirect_uri": redirect_uri(secret.pk)}
        connection = base_connection(secret)
        if connection is not None and connection.failure_code:
            answer["connection_error"] = {
                "code": connection.failure_code,
                "message": connection.failure_message,
                "retryable": connection.failure_reason == "provider_unavailable",
            }
        return answer

    def prepare(self, queryset: QuerySet) -> QuerySet:
        connections = Connection.objects.select_related("environment").defer("access_token", "refresh_token")
        return (
            queryset.select_related("registration")
            .defer("registration__document", "registration__previous_client_secret")
            .prefetch_related(Prefetch("connections", connections))
        )

    def row(self, secret: Secret) -> dict[str, Any]:
        connection = base_connection(secret)
        return {
            "provider": secret.registration.provider,
            "grant_type": secret.registration.grant_type,
            "connection_status": connection.status if connection else Connection.Status.NOT_CONNECTED,
            "mtls_certificate_id": secret.registration.mtls_certificate_id,
        }

    def environments(self, secret: Secret) -> list[dict[str, Any]]:
        return sorted(
            (
                {
                    "environment_name": connection.environment.name,
                    "value_version": secret.registration.version,
                    "updated_at": iso(secret.registration.updated_at),
                    "expires_at_override": None,
                }
                for connection in secret.connections.all()
            ),
            key=lambda entry: str(entry["environment_name"]),
        )


def base_connection(secret: Secret) -> Connection | None:
    """The connection in the base environment, out of those that ``prepare`` loaded."""
    return next((c for c in secret.connections.all() if c.environment_id == secret.base_environment_id), None)
