"""A person with a browser, over HTTP: cookies, redirects one by one, and forms; no script runs."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPSConnection
from typing import NamedTuple
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit

from urllib3.filepost import encode_multipart_formdata

from tests.support.cookies import CookieJar, site
from tests.support.pages import Page

MOST_REDIRECTS = 20
TIMEOUT_SECONDS = 30
FORM_ENCODED = "application/x-www-form-urlencoded"


class Visit(NamedTuple):
    """One request that the browser made, with the URL as its address bar had it, fragment and all."""

    method: str
    url: str
    status: int


class TooManyRedirectsError(Exception):
    """The redirects did not come to an end."""


@dataclass(frozen=True)
class _Request:
    """One step of a navigation, or of a script's call."""

    method: str
    url: str
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] | None = None
    initiator: Page | None = None
    """The page that asked for it; None if a person typed the address."""
    top_level: bool = True
    crossed_sites: bool = False
    """Whether a redirect on the way here led from one site to another."""

    @property
    def target(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def is_same_site(self) -> bool:
        if self.crossed_sites:
            return False
        return self.initiator is None or site(urlsplit(self.initiator.url)) == site(self.target)

    def redirected(self, status: int, location: str) -> _Request:
        """The next step; Fetch §4.4 decides on the method, and a fragment is carried along if there is no new one."""
        url = urljoin(self.url, location)
        if not urlsplit(url).fragment:
            url = urlsplit(url)._replace(fragment=self.target.fragment).geturl()
        crossed = self.crossed_sites or site(self.target) != site(urlsplit(url))
        becomes_get = (status in (301, 302) and self.method == "POST") or (status == 303 and self.method != "HEAD")
        if becomes_get:
            return replace(self, url=url, method="GET", body=b"", content_type="", crossed_sites=crossed)
        return replace(self, url=url, crossed_sites=crossed)


class Browser:
    """One browser profile: what it was given by one page it brings to the next.

    `visits` records every request, redirects included. With an `ssl_context` it also opens https.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self.cookies = CookieJar()
        self.visits: list[Visit] = []
        self.address = ""
        """What the address bar shows: where the last navigation got to, even if nobody answered there."""
        self._ssl_context = ssl_context

    def open(self, url: str) -> Page:
        """Type an address; follows redirects until there is a page."""
        return self._go(_Request("GET", url))

    def follow(self, page: Page, link: str) -> Page:
        """Click a link of the page, by its text."""
        return self._go(_Request("GET", page.link(link), initiator=page))

    def submit(self, page: Page, form: int | str = 0, *, click: str | None = None, **fields: str | bool) -> Page:
        """Fill in a form of the page and press a button: the one with this name or label, or else the first.

        Hidden fields go along as they are. Raises `LookupError` for a form, a field or a button that is not there.
        """
        found = page.form(form)
        pairs = found.filled(fields, click=click)
        if found.method == "GET":
            url = urlsplit(found.action)._replace(query=urlencode(pairs), fragment="").geturl()
            return self._go(_Request("GET", url, initiator=page))
        if found.enctype == "multipart/form-data":
            body, content_type = encode_multipart_formdata(pairs)
        else:
            body, content_type = urlencode(pairs).encode(), FORM_ENCODED
        return self._go(_Request("POST", found.action, body, content_type, initiator=page))

    def fetch(
        self,
        page: Page,
        url: str,
        *,
        method: str = "POST",
        body: bytes | Mapping[str, str] = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Page:
        """What a script of the page gets from `fetch`, credentials included; a mapping is sent form-encoded."""
        content_type = ""
        if isinstance(body, Mapping):
            body, content_type = urlencode(body).encode(), FORM_ENCODED
        target = urljoin(page.url, url)
        return self._go(_Request(method, target, body, content_type, headers, initiator=page, top_level=False))

    def _go(self, request: _Request) -> Page:
        for _ in range(MOST_REDIRECTS + 1):
            page = self._send(request)
            location = page.headers.get("Location")
            if page.status not in (301, 302, 303, 307, 308) or location is None:
                return page
            request = request.redirected(page.status, location)
        raise TooManyRedirectsError(f"{MOST_REDIRECTS} redirects, and the next is {request.url}")

    def _send(self, request: _Request) -> Page:
        target = request.target
        if request.top_level:
            self.address = request.url
        cookies = self.cookies.header(
            target,
            same_site=request.is_same_site,
            top_level_get=request.top_level and request.method in ("GET", "HEAD"),
        )
        headers = {
            "User-Agent": "Mozilla/5.0 (a person in a test)",
            "Accept": "text/html,application/xhtml+xml,*/*;q=0.8" if request.top_level else "*/*",
            "Accept-Language": "en",
            **_where_from(request),
            **({"Cookie": cookies} if cookies else {}),
            **({"Content-Type": request.content_type} if request.content_type else {}),
            **(request.headers or {}),
        }
        with closing(self._connect(target)) as connection:
            path = (target.path or "/") + (f"?{target.query}" if target.query else "")
            body = request.body if request.method not in ("GET", "HEAD") else None
            connection.request(request.method, path, body, headers)
            response = connection.getresponse()
            page = Page(response.status, request.url, response.headers, response.read())
        self.visits.append(Visit(request.method, request.url, page.status))
        # A top-level navigation may set any cookie of its own site; a script's cross-site call may not.
        for set_cookie in page.headers.get_all("Set-Cookie", []):
            self.cookies.store(set_cookie, target, same_site=request.top_level or request.is_same_site)
        return page

    def _connect(self, target: SplitResult) -> HTTPConnection:
        if target.scheme == "http":
            return HTTPConnection(target.hostname, target.port, timeout=TIMEOUT_SECONDS)
        if target.scheme == "https":
            return HTTPSConnection(target.hostname, target.port, timeout=TIMEOUT_SECONDS, context=self._ssl_context)
        raise HTTPException(f"This browser does not open {target.scheme}: addresses")


def _where_from(request: _Request) -> dict[str, str]:
    """`Referer` and `Origin`, as the policy of the page that asks allows them."""
    if request.initiator is None:
        return {}
    policy = _referrer_policy(request.initiator.headers)
    page = urlsplit(request.initiator.url)
    origin = f"{page.scheme}://{page.netloc}"
    is_same_origin = (page.scheme, page.netloc) == (request.target.scheme, request.target.netloc)
    is_downgrade = page.scheme == "https" and request.target.scheme == "http"
    headers = {}
    if policy == "unsafe-url" or (is_same_origin and policy not in ("no-referrer", "origin", "strict-origin")):
        headers["Referer"] = page._replace(fragment="").geturl()
    elif policy not in ("no-referrer", "same-origin") and not is_downgrade:
        headers["Referer"] = f"{origin}/"
    if request.method not in ("GET", "HEAD"):
        # Fetch, "append a request Origin header": a form of a page that names no referrer names no origin either, while
        # a script's call always says where it is from.
        is_hidden = request.top_level and (policy == "no-referrer" or (policy == "same-origin" and not is_same_origin))
        headers["Origin"] = "null" if is_hidden or (request.top_level and is_downgrade) else origin
    elif not request.top_level and not is_same_origin:
        headers["Origin"] = origin
    return headers


def _referrer_policy(headers: HTTPMessage) -> str:
    named = headers.get("Referrer-Policy", "").split(",")[-1].strip().lower()
    return named or "strict-origin-when-cross-origin"
