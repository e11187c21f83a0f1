"""Where the vault calls: the networks that it refuses, the form of the URLs that it accepts, and the look-up of names.

The networks are our own list: `ipaddress.is_private` and `is_global` change between Python releases, and answer another
question.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from concurrent.futures import Future
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple, TypeAlias

import idna
from django.conf import settings

Address: TypeAlias = IPv4Address | IPv6Address

MAX_URL_LENGTH = 2048
DEFAULT_PORTS: Final = {"https": 443, "http": 80}
# A look-up cannot be interrupted: against a dead resolver each one keeps its thread for 10 s and more.
MAX_LOOK_UPS = 64
LOOPBACK: Final[tuple[Address, ...]] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))

# The IANA IPv4 Special-Purpose Address Registry, and below it what is no less internal but not in it. Blocks that the
# registry lists inside a larger one are left out.
REFUSED_IPV4: Final = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network (RFC 791); Linux connects 0.0.0.0 to loopback
        "10.0.0.0/8",  # private use (RFC 1918)
        "100.64.0.0/10",  # shared address space of carriers and clouds (RFC 6598)
        "127.0.0.0/8",  # loopback (RFC 1122)
        "169.254.0.0/16",  # link-local (RFC 3927), where most clouds answer with credentials
        "172.16.0.0/12",  # private use (RFC 1918)
        "192.0.0.0/24",  # IETF protocol assignments (RFC 6890)
        "192.0.2.0/24",  # documentation (RFC 5737)
        "192.31.196.0/24",  # AS112-v4 (RFC 7535)
        "192.52.193.0/24",  # AMT (RFC 7450)
        "192.88.99.0/24",  # 6to4 relay anycast (RFC 7526)
        "192.168.0.0/16",  # private use (RFC 1918)
        "192.175.48.0/24",  # direct delegation AS112 service (RFC 7534)
        "198.18.0.0/15",  # benchmarking (RFC 2544)
        "198.51.100.0/24",  # documentation (RFC 5737)
        "203.0.113.0/24",  # documentation (RFC 5737)
        "240.0.0.0/4",  # reserved (RFC 1112), with limited broadcast (RFC 919)
        "168.63.129.16/32",  # Azure's host agent: a public address that is inside every virtual network
        "224.0.0.0/4",  # multicast (RFC 5771)
    )
)

# The IANA IPv6 Special-Purpose Address Registry, and below it whatever else is not global unicast.
REFUSED_IPV6: Final = tuple(
    IPv6Network(block)
    for block in (
        "::/128",  # unspecified (RFC 4291)
        "::1/128",  # loopback (RFC 4291)
        "::ffff:0:0/96",  # IPv4-mapped (RFC 4291)
        "64:ff9b::/96",  # IPv4 behind the well-known NAT64 prefix (RFC 6052)
        "64:ff9b:1::/48",  # IPv4 behind a local NAT64 (RFC 8215)
        "100::/64",  # discard only (RFC 6666)
        "100:0:0:1::/64",  # dummy prefix (RFC 9780)
        "2001::/23",  # IETF protocol assignments (RFC 2928): Teredo, benchmarking, ORCHID, AMT
        "2001:db8::/32",  # documentation (RFC 3849)
        "2002::/16",  # 6to4 (RFC 3056)
        "2620:4f:8000::/48",  # direct delegation AS112 service (RFC 7534)
        "3fff::/20",  # documentation (RFC 9637)
        "5f00::/16",  # segment routing SIDs (RFC 9602)
        "fc00::/7",  # unique local (RFC 4193), with the metadata services of AWS and Google
        "fe80::/10",  # link-local (RFC 4291)
        "::/96",  # IPv4-compatible (RFC 4291)
        "fec0::/10",  # site-local, deprecated but still routed by old networks (RFC 3879)
        "ff00::/8",  # multicast (RFC 4291)
        # Global unicast is 2000::/3 (RFC 4291): what lies around it is no provider's, whatever it becomes.
        "::/3",
        "4000::/2",
        "8000::/1",
    )
)


class UrlRefused(ValueError):
    """The URL is not one that the vault calls. The message says why in plain words, and repeats no part of the URL."""


class Target(NamedTuple):
    """A URL that passed, taken apart once: what was checked is what is connected to."""

    scheme: str
    host: str
    """Lower case and ASCII; an IPv6 address stands without brackets."""
    port: int
    path: str
    """With the query, byte for byte as it was written."""


def is_exempt(address: Address) -> bool:
    """Whether ``address`` is in KNOXCALL_OUTBOUND_ALLOW. An IPv4-mapped address is where its IPv4 address is."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        address = address.ipv4_mapped or address
    return any(address in network for network in settings.KNOXCALL_OUTBOUND_ALLOW)


