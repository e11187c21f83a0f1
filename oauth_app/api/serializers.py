"""The body that creates an OAuth2 secret, and the answer that hands out a token; every field stated."""

from __future__ import annotations

import re
from typing import Any

from rest_framework import serializers

from knoxcall.addresses import UrlRefused, in_ascii
from knoxcall.api.fields import (
    ChoiceTextField,
    MomentField,
    SecretTextField,
    StrictBooleanField,
    StrictIntegerField,
    TextField,
    TextMapField,
    UuidTextField,
)
from oauth_app.models import GrantType
from oauth_app.protocol.client import OAuthClient
from oauth_app.providers import CUSTOM, PROVIDERS, Provider, ReplayPolicy, TokenAuthMethod
from secrets_app.api.serializers import NewSecretSerializer

# What the protocol itself sets; a parameter of the request may not stand in its way.
RESERVED_PARAMS = frozenset(
    {
        "state",
        "redirect_uri",
        "client_id",
        "response_type",
        "response_mode",
        "scope",
        "nonce",
        "grant_type",
        "code",
        "code_verifier",
        "refresh_token",
        "client_secret",
    }
)
OFFERED_GRANTS = (GrantType.AUTHORIZATION_CODE, GrantType.CLIENT_CREDENTIALS, GrantType.PASSWORD)
LONGEST_DEFAULT_LIFETIME = 10 * 365 * 86_400


class OutboundUrlField(TextField):
    """An address that the vault will call or send a browser to."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=2048, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        try:
            return in_ascii(super().to_internal_value(data))
        except UrlRefused as err:
            raise serializers.ValidationError(str(err)) from None


class ScopeField(TextField):
    """One scope: no white space or control characters."""

    def to_internal_value(self, data: Any) -> str:
        scope = super().to_internal_value(data)
        if not re.fullmatch(r"[^\s\x00-\x1f\x7f]{1,500}", scope):
            raise serializers.ValidationError("Must be one scope, without white space.")
        return scope


class ProtocolParamsField(TextMapField):
    """Further parameters of a request to the provider; none that the protocol sets."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        params = super().to_internal_value(data)
        for name in params:
            if name in RESERVED_PARAMS or name.startswith("code_challenge"):
                raise serializers.ValidationError(f"`{name}` is set by the protocol and cannot be given.")
            if not re.fullmatch(r"[A-Za-z0-9_.:\[\]-]{1,100}", name):
                raise serializers.ValidationError("A parameter's name must be 1 to 100 plain characters.")
        return params


class GrantTypeField(ChoiceTextField):
    """A grant; `implicit` is known and not offered yet."""

    default_error_messages = {"not_yet": "The implicit grant is not supported yet; use authorization_code."}

    def to_internal_value(self, data: Any) -> str:
        if data == GrantType.IMPLICIT:
            self.fail("not_yet")
        return super().to_internal_value(data)


