"""What we are to a provider, the connections we hold there, the consents under way, and what became of them."""

from oauth_app.models.clients import ClientRegistration, GrantType, Issuer
from oauth_app.models.connections import Connection, ConnectionEvent, DatabaseReturn, RevocationJob
from oauth_app.models.consents import AuthorizationRequest, ConsentLink, ReturnOrigin

__all__ = [
    "AuthorizationRequest",
    "ClientRegistration",
    "Connection",
    "ConnectionEvent",
    "ConsentLink",
    "DatabaseReturn",
    "GrantType",
    "Issuer",
    "ReturnOrigin",
    "RevocationJob",
]
