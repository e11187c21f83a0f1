"""A person with a real browser, at a running vault: the consent and its outcomes, the admin, the start page.

Every page here is also held to the policy that it comes with: a tab fails its test for whatever its console says.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

from oauth_app.pages import page_for
from tests.support.fake_provider import FakeProvider
from tests.support.vaults import Vault

if TYPE_CHECKING:
    from playwright.sync_api import Page, Response


def a_secret(vault: Vault, provider: FakeProvider, **further: Any) -> dict[str, Any]:
    """A secret that waits for its consent."""
    return vault.create_oauth2(
        name=f"browser {uuid4()}",
        provider="custom",
        client_id=provider.client_id,
        client_secret=provider.client_secret,
        auth_url=provider.authorize_url,
        token_url=provider.token_url,
        **further,
    )


def started(tab: Page, secret: dict[str, Any]) -> str:
    """Start a consent in the profile of ``tab``; returns the provider's address, without going there."""
    answer = tab.context.request.get(secret["redirect_uri"], max_redirects=0)
    assert answer.status == 302
    return answer.headers["location"]


def assert_shows(tab: Page, answer: Response | None, code: str) -> None:
    """The page in ``tab`` is that of the outcome ``code``, and it has no script."""
    assert answer is not None
    page = page_for(code)
    assert (answer.status, tab.title()) == (page.status, f"{page.title} · KnoxCall vault")
    assert tab.evaluate("document.scripts.length") == 0


def test_a_click_at_the_provider_connects(vault, provider, tab):
    secret = a_secret(vault, provider)
    question = f'<title>Provider</title><a href="{escape(started(tab, secret))}">Allow</a>'
    tab.route(f"{provider.base_url}/question", lambda route: route.fulfill(content_type="text/html", body=question))
    tab.goto(f"{provider.base_url}/question")
    with tab.expect_navigation() as arrival:
        # From another site: the cookie comes along because it is a click.
        tab.get_by_role("link", name="Allow").click()
    assert_shows(tab, arrival.value, "connected")
    assert tab.get_by_text(secret["name"]).is_visible()
    assert provider.is_live(vault.token(secret["id"])["access_token"])


def test_no_other_page_learns_the_address_of_the_last_one(vault, provider, tab):
    tab.goto(a_secret(vault, provider)["redirect_uri"])
    # The address bar still holds the code and the state, both used up.
    assert parse_qs(urlsplit(tab.url).query).keys() == {"code", "state"}
    tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<a href=\"/\">onward</a>')")
    with tab.expect_request(f"{vault.base_url}/") as request:
        tab.get_by_role("link", name="onward").click()
    assert "referer" not in request.value.all_headers()


def test_the_outcome_can_be_loaded_again(vault, provider, tab):
    secret = a_secret(vault, provider)
    assert_shows(tab, tab.goto(secret["redirect_uri"]), "connected")
    assert_shows(tab, tab.reload(), "connected")
    assert provider.count("authorization_code") == 1


def test_a_person_says_no(vault, provider, tab):
    provider.authorize_error = "access_denied"
    assert_shows(tab, tab.goto(a_secret(vault, provider)["redirect_uri"]), "denied")


def test_the_redirect_uri_starts_nothing_after_the_first_connection(vault, provider, tab):
    secret = a_secret(vault, provider)
    assert_shows(tab, tab.goto(secret["redirect_uri"]), "connected")
    assert_shows(tab, tab.goto(secret["redirect_uri"]), "start_used")


def test_a_person_comes_back_too_late(vault, provider, tab):
    secret = a_secret(vault, provider)
    onward = started(tab, secret)
    vault.execute(
        "UPDATE oauth_app_authorizationrequest SET created_at = '2026-01-01 00:00:00', expires_at = '2026-01-01 00:15:00'"
        " WHERE connection_id IN (SELECT id FROM oauth_app_connection"
        f" WHERE secret_id = '{UUID(secret['id']).hex}')"
    )
    assert_shows(tab, tab.goto(onward), "expired")
    assert provider.requests == []


def test_a_consent_is_finished_in_the_browser_that_started_it(vault, provider, tab, strangers_tab):
    onward = started(tab, a_secret(vault, provider))
    assert_shows(strangers_tab, strangers_tab.goto(onward), "wrong_browser")
    assert provider.requests == []
    assert_shows(tab, tab.goto(onward), "connected")


def test_an_address_that_leads_nowhere(vault, tab):
    assert_shows(tab, tab.goto(f"{vault.base_url}/auth/oauth2/callback/{uuid4()}"), "not_found")


def test_an_operator_finds_a_connection_and_no_token(vault, provider, tab, keep_picture):
    secret = a_secret(vault, provider)
    tab.goto(secret["redirect_uri"])
    never = [vault.token(secret["id"])["access_token"], provider.client_secret, "fake-access-", "fake-refresh-"]
    tab.goto(vault.base_url)
    tab.get_by_role("link", name="Open the admin").click()
    name, password = vault.house.operator
    tab.get_by_label("Username").fill(name)
    tab.get_by_label("Password").fill(password)
    tab.get_by_role("button", name="Log in").click()
    for page, link in (("front", "Connections"), ("list", secret["name"])):
        assert not [word for word in never if word in tab.content()]
        keep_picture(tab, page)
        tab.get_by_role("link", name=link).first.click()
        tab.wait_for_load_state()
    assert "/change/" in tab.url
    assert tab.get_by_text(secret["name"]).first.is_visible()
    assert not [word for word in never if word in tab.content()]


def test_the_start_page(vault, tab):
    answer = tab.goto(vault.base_url)
    assert answer.status == 200
    assert tab.get_by_role("heading", level=1).is_visible()
    assert tab.evaluate("document.scripts.length") == 0
