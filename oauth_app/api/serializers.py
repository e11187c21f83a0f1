"""The bodies that create and change an OAuth2 secret; every field stated."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from knoxcall.api.fields import (
    ChoiceTextField,
    SecretTextField,
    StrictBooleanField,
    StrictIntegerField,
    StrictSerializer,
    TextField,
    UuidTextField,
)
from oauth_app.api.fields import IssuerUrlField, OutboundUrlField, ProtocolParamsField, ScopeField
from oauth_app.configure import INSTANCE, VARIABLES
from oauth_app.models import GrantType
from oauth_app.providers import PROVIDERS, ReplayPolicy, TokenAuthMethod
from secrets_app.api.serializers import NewSecretSerializer

LONGEST_DEFAULT_LIFETIME = 10 * 365 * 86_400


class ClientSerializer(StrictSerializer):
    """What may be said of a client, when it is created and later. Whether the fields fit together is not decided here."""

    client_id = TextField(required=False, max_length=2000)
    client_secret = SecretTextField(required=False, allow_null=True, max_bytes=16 * 1024, write_only=True)
    scopes = serializers.ListField(child=ScopeField(), required=False, allow_null=True, max_length=200)
    auth_url = OutboundUrlField(required=False, allow_null=True)
    token_url = OutboundUrlField(required=False, allow_null=True)
    revocation_url = OutboundUrlField(required=False, allow_null=True, help_text="RFC 7009.")
    issuer_url = IssuerUrlField(
        required=False,
        allow_null=True,
        help_text="Fills the addresses by OpenID Connect Discovery; provider custom only.",
    )
    username = SecretTextField(required=False, allow_null=True, max_bytes=4096, write_only=True)
    password = SecretTextField(required=False, allow_null=True, max_bytes=16 * 1024, write_only=True)
    mtls_certificate_id = UuidTextField(
        required=False,
        allow_null=True,
        help_text="A certificate with a private key, shown to the token endpoint (RFC 8705).",
    )

    authorize_params = ProtocolParamsField(required=False, allow_null=True)
    token_params = ProtocolParamsField(required=False, allow_null=True)
    token_auth_method = ChoiceTextField(
        choices=[str(method) for method in TokenAuthMethod], required=False, allow_null=True
    )
    pkce = StrictBooleanField(required=False, allow_null=True)
    replay_policy = ChoiceTextField(choices=[str(policy) for policy in ReplayPolicy], required=False, allow_null=True)
    scope_separator = TextField(required=False, allow_null=True, max_length=1)
    default_expires_in = StrictIntegerField(
        required=False, allow_null=True, min_value=1, max_value=LONGEST_DEFAULT_LIFETIME, help_text="Seconds."
    )
    return_url = TextField(
        required=False,
        allow_null=True,
        max_length=2048,
        help_text="Where the browser goes after a consent; its origin must be allowed for the account.",
    )

    def get_fields(self) -> dict[str, Any]:
        # The parts of addresses that presets leave open, such as `tenant`.
        fields = super().get_fields()
        for name in (*VARIABLES, INSTANCE):
            fields[name] = TextField(required=False, allow_null=True, max_length=255)
        return fields

    def client_fields(self) -> dict[str, Any]:
        """What was said of the client, by field; ``None`` where it was said to be nothing."""
        names = {*ClientSerializer._declared_fields, *VARIABLES, INSTANCE}
        return {name: value for name, value in self.validated_data.items() if name in names}


class NewOAuth2SecretSerializer(ClientSerializer, NewSecretSerializer):
    """The body of `POST /v1/secrets/oauth2`."""

    provider = ChoiceTextField(choices=list(PROVIDERS))
    grant_type = ChoiceTextField(choices=[str(grant) for grant in GrantType], required=False)
    client_id = TextField(max_length=2000)

    def to_internal_value(self, data: Any) -> Any:
        # The official client's create call names the type; here it can only be ours.
        if data.get("secret_type", "oauth2") != "oauth2":
            raise serializers.ValidationError({"secret_type": ["Must be oauth2 in this call."]})
        return super().to_internal_value(data)

    def given(self) -> dict[str, Any]:
        """What was said of the client; a null is not said."""
        return {name: value for name, value in self.client_fields().items() if value is not None}


class ClientChangeSerializer(ClientSerializer):
    """The body of `PATCH /v1/secrets/:id/oauth2`. A null takes a value away, and the preset's own comes back."""

    keep_previous = StrictBooleanField(
        required=False,
        help_text="Whether a client secret that is replaced stays a fall-back for 24 hours. False: at once it is none, as when "
        "it has leaked.",
    )


class AuthorizeSerializer(StrictSerializer):
    """The body of `POST /v1/secrets/:id/oauth2/authorize`."""

    environment = TextField(required=False, allow_null=True, max_length=64)
    return_url = TextField(
        required=False,
        allow_null=True,
        max_length=2048,
        help_text="Where the browser goes after the consent, with secret_id, environment and result. Its origin must be allowed.",
    )


class EnvironmentSerializer(StrictSerializer):
    """A body that only says which environment is meant."""

    environment = TextField(required=False, allow_null=True, max_length=64)
