"""Making a client out of what a request says: the preset's knobs, the issuer's metadata, and what is said otherwise.

Creating and changing go the same way: a change is what the client was configured with, overlaid with what is new, and checked
as a whole.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from knoxcall.api.errors import ValidationFailed, invalid
from oauth_app.models import GrantType
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.metadata import IssuerMetadata, MetadataRefused
from oauth_app.providers import CUSTOM, PROVIDERS, Provider, ReplayPolicy, TokenAuthMethod
from oauth_app.return_urls import check_return_url
from secrets_app.models import Certificate
from secrets_app.vault import Scope

VARIABLES = tuple(dict.fromkeys(variable.name for preset in PROVIDERS.values() for variable in preset.variables))
# Another way to say Salesforce's `login_host`: the org's My Domain, by its name alone.
INSTANCE = "instance"
# What an issuer's metadata decides unless the request does.
CHOICES = ("token_auth_method", "pkce")
ADDRESSES = ("auth_url", "token_url", "revocation_url")


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a client is made of, checked piece by piece but not yet as a whole. ``given`` is as the request names it."""

    provider: Provider
    grant: GrantType
    given: Mapping[str, Any]
    metadata: IssuerMetadata | None = None
    certificate: Certificate | None = None
    known_return_url: str | None = None
    """What is stored already, and is no problem of this change if its origin was taken off the list since: who comes back from a
    consent is only sent to what is on it then."""

    def client(self, account_id: uuid.UUID) -> OAuthClient:
        """The client. Raises ``ValidationFailed`` with every field that does not fit the others."""
        problems = self._problems(account_id)
        variables = self._variables(problems)
        method = self._auth_method(problems)
        if problems:
            name, messages = next(iter(problems.items()))
            raise ValidationFailed(f"{name}: {messages[0]}", fields=problems)
        return self._built(variables, method)

    def _problems(self, account_id: uuid.UUID) -> dict[str, list[str]]:
        given, grant = self.given, self.grant
        problems: dict[str, list[str]] = {}
        if grant not in self.provider.grants:
            problems["grant_type"] = [f"{self.provider.label} offers: {', '.join(self.provider.grants)}."]
        for name in ("username", "password"):
            if grant is GrantType.PASSWORD and not given.get(name):
                problems[name] = ["This field is required for the grant password."]
            elif grant is not GrantType.PASSWORD and name in given:
                problems[name] = ["Only for the grant password."]
        if "authorize_params" in given and grant is not GrantType.AUTHORIZATION_CODE:
            problems["authorize_params"] = ["Only for the grant authorization_code."]
        if given.get("return_url") not in (None, self.known_return_url):
            try:
                check_return_url(account_id, given["return_url"])
            except ValueError as err:
                problems["return_url"] = [str(err)]
        self._check_addresses(problems)
        return problems

    def _check_addresses(self, problems: dict[str, list[str]]) -> None:
        given, provider = self.given, self.provider
        if provider.name != CUSTOM:
            for name in ("auth_url", "token_url", "issuer_url"):
                if name in given:
                    problems[name] = [f"{provider.label}'s address is known; this field is for the provider custom."]
        elif "issuer_url" in given:
            for name in ADDRESSES:
                if name in given:
                    problems[name] = ["The issuer's metadata names it; give either this or issuer_url."]
            self._check_metadata(problems)
        else:
            if self.grant is not GrantType.IMPLICIT and "token_url" not in given:
                problems["token_url"] = ["This field is required for the provider custom, unless issuer_url is given."]
            if self.grant.uses_browser and "auth_url" not in given:
                problems["auth_url"] = [
                    "This field is required for the provider custom with a grant that uses a browser, unless issuer_url "
                    "is given."
                ]
        known = {variable.name for variable in provider.variables}
        if INSTANCE in given and "login_host" in given:
            problems[INSTANCE] = ["It is another way to say login_host; give either."]
        for name in {*VARIABLES, INSTANCE} - known - ({INSTANCE} if "login_host" in known else set()):
            if name in given:
                problems[name] = [f"{provider.label} has no such variable."]

    def _check_metadata(self, problems: dict[str, list[str]]) -> None:
        metadata = self.metadata
        if metadata is None:
            raise ValueError("the issuer was not asked")
        if self.grant.uses_browser and not metadata.authorization_endpoint:
            problems["issuer_url"] = ["The issuer's metadata names no authorization_endpoint."]

    def _variables(self, problems: dict[str, list[str]]) -> dict[str, str]:
        values = {}
        for variable in self.provider.variables:
            value = self.given.get(variable.name, variable.default)
            if variable.name == "login_host" and INSTANCE in self.given:
                value = f"{self.given[INSTANCE]}.my.salesforce.com"
            pattern, meaning = variable.pattern, variable.meaning
            if value is None:
                problems[variable.name] = [f"{self.provider.label} needs this field: {meaning}."]
            elif not re.fullmatch(pattern, value):
                problems[variable.name] = [f"Must be {meaning}."]
            elif self.grant is GrantType.CLIENT_CREDENTIALS and not re.fullmatch(
                variable.client_credentials_pattern or pattern, value
            ):
                problems[variable.name] = [f"The grant client_credentials needs a {variable.name} of its own."]
            else:
                values[variable.name] = value
        return values

    def _auth_method(self, problems: dict[str, list[str]]) -> TokenAuthMethod:
        has_secret, has_certificate = bool(self.given.get("client_secret")), self.certificate is not None
        chosen = self.given.get("token_auth_method")
        if self.grant is GrantType.IMPLICIT:
            # Nothing goes to a token endpoint.
            return TokenAuthMethod(chosen) if chosen else TokenAuthMethod.NONE
        method = TokenAuthMethod(chosen) if chosen else self._usual_method(problems)
        if not has_secret and chosen != TokenAuthMethod.NONE and not has_certificate:
            problems["client_secret"] = [
                "This field is required, unless mtls_certificate_id is given or token_auth_method is none."
            ]
        elif not has_secret and chosen and chosen != TokenAuthMethod.NONE:
            problems["token_auth_method"] = [f"{chosen} needs a client_secret."]
        elif self.grant is GrantType.CLIENT_CREDENTIALS and method is TokenAuthMethod.NONE and not has_certificate:
            problems["token_auth_method"] = [
                "The grant client_credentials needs a client that authenticates (RFC 6749 §4.4)."
            ]
        return method

    def _usual_method(self, problems: dict[str, list[str]]) -> TokenAuthMethod:
        has_secret = bool(self.given.get("client_secret"))
        if self.metadata is None:
            return self.provider.token_auth_method if has_secret else TokenAuthMethod.NONE
        try:
            return self.metadata.preferred_auth_method(has_secret, has_certificate=self.certificate is not None)
        except MetadataRefused as err:
            problems["token_auth_method"] = [str(err)]
            return TokenAuthMethod.BASIC

    def _default_scopes(self) -> tuple[str, ...]:
        match self.grant:
            case GrantType.AUTHORIZATION_CODE:
                return self.provider.default_scopes
            case GrantType.IMPLICIT:
                return tuple(s for s in self.provider.default_scopes if s not in self.provider.offline_scopes)
            case GrantType.CLIENT_CREDENTIALS:
                return self.provider.client_credentials_scopes
        return ()

    def _built(self, variables: dict[str, str], method: TokenAuthMethod) -> OAuthClient:
        given, provider, metadata = self.given, self.provider, self.metadata
        code = self.grant is GrantType.AUTHORIZATION_CODE
        scopes = given["scopes"] if "scopes" in given else self._default_scopes()
        return OAuthClient(
            provider=provider.name,
            grant_type=self.grant,
            client_id=given["client_id"],
            client_secret=given.get("client_secret"),
            username=given.get("username"),
            password=given.get("password"),
            scopes=tuple(scopes),
            **self._addresses(variables),
            issuer_url=given.get("issuer_url"),
            issuer=metadata.issuer if metadata else provider.issuer_of(variables),
            requires_iss=metadata.requires_iss if metadata else False,
            variables=variables,
            return_url=given.get("return_url"),
            authorize_params={**provider.authorize_params, **given.get("authorize_params", {})} if code else {},
            token_params={**provider.token_params, **given.get("token_params", {})},
            token_auth_method=method,
            pkce=given.get("pkce", metadata.pkce if metadata else provider.pkce),
            replay_policy=ReplayPolicy(given.get("replay_policy", provider.replay_policy)),
            scope_separator=given.get("scope_separator", provider.scope_separator),
            default_expires_in=given.get("default_expires_in", provider.default_expires_in),
            chosen=tuple(name for name in CHOICES if name in given),
        )

    def _addresses(self, variables: Mapping[str, str]) -> dict[str, Any]:
        given, provider, metadata = self.given, self.provider, self.metadata
        if metadata is not None:
            return {
                "auth_url": metadata.authorization_endpoint or "",
                "token_url": metadata.token_endpoint,
                "revocation_url": metadata.revocation_endpoint,
                "mtls_token_url": metadata.mtls_token_endpoint,
                "mtls_revocation_url": metadata.mtls_revocation_endpoint,
            }
        return {
            "auth_url": given.get("auth_url") or provider.auth_url.format(**variables),
            "token_url": given.get("token_url") or provider.token_url.format(**variables),
            "revocation_url": given.get("revocation_url"),
        }


