"""The providers that are known by name. A preset is data; `PROVIDERS` is the registry, a literal dict."""

from oauth_app.providers.presets import CUSTOM, PROVIDERS
from oauth_app.providers.provider import Provider, ReplayPolicy, TokenAuthMethod

__all__ = ["CUSTOM", "PROVIDERS", "Provider", "ReplayPolicy", "TokenAuthMethod"]
