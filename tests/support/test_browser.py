"""The browser obeys what real ones obey, seen from a server that says and records whatever a test wants."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest

from tests.support.browser import Browser, TooManyRedirectsError, Visit


class Received(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: str


class Site:
    """A web site at two names of one machine, 127.0.0.1 and localhost, which are two sites to a browser."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self._answers: dict[str, tuple[int, list[tuple[str, str]], bytes]] = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                site.received.append(Received(self.command, self.path, dict(self.headers), body))
                status, headers, answer = site._answers.get(self.path.partition("?")[0], (404, [], b""))
                self.send_response(status)
                for name, value in [*headers, ("Content-Length", str(len(answer)))]:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET  # noqa: N815 - http.server asks for this name

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.here = f"http://127.0.0.1:{self._server.server_port}"
        self.elsewhere = f"http://localhost:{self._server.server_port}"

    def answers(self, path: str, *headers: tuple[str, str], html: str = "", status: int = 200) -> None:
        kept = [("Content-Type", "text/html; charset=utf-8"), *headers]
        self._answers[path] = (status, kept, html.encode())

    def redirects(self, path: str, location: str, *headers: tuple[str, str], status: int = 302) -> None:
        self._answers[path] = (status, [("Location", location), *headers], b"")

    def cookies_of(self, position: int = -1) -> str:
        return self.received[position].headers.get("Cookie", "")

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    served = Site()
    yield served
    served.stop()


def test_redirects_are_followed_one_by_one_and_recorded(site: Site) -> None:
    site.redirects("/start", "/middle?step=2")
    site.redirects("/middle", f"{site.elsewhere}/end", status=303)
    site.answers("/end", html="<title>The  end</title><p>Done.</p>")
    browser = Browser()

    page = browser.open(f"{site.here}/start")

    assert (page.status, page.title, page.text) == (200, "The end", "Done.")
    assert browser.visits == [
        Visit("GET", f"{site.here}/start", 302),
        Visit("GET", f"{site.here}/middle?step=2", 303),
        Visit("GET", f"{site.elsewhere}/end", 200),
    ]


def test_redirects_that_do_not_end_are_given_up(site: Site) -> None:
    site.redirects("/round", "/round")
    with pytest.raises(TooManyRedirectsError):
        Browser().open(f"{site.here}/round")


def test_a_fragment_stays_with_the_browser_and_is_carried_to_the_next_page(site: Site) -> None:
    site.redirects("/start", "/end")
    site.answers("/end")

    page = Browser().open(f"{site.here}/start#access_token=secret")

    assert page.url == f"{site.here}/end#access_token=secret"
    assert [request.path for request in site.received] == ["/start", "/end"]


@pytest.mark.parametrize(("status", "method", "body"), [(302, "GET", ""), (303, "GET", ""), (307, "POST", "a=1")])
def test_a_redirected_form_keeps_its_method_only_where_the_status_says_so(
    site: Site, status: int, method: str, body: str
) -> None:
    site.answers("/form", html='<form method="post" action="/save"><input name="a" value="1"></form>')
    site.redirects("/save", "/done", status=status)
    site.answers("/done")
    browser = Browser()

    browser.submit(browser.open(f"{site.here}/form"))

    assert site.received[1][:2] == ("POST", "/save")
    assert (site.received[2].method, site.received[2].body) == (method, body)


def test_a_form_sends_what_was_entered_with_its_hidden_fields_and_the_pressed_button(site: Site) -> None:
    site.answers(
        "/form",
        html="""
        <form id="other"><input name="q"></form>
        <form id="mine" method="post" action="save?x=1">
          <input type="hidden" name="csrf" value="t&amp;k">
          <input name="who"><input type="password" name="word"><input name="off" disabled value="no">
          <input type="checkbox" name="yes" checked><input type="checkbox" name="no">
          <input type="radio" name="pick" value="1" checked><input type="radio" name="pick" value="2">
          <select name="size"><option value="s">Small<option value="m" selected>Medium</select>
          <select name="plain"><option>First</option><option>Second</option></select>
          <textarea name="note">
one
two</textarea>
          <input type="submit" value="Cancel"><input type="submit" name="allow" value="Authorize">
        </form>""",
    )
    site.answers("/save")
    browser = Browser()
    page = browser.open(f"{site.here}/form")

    browser.submit(page, "mine", click="allow", who="Ada ü", word="p&w", pick="2", no=True)

    assert site.received[-1].path == "/save?x=1"
    assert site.received[-1].body == (
        "csrf=t%26k&who=Ada+%C3%BC&word=p%26w&yes=on&no=on&pick=2&size=m&plain=First&note=one%0Atwo&allow=Authorize"
    )


def test_a_form_of_the_get_kind_becomes_a_query(site: Site) -> None:
    site.answers("/search", html='<form action="/search?old=1"><input name="q"></form>')
    browser = Browser()

    browser.submit(browser.open(f"{site.here}/search"), q="a b")

    assert site.received[-1][:2] == ("GET", "/search?q=a+b")


