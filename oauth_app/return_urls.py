"""Where a browser may be sent after a consent: to addresses of origins that the account listed, and nowhere else.

An open redirect on a page that people trust is a gift to whoever collects credentials.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

from oauth_app.models import ReturnOrigin

# What the browser brings there, and nothing else.
PARAMETERS = ("secret_id", "environment", "result")
LONGEST = 2048

_DEFAULT_PORTS = {"https": 443, "http": 80}
# One spelling only, of which every browser thinks the same: no user name, no backslash, no space, no other script.
_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:]{2,45}\])(?::(?P<port>[0-9]{1,5}))?",
    # Without ASCII, a long s would be an s, and the Kelvin sign a k.
    re.IGNORECASE | re.ASCII,
)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PATH = re.compile(r"(?:[/?][!$-;=?-Z\[\]_a-z~%]*)?")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class _Parts(NamedTuple):
    origin: str
    path: str


def normal_origin(text: str) -> str:
    """``text`` as browsers spell an origin (RFC 6454 §6.2): lower case, without the usual port. Raises ``ValueError``.

    It is https, or http on this machine.
    """
    parts = _split(text.strip())
    if parts.path not in ("", "/"):
        raise ValueError("Must be an origin, such as https://app.example.com, without a path.")
    return parts.origin


def check_return_url(account_id: uuid.UUID, url: str) -> str:
    """Return ``url`` if a browser may be sent there after a consent of that account. Raises ``ValueError`` with the reason."""
    parts = _split(url)
    named = {name for name, _ in parse_qsl(parts.path.partition("?")[2], keep_blank_values=True)}
    if not named.isdisjoint(PARAMETERS):
        raise ValueError(f"Must not have a parameter {', '.join(PARAMETERS)}: these are added to it.")
    if not ReturnOrigin.objects.filter(account_id=account_id, origin=parts.origin).exists():
        raise ValueError(
            f"The origin {parts.origin} is not allowed for this account. "
            "An operator can add it in the admin or with manage.py allow_origin."
        )
    return url


def return_address(url: str, *, secret_id: uuid.UUID, environment: str, result: str) -> str:
    """``url`` with what the page there needs to know."""
    query = urlencode({"secret_id": str(secret_id), "environment": environment, "result": result})
    return f"{url}{'&' if '?' in url else '?'}{query}"


def _split(url: str) -> _Parts:
    found = _ORIGIN.match(url)
    if len(url) > LONGEST or found is None:
        raise ValueError("Must be an address that starts with https:// and a host in plain ASCII.")
    scheme, host = found["scheme"].lower(), _host(found["host"].lower())
    path = url[found.end() :]
    if not _PATH.fullmatch(path):
        raise ValueError("Must not contain a fragment, a user name, or characters that need percent-encoding.")
    port = int(found["port"] or _DEFAULT_PORTS[scheme])
    if not 0 < port < 65536:
        raise ValueError("The port must be between 1 and 65535.")
    if scheme == "http" and host not in _LOOPBACK:
        raise ValueError("Must be https; http is for this machine only.")
    shown_port = "" if port == _DEFAULT_PORTS[scheme] else f":{port}"
    return _Parts(f"{scheme}://{host}{shown_port}", path)


def _host(host: str) -> str:
    """``host`` as browsers spell it. They take a name whose last part is a number for an IPv4 address, in any old notation."""
    try:
        if host.startswith("["):
            return f"[{ipaddress.IPv6Address(host[1:-1])}]"
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            return str(ipaddress.IPv4Address(host))
    except ValueError:
        raise ValueError("The host must be a name, or an address in its usual notation.") from None
    if ".." in host:
        raise ValueError("The host must not have empty parts.")
    return host