def is_refused(address: Address, *, plain_http: bool = False) -> bool:
    """Whether the vault never connects to ``address``; without TLS it connects to exempt addresses only.

    IPv4 inside IPv6 is refused whatever the IPv4 address is: public hosts have one of their own. Only where all of IPv4
    is behind NAT64 does the operator have to exempt `64:ff9b::/96`.
    """
    if is_exempt(address):
        return False
    if plain_http:
        return True
    if isinstance(address, IPv4Address):
        return any(address in network for network in REFUSED_IPV4)
    # A scope names an interface of this machine.
    return address.scope_id is not None or any(address in network for network in REFUSED_IPV6)


def is_localhost(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


def check_url(url: str) -> str:
    """Return ``url`` if the vault may be told to call it. Only its form is looked at: names are looked up in a call.

    It takes https, and http where the host is an exempt address, or `localhost` while loopback is exempt. Raises
    ``UrlRefused``.
    """
    parse_url(url)
    return url


def parse_url(url: str) -> Target:
    """Take ``url`` apart, under the rules of ``check_url``. Raises ``UrlRefused``."""
    if len(url) > MAX_URL_LENGTH:
        raise UrlRefused(f"The URL is longer than {MAX_URL_LENGTH} characters.")
    if _NEVER_IN_A_URL.search(url):
        raise UrlRefused("The URL contains a space, a control character or a backslash.")
    if "#" in url:
        raise UrlRefused("The URL has a fragment: leave out the # and what follows it.")
    parts = _URL.fullmatch(url)
    if parts is None:
        raise UrlRefused("The URL must start with https:// and name a host.")
    scheme, authority, path = parts["scheme"].lower(), parts["authority"], parts["path"]
    if not path.isascii():
        raise UrlRefused("The URL's path or query has characters other than ASCII: percent-encode them.")
    if "@" in authority:
        raise UrlRefused("The URL must not carry a user name or password.")
    if (place := _AUTHORITY.fullmatch(authority)) is None:
        raise UrlRefused("The URL's host or port is not valid.")
    host = _check_host(place["host"], scheme=scheme)
    port = int(place["port"] or DEFAULT_PORTS[scheme])
    if not 0 < port < 65536:
        raise UrlRefused("The URL's port must be between 1 and 65535.")
    return Target(scheme, host, port, path if path.startswith("/") else f"/{path}")


def in_ascii(url: str) -> str:
    """Return ``url`` as it can stand in a header: an international host in its ASCII form (RFC 5891). Raises ``UrlRefused``."""
    target = parse_url(url)
    if url.isascii():
        return url
    port = "" if target.port == DEFAULT_PORTS[target.scheme] else f":{target.port}"
    return f"{target.scheme}://{target.host}{port}{target.path}"


# Of non-ASCII, what IDNA does not know falls to it later; separators and unseen characters fall here.
_NEVER_IN_A_URL = re.compile(r"[\s\x00-\x20\x7f-\xa0\\]")
_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?]+)(?P<path>.*)", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]+)(?::(?P<port>[0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# What `inet_aton` takes for an address ends in one of these: 127.1, 0x7f.1, 017700000001, 2130706433.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def _check_host(host: str, *, scheme: str) -> str:
    """Return ``host`` in the form that is looked up and sent. Raises ``UrlRefused``."""
    if "%" in host:
        raise UrlRefused("The URL's host must not be percent-encoded, nor an IPv6 address carry a zone.")
    address = _find_address(host)
    if address is not None:
        if is_refused(address):
            raise UrlRefused("The URL's host is an address in a network that the vault does not call.")
        if is_refused(address, plain_http=scheme == "http"):
            raise UrlRefused("The URL must be https.")
        return str(address)
    name = _check_name(host)
    if is_localhost(name) and all(is_refused(address) for address in LOOPBACK):
        raise UrlRefused("The URL's host is this machine, which the vault does not call.")
    if scheme == "http" and name != "localhost":
        raise UrlRefused("The URL must be https.")
    return name


