"""How pages look in a real browser, under their policy: on screens of any width, light and dark, with the longest names."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from django.contrib.staticfiles import finders
from django.template.loader import render_to_string

from knoxcall.middleware import PAGES_POLICY
from oauth_app.pages import _PAGES, page_for

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

# Nobody is asked there: the browser is answered before it looks for the name.
ORIGIN = "http://vault.test"
WIDTHS = (1200, 360, 320)
SCHEMES = ("light", "dark")
REQUEST_ID = "0b8f5a1e-5d0c-4c55-b2a7-3e0f9a1c7d42"
USUAL = {
    "secret_name": "orders_of_the_shop",
    "provider": "GitHub",
    "environment": "production",
    "connected_as": "ada@example.com",
    "provider_said": "The app is waiting for the approval of your organisation.",
    "reason": "invalid_client",
}
LONGEST = {
    "secret_name": "x" * 255,
    "provider": "accounts.a-provider-with-a-very-long-name.example.com",
    "environment": "e" * 255,
    "connected_as": "ada." * 50 + "@example.com",
    "provider_said": "An_error_description_without_a_space" * 20,
    "reason": "r" * 300,
}


def show(tab: Page, html: str) -> None:
    """Show ``html`` as the vault would send it, with its policy and its static files."""

    def answer(route: Route) -> None:
        path = urlsplit(route.request.url).path
        if path == "/":
            headers = {"Content-Security-Policy": PAGES_POLICY, "Content-Type": "text/html; charset=utf-8"}
            route.fulfill(body=html, headers=headers)
        else:
            route.fulfill(path=finders.find(path.removeprefix("/static/")))

    tab.route(f"{ORIGIN}/**", answer)
    tab.goto(f"{ORIGIN}/")
    assert tab.evaluate("document.styleSheets.length") == 1


def assert_fits(tab: Page, name: str, keep_picture) -> None:
    """No screen has to be scrolled sideways."""
    for width in WIDTHS:
        tab.set_viewport_size({"width": width, "height": 800})
        for scheme in SCHEMES:
            tab.emulate_media(color_scheme=scheme)
            needed = tab.evaluate("document.scrollingElement.scrollWidth")
            assert needed <= width, f"{name}, {scheme}: {needed} px are needed at {width} px"
            keep_picture(tab, name, width, scheme)


def assert_outcomes_fit(tab: Page, codes, words: dict[str, str], keep_picture) -> None:
    for code in codes:
        context = {"page": page_for(code, **words), "request_id": REQUEST_ID}
        show(tab, render_to_string("oauth_app/outcome.html", context))
        assert_fits(tab, code, keep_picture)


def test_every_outcome_fits_the_screen(tab, keep_picture):
    assert_outcomes_fit(tab, sorted(_PAGES), USUAL, keep_picture)


def test_the_longest_words_fit_the_screen(tab, keep_picture):
    assert_outcomes_fit(tab, ["connected", "provider_error"], LONGEST, keep_picture)


def test_every_other_page_fits_the_screen(tab, keep_picture):
    for template in ("index.html", "400.html", "403.html", "403_csrf.html", "404.html", "500.html"):
        show(tab, render_to_string(template, {"request_id": REQUEST_ID}))
        assert_fits(tab, template, keep_picture)
