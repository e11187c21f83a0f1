"""Bodies and answers of the calls for secrets and collections; every field stated."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from knoxcall.api.fields import (
    MomentField,
    SecretTextField,
    StrictBooleanField,
    StrictSerializer,
    TextField,
    UuidTextField,
)
from secrets_app.crypto.cipher import Plaintext
from secrets_app.kinds import kind_of
from secrets_app.models import Secret
from secrets_app.vault import NewSecret, normalise_name


class SecretNameField(TextField):
    """A secret's name: spaces become underscores, nothing else changes."""

    def to_internal_value(self, data: Any) -> str:
        try:
            return normalise_name(super().to_internal_value(data))
        except ValueError as err:
            raise serializers.ValidationError(str(err)) from None


class NewSecretSerializer(StrictSerializer):
    """What every kind of secret may be created with."""

    name = SecretNameField(help_text="Spaces become underscores. 1–255 characters, unique per account and mode.")
    secret_type = TextField(required=False, help_text="`string` where it is left out.")
    description = TextField(required=False, allow_blank=True, max_length=4000)
    environment = TextField(
        required=False, max_length=64, help_text="The base environment; `production` where it is left out."
    )
    collection_id = UuidTextField(required=False, allow_null=True)
    expires_at = MomentField(required=False, allow_null=True)
    strict_expiry_enforcement = StrictBooleanField(required=False)

    def new_secret(self) -> NewSecret:
        """The validated common part."""
        names = ("name", "description", "environment", "collection_id", "expires_at", "strict_expiry_enforcement")
        return NewSecret(**{name: self.validated_data[name] for name in names if name in self.validated_data})


class NewStringSerializer(NewSecretSerializer):
    """The body that creates a string secret."""

    value = SecretTextField(help_text="At most 64 KiB of UTF-8. Returned to nobody.", write_only=True)

    def value_plaintext(self) -> Plaintext:
        """The value, on its way to be sealed."""
        return Plaintext(self.validated_data["value"])


class SecretRowSerializer(serializers.Serializer):
    """A secret as lists show it. No value, ever."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    shortcode_name = serializers.CharField(source="name")
    base_environment = serializers.CharField(source="base_environment.name")
    secret_type = serializers.ChoiceField(choices=Secret.Type.choices)
    collection_id = serializers.UUIDField(allow_null=True)
    created_at = MomentField()
    updated_at = MomentField()
    environment_count = serializers.SerializerMethodField()
    expires_at = MomentField(allow_null=True)
    strict_expiry_enforcement = serializers.BooleanField()
    description = serializers.CharField()

    def get_environment_count(self, secret: Secret) -> int:
        return len(kind_of(secret).environments(secret))

    def to_representation(self, secret: Secret) -> dict[str, Any]:
        return {**super().to_representation(secret), **kind_of(secret).row(secret)}


class EnvironmentVersionSerializer(serializers.Serializer):
    """One environment that a secret has something for."""

    environment_name = serializers.CharField()
    value_version = serializers.IntegerField()
    updated_at = MomentField()
    expires_at_override = MomentField(allow_null=True)


class SecretDetailSerializer(SecretRowSerializer):
    """A row with its environments."""

    environments = serializers.SerializerMethodField()

    def get_environments(self, secret: Secret) -> list[dict[str, Any]]:
        return kind_of(secret).environments(secret)


class NewCollectionSerializer(StrictSerializer):
    """The body that creates a collection."""

    name = TextField(max_length=255, trim_whitespace=True)
    description = TextField(required=False, allow_blank=True, max_length=4000)


class CollectionSerializer(serializers.Serializer):
    """A collection."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField()
    created_at = MomentField()
    updated_at = MomentField()