def test_nobody_fills_in_a_field_that_is_not_there(site: Site) -> None:
    site.answers("/form", html='<form><input name="q"></form>')
    browser = Browser()
    page = browser.open(f"{site.here}/form")

    with pytest.raises(LookupError):
        browser.submit(page, password="x")
    with pytest.raises(LookupError):
        browser.submit(page, click="delete")
    with pytest.raises(LookupError):
        browser.submit(page, "login")


def test_script_and_style_are_not_text_that_people_read(site: Site) -> None:
    site.answers("/", html="<style>p {}</style><p>Hello <b>you</b></p><script>let a = '<p>';</script>")
    assert Browser().open(site.here).text == "Hello you"


def test_cookies_ignore_ports_and_keep_to_their_host(site: Site) -> None:
    other = Site()
    try:
        site.answers("/", ("Set-Cookie", "a=1; Path=/"))
        browser = Browser()
        browser.open(site.here)

        browser.open(other.here)
        browser.open(other.elsewhere)

        assert [other.cookies_of(0), other.cookies_of(1)] == ["a=1", ""]
    finally:
        other.stop()


def test_cookies_keep_to_their_path(site: Site) -> None:
    site.answers("/auth/start", ("Set-Cookie", "one=1; Path=/auth/"), ("Set-Cookie", "two=2; Path=/"))
    browser = Browser()
    browser.open(f"{site.here}/auth/start")

    for path in ("/auth/callback", "/authority", "/"):
        browser.open(site.here + path)

    assert [site.cookies_of(position) for position in (1, 2, 3)] == ["one=1; two=2", "two=2", "two=2"]


@pytest.mark.parametrize(
    "refused",
    [
        "a=1; Secure",
        "a=1; SameSite=None",
        "a=1; Domain=example.org",
        "__Host-a=1; Path=/",
        "a=1; Max-Age=0",
        "a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "nothing",
    ],
)
def test_cookies_that_browsers_refuse_are_not_kept(site: Site, refused: str) -> None:
    site.answers("/", ("Set-Cookie", refused))
    browser = Browser()
    browser.open(site.here)
    assert len(browser.cookies) == 0


def test_a_cookie_is_deleted_by_its_expiry(site: Site) -> None:
    site.answers("/", ("Set-Cookie", "a=1; Path=/; HttpOnly; Max-Age=60"))
    site.answers("/out", ("Set-Cookie", "a=; Path=/; Max-Age=0"))
    browser = Browser()

    browser.open(site.here)
    assert browser.cookies.get("a").http_only

    browser.open(f"{site.here}/out")
    assert browser.cookies.get("a") is None


def test_a_redirect_from_another_site_brings_lax_cookies_and_no_strict_ones(site: Site) -> None:
    site.answers("/", ("Set-Cookie", "lax=1; SameSite=Lax"), ("Set-Cookie", "strict=1; SameSite=Strict"))
    site.redirects("/provider", f"{site.here}/callback")
    site.answers("/callback")
    browser = Browser()
    browser.open(site.here)

    browser.open(f"{site.here}/callback")
    assert site.cookies_of() == "lax=1; strict=1"

    browser.open(f"{site.elsewhere}/provider")
    assert site.cookies_of() == "lax=1"


def test_a_form_posted_from_another_site_brings_no_lax_cookie(site: Site) -> None:
    site.answers("/", ("Set-Cookie", "lax=1; SameSite=Lax"))
    site.answers("/form", html=f'<form method="post" action="{site.here}/callback"><input name="code"></form>')
    browser = Browser()
    browser.open(site.here)

    browser.submit(browser.open(f"{site.elsewhere}/form"), code="x")

    assert (site.received[-1].method, site.cookies_of()) == ("POST", "")


def test_a_page_without_referrer_hides_where_its_forms_come_from_but_not_its_scripts(site: Site) -> None:
    site.answers("/", ("Referrer-Policy", "no-referrer"), html='<form method="post"></form><a href="/next">On</a>')
    browser = Browser()
    page = browser.open(f"{site.here}/?code=secret")

    browser.follow(page, "On")
    assert "Referer" not in site.received[-1].headers

    browser.submit(page)
    assert "Referer" not in site.received[-1].headers
    assert site.received[-1].headers["Origin"] == "null"

    browser.fetch(page, page.url, body={"access_token": "t"})
    assert site.received[-1].headers["Origin"] == site.here
    assert site.received[-1].body == "access_token=t"


def test_other_sites_learn_the_origin_of_a_page_and_not_its_address(site: Site) -> None:
    site.answers("/", html=f'<a href="{site.elsewhere}/x">Away</a><a href="/y">Near</a>')
    browser = Browser()
    page = browser.open(f"{site.here}/?code=secret")

    browser.follow(page, "Away")
    assert site.received[-1].headers["Referer"] == f"{site.here}/"

    browser.follow(page, "Near")
    assert site.received[-1].headers["Referer"] == f"{site.here}/?code=secret"