def _find_address(host: str) -> Address | None:
    """The address that ``host`` is, or None for a name. Raises ``UrlRefused`` for all but the plain spelling."""
    try:
        if host.startswith("["):
            return IPv6Address(host[1:-1])
        if _NUMBER.fullmatch(host.lower().rstrip(".").rpartition(".")[2]):
            return IPv4Address(host)
    except ValueError:
        raise UrlRefused("The URL's host is not a valid address: write IPv4 as four decimal numbers.") from None
    return None


def _check_name(host: str) -> str:
    try:
        # Strict, and without the mapping of UTS 46: it would turn `１２７．０．０．１` into an address.
        name = host.lower() if host.isascii() else idna.encode(host.lower(), strict=True, std3_rules=True).decode()
    except UnicodeError:
        raise UrlRefused("The URL's host is not a valid international domain name.") from None
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels) or _NUMBER.fullmatch(labels[-1]):
        raise UrlRefused("The URL's host is not a valid name: letters, digits and hyphens, without a dot at the end.")
    return name


def resolve(host: str, *, seconds: float) -> list[Address]:
    """The addresses of ``host``, unfiltered. Raises ``OSError``, which is ``TimeoutError`` after ``seconds``."""
    if is_localhost(host):
        # RFC 6761 §6.3: always loopback, whatever a resolver says. Where part of it is exempt, that part is meant.
        return [address for address in LOOPBACK if is_exempt(address)] or list(LOOPBACK)
    try:
        return [ip_address(host)]
    except ValueError:
        return _look_up_within(host, seconds=seconds)


def look_up(host: str) -> list[Address]:
    """Ask the system's resolver for the addresses of ``host``, once. Raises ``OSError``."""
    answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(str(socket_address[0])) for *_, socket_address in answers))


_look_ups = threading.BoundedSemaphore(MAX_LOOK_UPS)


def _look_up_within(host: str, *, seconds: float) -> list[Address]:
    """``look_up`` in a thread that may outlast the wait for it. A daemon, so that it holds up no process that stops."""
    ends_at = time.monotonic() + seconds
    slots = _look_ups
    if not slots.acquire(timeout=max(seconds, 0)):
        raise TimeoutError
    answer: Future[list[Address]] = Future()

    def run() -> None:
        try:
            answer.set_result(look_up(host))
        except (OSError, ValueError) as error:
            answer.set_exception(error)
        finally:
            slots.release()

    try:
        threading.Thread(target=run, name="look-up", daemon=True).start()
    except RuntimeError as error:
        slots.release()
        raise OSError("no thread to spare") from error
    try:
        return answer.result(timeout=max(ends_at - time.monotonic(), 0))
    except ValueError as error:
        raise OSError("not a name that can be looked up") from error


def _free_look_ups() -> None:
    global _look_ups
    _look_ups = threading.BoundedSemaphore(MAX_LOOK_UPS)


# The threads that would give their slots back stay behind in the parent.
os.register_at_fork(after_in_child=_free_look_ups)