def given_of(client: OAuthClient) -> dict[str, Any]:
    """What ``client`` was configured with, as a request names it; what only follows from the rest is left out."""
    provider = client.preset
    said: dict[str, Any] = {
        "client_id": client.client_id,
        "client_secret": client.client_secret,
        "username": client.username,
        "password": client.password,
        "return_url": client.return_url,
        "issuer_url": client.issuer_url,
        **client.variables,
    }
    knobs = ("replay_policy", "scope_separator", "default_expires_in")
    said |= {name: value for name in knobs if (value := getattr(client, name)) != getattr(provider, name)}
    said |= {name: getattr(client, name) for name in client.chosen}
    if provider.name == CUSTOM and not client.issuer_url:
        said |= {name: getattr(client, name) or None for name in ADDRESSES}
    elif client.revocation_url and not client.issuer_url:
        said["revocation_url"] = client.revocation_url
    for name in ("authorize_params", "token_params"):
        own = {k: v for k, v in getattr(client, name).items() if getattr(provider, name).get(k) != v}
        if own:
            said[name] = own
    said["scopes"] = list(client.scopes)
    return {name: value for name, value in said.items() if value is not None}


def find_certificate(scope: Scope, certificate_id: uuid.UUID) -> Certificate:
    """The certificate with this id that can be shown to a token endpoint. Raises ``ValidationFailed``."""
    certificate = Certificate.objects.filter(
        secret_id=certificate_id, account_id=scope.account_id, secret__mode=scope.mode
    ).first()
    if certificate is None:
        raise invalid("mtls_certificate_id", "There is no certificate with this id.")
    if certificate.private_key is None:
        raise invalid("mtls_certificate_id", "The certificate holds no private key, so it proves nothing.")
    return certificate