class NewOAuth2SecretSerializer(NewSecretSerializer):
    """The body of `POST /v1/secrets/oauth2`."""

    provider = ChoiceTextField(choices=list(PROVIDERS))
    client_id = TextField(max_length=2000)
    client_secret = SecretTextField(required=False, allow_null=True, max_bytes=16 * 1024, write_only=True)
    grant_type = GrantTypeField(choices=[str(grant) for grant in OFFERED_GRANTS], required=False)
    scopes = serializers.ListField(child=ScopeField(), required=False, allow_null=True, max_length=200)
    auth_url = OutboundUrlField(required=False, allow_null=True)
    token_url = OutboundUrlField(required=False, allow_null=True)
    username = SecretTextField(required=False, allow_null=True, max_bytes=4096, write_only=True)
    password = SecretTextField(required=False, allow_null=True, max_bytes=16 * 1024, write_only=True)
    mtls_certificate_id = UuidTextField(required=False, allow_null=True)

    authorize_params = ProtocolParamsField(required=False)
    token_params = ProtocolParamsField(required=False)
    token_auth_method = ChoiceTextField(choices=[str(method) for method in TokenAuthMethod], required=False)
    pkce = StrictBooleanField(required=False)
    replay_policy = ChoiceTextField(choices=[str(policy) for policy in ReplayPolicy], required=False)
    scope_separator = TextField(required=False, max_length=1)
    default_expires_in = StrictIntegerField(
        required=False, allow_null=True, min_value=1, max_value=LONGEST_DEFAULT_LIFETIME, help_text="Seconds."
    )
    revocation_url = OutboundUrlField(required=False, allow_null=True)
    tenant = TextField(required=False, max_length=255)
    instance = TextField(required=False, max_length=255)
    login_host = TextField(required=False, max_length=255)

    def to_internal_value(self, data: Any) -> Any:
        # The official client's create call names the type; here it can only be ours.
        if data.get("secret_type", "oauth2") != "oauth2":
            raise serializers.ValidationError({"secret_type": ["Must be oauth2 in this call."]})
        return super().to_internal_value(data)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in attrs.items() if value is not None}
        provider = PROVIDERS[given["provider"]]
        grant = GrantType(given.get("grant_type", GrantType.AUTHORIZATION_CODE))
        problems: dict[str, list[str]] = {}
        if grant not in provider.grants:
            problems["grant_type"] = [f"{provider.label} offers: {', '.join(provider.grants)}."]
        self._check_credentials(given, grant, problems)
        self._check_addresses(given, provider, grant, problems)
        if "mtls_certificate_id" in given:
            problems["mtls_certificate_id"] = ["There is no certificate with this id."]
        if "authorize_params" in given and grant is not GrantType.AUTHORIZATION_CODE:
            problems["authorize_params"] = ["Only for the grant authorization_code."]
        if problems:
            raise serializers.ValidationError(problems)
        self._variables = self._read_variables(given, provider, grant)
        return given

    def _check_credentials(self, given: dict[str, Any], grant: GrantType, problems: dict[str, list[str]]) -> None:
        if not given.get("client_secret") and given.get("token_auth_method") != TokenAuthMethod.NONE:
            problems["client_secret"] = ["This field is required, unless token_auth_method is none."]
        if grant is GrantType.CLIENT_CREDENTIALS and given.get("token_auth_method") == TokenAuthMethod.NONE:
            problems["token_auth_method"] = [
                "The grant client_credentials needs a client that authenticates (RFC 6749 §4.4)."
            ]
        for name in ("username", "password"):
            if grant is GrantType.PASSWORD and not given.get(name):
                problems[name] = ["This field is required for the grant password."]
            elif grant is not GrantType.PASSWORD and name in given:
                problems[name] = ["Only for the grant password."]

    def _check_addresses(
        self, given: dict[str, Any], provider: Provider, grant: GrantType, problems: dict[str, list[str]]
    ) -> None:
        custom = provider.name == CUSTOM
        if custom and "token_url" not in given:
            problems["token_url"] = ["This field is required for the provider custom."]
        if custom and grant is GrantType.AUTHORIZATION_CODE and "auth_url" not in given:
            problems["auth_url"] = ["This field is required for the provider custom with a grant that uses a browser."]
        if not custom:
            for name in ("auth_url", "token_url"):
                if name in given:
                    problems[name] = [f"{provider.label}'s address is known; this field is for the provider custom."]
        known = {variable.name for variable in provider.variables}
        if "login_host" in known:
            known.add("instance")
        for name in {"tenant", "instance", "login_host"} - known:
            if name in given:
                problems[name] = [f"{provider.label} has no such variable."]

    def _read_variables(self, given: dict[str, Any], provider: Provider, grant: GrantType) -> dict[str, str]:
        if "instance" in given and "login_host" not in given:
            given["login_host"] = f"{given['instance']}.my.salesforce.com"
        variables = {}
        for variable in provider.variables:
            value = given.get(variable.name, variable.default)
            if value is None:
                raise serializers.ValidationError({variable.name: [f"{provider.label} needs it: {variable.meaning}."]})
            if not re.fullmatch(variable.pattern, value):
                raise serializers.ValidationError({variable.name: [f"Must be {variable.meaning}."]})
            variables[variable.name] = value
        if provider.name == "microsoft" and grant is GrantType.CLIENT_CREDENTIALS and variables["tenant"] == "common":
            raise serializers.ValidationError({"tenant": ["The grant client_credentials needs a tenant of its own."]})
        return variables

    def oauth_client(self) -> OAuthClient:
        """The validated client: the preset's knobs, and what the request says otherwise."""
        given = self.validated_data
        provider = PROVIDERS[given["provider"]]
        grant = given.get("grant_type", GrantType.AUTHORIZATION_CODE)
        browser = grant == GrantType.AUTHORIZATION_CODE
        defaults = {
            GrantType.AUTHORIZATION_CODE: provider.default_scopes,
            GrantType.CLIENT_CREDENTIALS: provider.client_credentials_scopes,
        }
        return OAuthClient(
            provider=provider.name,
            grant_type=grant,
            client_id=given["client_id"],
            client_secret=given.get("client_secret"),
            username=given.get("username"),
            password=given.get("password"),
            scopes=tuple(given.get("scopes", defaults.get(grant, ()))),
            auth_url=given.get("auth_url") or provider.auth_url.format(**self._variables),
            token_url=given.get("token_url") or provider.token_url.format(**self._variables),
            revocation_url=given.get("revocation_url"),
            issuer=provider.issuer_of(self._variables),
            authorize_params={**provider.authorize_params, **given.get("authorize_params", {})} if browser else {},
            token_params=given.get("token_params", {}),
            token_auth_method=TokenAuthMethod(given.get("token_auth_method", provider.token_auth_method)),
            pkce=given.get("pkce", provider.pkce),
            replay_policy=ReplayPolicy(given.get("replay_policy", provider.replay_policy)),
            scope_separator=given.get("scope_separator", provider.scope_separator),
            default_expires_in=given.get("default_expires_in", provider.default_expires_in),
        )


class ConnectionErrorSerializer(serializers.Serializer):
    """Why the first fetch failed."""

    code = serializers.CharField()
    message = serializers.CharField()
    retryable = serializers.BooleanField()


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
