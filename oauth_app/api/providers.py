"""`GET /v1/providers`: the presets, as data, for whoever builds a form or looks for the name of a knob."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from knoxcall.api.envelope import success
from knoxcall.api.schema import documented
from knoxcall.api.views import ApiView
from oauth_app.providers import PROVIDERS, Provider


class VariableSerializer(serializers.Serializer):
    """A field of the create call that fills a part of the provider's addresses."""

    name = serializers.CharField()
    meaning = serializers.CharField()
    pattern = serializers.CharField(help_text="A regular expression that the whole value must match.")
    default = serializers.CharField(allow_null=True, help_text="Null: the field is required.")


class ProviderSerializer(serializers.Serializer):
    """A preset: what a secret of this provider starts from, in the names of the create call's fields."""

    name = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]
    documentation = serializers.SerializerMethodField(
        help_text="The public document that the preset was checked against."
    )
    note = serializers.CharField(help_text="What the person who registers the client there has to know.")
    grant_types = serializers.ListField(child=serializers.CharField(), source="grants")
    variables = VariableSerializer(many=True)
    auth_url = serializers.CharField(help_text="May have variables in braces; empty for custom.")
    token_url = serializers.CharField()
    scopes = serializers.ListField(child=serializers.CharField(), source="default_scopes")
    offline_scopes = serializers.ListField(
        child=serializers.CharField(), help_text="Those that only ask for a refresh token; not used with implicit."
    )
    client_credentials_scopes = serializers.ListField(child=serializers.CharField())
    scope_separator = serializers.CharField()
    authorize_params = serializers.DictField(child=serializers.CharField())
    token_params = serializers.DictField(child=serializers.CharField())
    token_auth_method = serializers.CharField()
    pkce = serializers.BooleanField()
    replay_policy = serializers.CharField()
    default_expires_in = serializers.IntegerField(allow_null=True, help_text="Seconds, where an answer says none.")
    refresh_token_idle = serializers.IntegerField(
        allow_null=True, help_text="Seconds without use after which a refresh token dies, where the provider says so."
    )
    refresh_token_lifetime = serializers.IntegerField(
        allow_null=True,
        help_text="Seconds after the consent after which it dies in any case, where the provider says so.",
    )
    revocation = serializers.SerializerMethodField(help_text="Whether tokens can be revoked at the provider.")

    def get_documentation(self, preset: Provider) -> str:
        return preset.source if preset.source.startswith("RFC") else f"https://{preset.source}"

    def get_revocation(self, preset: Provider) -> bool:
        return preset.revocation is not None


class ProvidersView(ApiView):
    """`/v1/providers`"""

    permissions = {"GET": "secrets:read"}

    @documented(
        "List providers",
        answer=ProviderSerializer(many=True),
        details="One array, not paged. `custom` takes the same knobs from the request.",
    )
    def get(self, request: Request) -> Response:
        rows: list[Any] = [dict(ProviderSerializer(preset).data) for preset in PROVIDERS.values()]
        return success(rows)
