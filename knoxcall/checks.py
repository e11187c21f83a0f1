"""Numbered system checks of our own. `manage.py check --deploy` prints them; web and worker refuse to start on an error."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register, run_checks
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import ImproperlyConfigured

# A shorter prefix than these is not one's own network.
_WIDEST = {4: 8, 6: 16}


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only mean this machine: `localhost` or a loopback address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@register(Tags.security, deploy=True)
def check_production(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """Refuse what would be unsafe with strangers' credentials. The embedded default is not production."""
    if settings.EMBEDDED:
        return []
    found: list[CheckMessage] = []
    base = urlsplit(settings.KNOXCALL_BASE_URL)
    if base.scheme != "https" and not is_loopback(base.hostname or ""):
        found.append(
            Error(
                "KNOXCALL_BASE_URL is plain http on a host that is not this machine.",
                hint="Consent and tokens would cross the network in the clear. Use https.",
                id="knoxcall.E001",
            )
        )
    if len(settings.SECRET_KEY) < 50 or len(set(settings.SECRET_KEY)) < 5:
        found.append(Error("SECRET_KEY is too short or too regular.", hint="50 random characters.", id="knoxcall.E002"))
    if settings.VALKEY_SOCKET is not None:
        found.append(
            Error(
                "REDIS_URL is not set.",
                hint="Web and worker machines meet at one Redis or Valkey: redis://host:6379/0.",
                id="knoxcall.E003",
            )
        )
    wide = [network for network in settings.KNOXCALL_OUTBOUND_ALLOW if network.prefixlen < _WIDEST[network.version]]
    if wide:
        found.append(
            Error(
                "KNOXCALL_OUTBOUND_ALLOW exempts the whole internet from the outbound address filter.",
                hint="Name the networks of your own providers only.",
                id="knoxcall.E004",
            )
        )
    if any(network.prefixlen < _WIDEST[network.version] for network in settings.KNOXCALL_TRUSTED_PROXIES):
        found.append(
            Error(
                "KNOXCALL_TRUSTED_PROXIES believes everybody's X-Forwarded-For.",
                hint="Name your reverse proxies.",
                id="knoxcall.E005",
            )
        )
    if settings.DEBUG:
        found.append(Error("DEBUG is on.", id="knoxcall.E006"))
    if settings.KNOXCALL_OUTBOUND_ALLOW and not wide:
        loopback = [n for n in settings.KNOXCALL_OUTBOUND_ALLOW if n.is_loopback]
        if loopback and not is_loopback(base.hostname or ""):
            found.append(
                CheckWarning(
                    "KNOXCALL_OUTBOUND_ALLOW lets tenants reach services on this machine's loopback.",
                    id="knoxcall.W001",
                )
            )
    return found


@register(Tags.security)
def check_master_keys(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """The root keys must be readable everywhere, or nothing that is stored can be opened."""
    from django.utils.module_loading import import_string

    try:
        import_string("secrets_app.crypto.keyring.RootKeys").parse(settings.KNOXCALL_MASTER_KEYS)
    except ImproperlyConfigured as err:
        return [Error(str(err), id="knoxcall.E007")]
    return []


def refuse_unsafe_settings() -> None:
    """Raise ``ImproperlyConfigured`` with every error that the deploy checks of this project find."""
    errors = [
        message
        for message in run_checks(
            tags=[Tags.security, Tags.database], include_deployment_checks=True, databases=["default"]
        )
        if message.is_serious() and (message.id or "").startswith(("knoxcall.", "secrets_app."))
    ]
    if errors:
        raise ImproperlyConfigured(
            " ".join(f"[{message.id}] {message.msg} {message.hint or ''}".strip() for message in errors)
        )
