"""The metadata document, by which clients find the endpoints (RFC 8414, OpenID Connect Discovery 1.0)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .provider import FakeProvider


def document(provider: FakeProvider) -> dict[str, Any]:
    """What the provider says of itself, with the `metadata` switch merged over it."""
    says: dict[str, Any] = {
        "issuer": provider.issuer,
        "authorization_endpoint": provider.authorize_url,
        "token_endpoint": provider.token_url,
        "revocation_endpoint": provider.revoke_url,
        "response_types_supported": ["code", "token"],
        "grant_types_supported": ["authorization_code", "implicit", "refresh_token", "client_credentials", "password"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "code_challenge_methods_supported": ["S256"],
    }
    if provider.requires_client_certificate or provider.client_certificate_sha256:
        says["token_endpoint_auth_methods_supported"] = ["tls_client_auth", "self_signed_tls_client_auth"]
    if provider.iss:
        says["authorization_response_iss_parameter_supported"] = True
    if provider.mtls_endpoint_aliases is not None:
        says["mtls_endpoint_aliases"] = provider.filled(provider.mtls_endpoint_aliases)
    says |= provider.filled(provider.metadata)
    return {name: value for name, value in says.items() if value is not None}
