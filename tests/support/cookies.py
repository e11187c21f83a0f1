"""A browser's cookies (RFC 6265 and its revision): which are kept, and which go along with a request.

Ports are ignored, as browsers ignore them. `Secure` is taken at its word even on loopback, where some browsers relax
it.
"""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult


@dataclass(frozen=True)
class Cookie:
    name: str
    value: str
    domain: str
    path: str
    host_only: bool = True
    secure: bool = False
    http_only: bool = False
    same_site: str = "lax"
    """`strict`, `lax`, or `none`; a cookie that says nothing is lax."""
    expires_at: float | None = None
    """Seconds since the epoch; None lasts until the browser is closed."""

    def is_for(self, url: SplitResult) -> bool:
        host = url.hostname or ""
        return (
            (host == self.domain if self.host_only else _domain_matches(host, self.domain))
            and _path_matches(url.path or "/", self.path)
            and (url.scheme == "https" or not self.secure)
            and (self.expires_at is None or self.expires_at > time.time())
        )

    def may_travel(self, *, same_site: bool, top_level_get: bool) -> bool:
        """Whether a request of this kind may carry the cookie."""
        return same_site or self.same_site == "none" or (self.same_site == "lax" and top_level_get)


class CookieJar:
    """The cookies of one browser profile."""

    def __init__(self) -> None:
        self._cookies: dict[tuple[str, str, str], Cookie] = {}

    def __iter__(self):
        return iter(list(self._cookies.values()))

    def __len__(self) -> int:
        return len(self._cookies)

    def get(self, name: str) -> Cookie | None:
        """The cookie of this name; of several, that of the longest path."""
        return max((cookie for cookie in self if cookie.name == name), key=lambda found: len(found.path), default=None)

    def clear(self) -> None:
        self._cookies.clear()

    def store(self, set_cookie: str, url: SplitResult, *, same_site: bool = True) -> None:
        """Keep, replace or delete a cookie, as a response from this URL says; drop what a browser would refuse."""
        cookie = _parse(set_cookie, url)
        if cookie is None or (cookie.same_site != "none" and not same_site):
            return
        key = (cookie.domain, cookie.path, cookie.name)
        if cookie.expires_at is not None and cookie.expires_at <= time.time():
            self._cookies.pop(key, None)
        else:
            self._cookies[key] = cookie

    def header(self, url: SplitResult, *, same_site: bool, top_level_get: bool) -> str:
        """The `Cookie` header of a request, empty if there is nothing to send."""
        sent = [
            cookie
            for cookie in self
            if cookie.is_for(url) and cookie.may_travel(same_site=same_site, top_level_get=top_level_get)
        ]
        # Longer paths come first (RFC 6265 §5.4).
        sent.sort(key=lambda cookie: -len(cookie.path))
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in sent)


def site(url: SplitResult) -> tuple[str, str]:
    """What `SameSite` compares: the scheme, and the registrable domain; a host that is an address is its own.

    Without the public suffix list the last two labels have to do.
    """
    host = url.hostname or ""
    return url.scheme, host if _is_address(host) else ".".join(host.split(".")[-2:])


def _parse(set_cookie: str, url: SplitResult) -> Cookie | None:
    pair, *rest = set_cookie.split(";")
    name, separator, value = pair.partition("=")
    name, value = name.strip(), value.strip()
    if not separator or not name:
        return None
    attributes = {}
    for attribute in rest:
        key, _, text = attribute.partition("=")
        attributes[key.strip().lower()] = text.strip()

    host = url.hostname or ""
    domain = attributes.get("domain", "").lstrip(".").lower()
    path = attributes.get("path", "")
    secure = "secure" in attributes
    same_site = attributes.get("samesite", "").lower()
    cookie = Cookie(
        name=name,
        value=value,
        domain=domain or host,
        path=path if path.startswith("/") else _default_path(url.path),
        host_only=not domain or _is_address(host),
        secure=secure,
        http_only="httponly" in attributes,
        same_site=same_site if same_site in ("strict", "none") else "lax",
        expires_at=_expiry(attributes),
    )
    refused = (
        (domain and not _domain_matches(host, domain))
        or (secure and url.scheme != "https")
        or (same_site == "none" and not secure)
        or (name.startswith("__Secure-") and not secure)
        or (name.startswith("__Host-") and not (secure and path == "/" and "domain" not in attributes))
    )
    return None if refused else cookie


def _expiry(attributes: dict[str, str]) -> float | None:
    # Max-Age wins over Expires (RFC 6265 §5.3).
    if attributes.get("max-age", "").lstrip("-").isdigit():
        return time.time() + int(attributes["max-age"])
    if "expires" in attributes:
        try:
            return parsedate_to_datetime(attributes["expires"].replace("-", " ")).timestamp()
        except ValueError:
            return None
    return None


def _default_path(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _path_matches(path: str, cookie_path: str) -> bool:
    return path == cookie_path or path.startswith(cookie_path.rstrip("/") + "/")


def _domain_matches(host: str, domain: str) -> bool:
    return host == domain or (host.endswith("." + domain) and not _is_address(host))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
