"""What the calls for OAuth2 secrets answer; every field stated. No credential, but for the one call that hands out a token."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from knoxcall.api.fields import MomentField
from oauth_app.attention import attention_of
from oauth_app.authorize import redirect_uri
from oauth_app.models import Connection, GrantType
from secrets_app.api.serializers import SecretRowSerializer


class ConnectionErrorSerializer(serializers.Serializer):
    """Why the first fetch failed."""

    code = serializers.CharField()
    message = serializers.CharField()
    retryable = serializers.BooleanField()


class NewOAuth2SecretAnswer(SecretRowSerializer):
    """The row, with what the person who set it up needs next."""

    provider = serializers.CharField()
    grant_type = serializers.CharField()
    connection_status = serializers.CharField()
    redirect_uri = serializers.CharField(help_text="Register it at the provider; open it to start the consent.")
    mtls_certificate_id = serializers.UUIDField(allow_null=True)
    connection_error = ConnectionErrorSerializer(required=False)


class RefreshErrorSerializer(serializers.Serializer):
    """Why the last refresh failed, although the token that is served is still valid."""

    code = serializers.CharField()
    message = serializers.CharField()
    reason = serializers.CharField()


class AccessTokenSerializer(serializers.Serializer):
    """A live access token."""

    access_token = serializers.CharField(source="value.reveal")
    expires_at = MomentField(allow_null=True)
    token_type = serializers.CharField()
    connection_status = serializers.CharField()
    expires_in = serializers.IntegerField(allow_null=True)
    scopes = serializers.ListField(child=serializers.CharField())
    generation = serializers.IntegerField()
    refresh_error = RefreshErrorSerializer(required=False)
    expired = serializers.BooleanField(
        required=False,
        source="secret_expired",
        help_text="Present, and true, when the secret's own expires_at has passed.",
    )

    def to_representation(self, instance: Any) -> dict[str, Any]:
        shown = super().to_representation(instance)
        if instance.refresh_error is None:
            shown.pop("refresh_error")
        if not instance.secret_expired:
            shown.pop("expired")
        return shown


class ConsentLinkAnswer(serializers.Serializer):
    """A link to send to whoever is to consent. It is shown once."""

    authorize_url = serializers.CharField(source="url", help_text="On our own origin; opening it uses nothing up.")
    expires_at = MomentField()


class AttentionSerializer(serializers.Serializer):
    """Something to know beyond the status."""

    code = serializers.CharField()
    since = MomentField(allow_null=True)
    message = serializers.CharField()
    reauthorize_by = MomentField(required=False)

    def to_representation(self, instance: Any) -> dict[str, Any]:
        shown = super().to_representation(instance)
        if instance.reauthorize_by is None:
            shown.pop("reauthorize_by")
        return shown


class LastErrorSerializer(serializers.Serializer):
    """How the last try failed, in our words."""

    code = serializers.CharField(source="failure_code")
    message = serializers.CharField(source="failure_message")
    reason = serializers.CharField(source="failure_reason")
    at = MomentField(source="failed_at")


class RevocationSerializer(serializers.Serializer):
    """What became of the tokens that were given up last."""

    outcome = serializers.ChoiceField(choices=["pending", "revoked", "not_supported", "failed", "kept"])
    reason = serializers.SerializerMethodField()
    requested_at = MomentField(source="created_at")
    finished_at = MomentField(allow_null=True)

    def get_reason(self, job: Any) -> str | None:
        return job.failure_code or None


class ConnectionAnswer(serializers.Serializer):
    """A connection, without any credential."""

    id = serializers.UUIDField(source="secret_id")
    provider = serializers.CharField(source="secret.registration.provider")
    grant_type = serializers.CharField(source="secret.registration.grant_type")
    environment = serializers.CharField(source="environment.name")
    connection_status = serializers.CharField(source="status")
    connected_as = serializers.SerializerMethodField(help_text="Whose account it is, as far as the provider told.")
    connected_at = MomentField(allow_null=True)
    metadata = serializers.DictField(source="facts")
    scopes_requested = serializers.ListField(child=serializers.CharField(), source="secret.registration.scopes")
    scopes_granted = serializers.ListField(child=serializers.CharField(), source="granted_scopes", allow_null=True)
    generation = serializers.IntegerField()
    token_expires_at = MomentField(source="expires_at", allow_null=True)
    has_refresh_token = serializers.BooleanField(source="renewable")
    refresh_token_expires_at = MomentField(allow_null=True)
    reauthorize_by = MomentField(
        allow_null=True,
        help_text="When the refresh token dies, as far as no refresh can prevent it; consent before then.",
    )
    last_refresh_at = MomentField(source="refreshed_at", allow_null=True)
    next_refresh_at = MomentField(source="refresh_due_at", allow_null=True)
    last_error = serializers.SerializerMethodField()
    attention = serializers.SerializerMethodField()
    revocation = serializers.SerializerMethodField()
    redirect_uri = serializers.SerializerMethodField()
    mtls_certificate_id = serializers.UUIDField(source="secret.registration.mtls_certificate_id", allow_null=True)
    issuer_url = serializers.SerializerMethodField()
    needs_consent = serializers.SerializerMethodField(
        help_text="Whether a person has to consent before there is a token."
    )

    def get_connected_as(self, connection: Any) -> str | None:
        return connection.connected_as or None

    def get_last_error(self, connection: Any) -> dict[str, Any] | None:
        return dict(LastErrorSerializer(connection).data) if connection.failure_code else None

    def get_attention(self, connection: Any) -> list[dict[str, Any]]:
        found = attention_of(connection, connection.now, renewable=connection.renewable)
        return [dict(AttentionSerializer(attention).data) for attention in found]

    def get_revocation(self, connection: Any) -> dict[str, Any] | None:
        job = connection.last_revocation
        return dict(RevocationSerializer(job).data) if job else None

    def get_redirect_uri(self, connection: Any) -> str:
        return redirect_uri(connection.secret_id)

    def get_issuer_url(self, connection: Any) -> str | None:
        issuer = connection.secret.registration.issuer
        return issuer.url if issuer else None

    def get_needs_consent(self, connection: Any) -> bool:
        ended = (
            Connection.Status.NOT_CONNECTED,
            Connection.Status.REAUTHORIZATION_REQUIRED,
            Connection.Status.DISCONNECTED,
        )
        return connection.status in ended and GrantType(connection.secret.registration.grant_type).uses_browser
