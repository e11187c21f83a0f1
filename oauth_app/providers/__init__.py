"""The providers that are known by name. A preset is data; `PROVIDERS` is the registry, a literal dict."""

from oauth_app.providers.presets import CUSTOM, PROVIDERS
from oauth_app.providers.provider import (
    BodyFormat,
    Provider,
    ReplayPolicy,
    Revocation,
    RevocationStyle,
    TokenAuthMethod,
    Variable,
)

__all__ = [
    "CUSTOM",
    "PROVIDERS",
    "BodyFormat",
    "Provider",
    "ReplayPolicy",
    "Revocation",
    "RevocationStyle",
    "TokenAuthMethod",
    "Variable",
]
