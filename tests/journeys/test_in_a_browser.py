"""A person with a real browser, at a running vault: the consent and its outcomes, the admin, the start page.

Every page here is also held to the policy that it comes with: a tab fails its test for whatever its console says.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

from oauth_app.fake_provider import FakeProvider
from oauth_app.pages import page_for
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


def a_link(vault: Vault, secret: dict[str, Any], **body: Any) -> str:
    """A new consent link."""
    answer = vault.call("POST", f"/v1/secrets/{secret['id']}/oauth2/authorize", body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["authorize_url"])


def test_a_link_leads_to_the_question_and_back(vault, provider, tab, keep_picture):
    provider.asks = True
    link = a_link(vault, secret := a_secret(vault, provider, scopes=["calendar.read"]))
    tab.goto(link)
    keep_picture(tab, "question")
    with tab.expect_navigation() as arrival:
        tab.get_by_role("button", name="Allow").click()
    assert_shows(tab, arrival.value, "connected")
    assert vault.token(secret["id"])["generation"] == 1
    assert_shows(tab, tab.goto(link), "link_used")


def test_a_newer_link_ends_the_consent_of_the_older(vault, provider, tab):
    provider.asks = True
    older = a_link(vault, secret := a_secret(vault, provider))
    tab.goto(older)
    a_link(vault, secret)
    with tab.expect_navigation() as arrival:
        tab.get_by_role("button", name="Allow").click()
    assert_shows(tab, arrival.value, "superseded")
    assert provider.requests == []
    assert_shows(tab, tab.goto(older), "link_replaced")


def test_a_browser_goes_back_where_it_came_from(vault, provider, tab, allowed_origin, complaints):
    secret = a_secret(vault, provider)
    page = f"{allowed_origin}/done?tenant=7"
    with tab.expect_request(f"{allowed_origin}/done**") as request:
        tab.goto(a_link(vault, secret, return_url=page))
    assert parse_qs(urlsplit(tab.url).query) == {
        "tenant": ["7"],
        "secret_id": [secret["id"]],
        "environment": ["production"],
        "result": ["connected"],
    }
    assert "referer" not in request.value.all_headers()
    complaints.expect("404")  # the stand-in has neither that page nor an icon


def an_implicit_secret(vault: Vault, provider: FakeProvider, **further: Any) -> dict[str, Any]:
    return vault.create_oauth2(
        name=f"implicit {uuid4()}",
        provider="custom",
        grant_type="implicit",
        client_id=provider.client_id,
        auth_url=provider.authorize_url,
        **further,
    )


def assert_shows_after_script(tab: Page, code: str) -> None:
    """The script has gone on to the page of ``code``, and nothing of the fragment is left in the address bar or the history."""
    tab.wait_for_url("**?state=*")
    assert tab.title() == f"{page_for(code).title} · KnoxCall vault"
    assert "#" not in tab.url
    assert parse_qs(urlsplit(tab.url).query).keys() == {"state"}


def test_the_implicit_grant_is_read_from_the_fragment(vault, provider, tab, keep_picture):
    secret = an_implicit_secret(vault, provider)
    seen: list[str] = []
    tab.on("request", lambda request: seen.append(request.url))
    tab.goto(secret["redirect_uri"])
    assert_shows_after_script(tab, "connected")
    keep_picture(tab, "implicit")
    token = vault.token(secret["id"])["access_token"]
    assert provider.is_live(token)
    # The browser was told of it by the provider; neither a request nor the page has it after that.
    ours = [url for url in seen if url.startswith(vault.base_url)]
    assert ours
    assert not [url for url in ours if token in url.partition("#")[0]]
    assert token not in tab.content()
    tab.go_back()
    assert token not in tab.url


def test_a_person_says_no_to_the_implicit_grant(vault, provider, tab):
    provider.authorize_error = "access_denied"
    tab.goto(an_implicit_secret(vault, provider)["redirect_uri"])
    assert_shows_after_script(tab, "denied")


def test_the_implicit_grant_by_a_link_goes_back_to_the_return_address(vault, provider, tab, allowed_origin, complaints):
    secret = an_implicit_secret(vault, provider)
    tab.goto(a_link(vault, secret, return_url=f"{allowed_origin}/done"))
    tab.wait_for_url(f"{allowed_origin}/done**")
    assert parse_qs(urlsplit(tab.url).query)["result"] == ["connected"]
    assert "#" not in tab.url
    complaints.expect("404")  # the stand-in has neither that page nor an icon


def test_a_fragment_in_another_browser_connects_nothing(vault, provider, tab, strangers_tab):
    secret = an_implicit_secret(vault, provider)
    start = tab.context.request.get(f"{secret['redirect_uri']}?start=1", max_redirects=0)
    answer = tab.context.request.get(start.headers["location"], max_redirects=0)
    strangers_tab.goto(answer.headers["location"])
    assert_shows_after_script(strangers_tab, "wrong_browser")
    assert vault.call("GET", f"/v1/secrets/{secret['id']}/oauth2/token").status_code == 500


def test_a_fragment_that_cannot_be_handed_over_says_so(vault, provider, tab, complaints, keep_picture):
    secret = an_implicit_secret(vault, provider)
    tab.route(secret["redirect_uri"], lambda r: r.abort() if r.request.method == "POST" else r.continue_())
    tab.clock.install()
    tab.goto(secret["redirect_uri"])
    for _ in range(4):
        tab.clock.run_for(3000)
    tab.get_by_text("This did not reach us").wait_for()
    keep_picture(tab, "implicit-failed")
    assert "#" not in tab.url
    complaints.expect("net::ERR_FAILED")


def test_an_operator_makes_a_link(vault, provider, tab, keep_picture):
    secret = a_secret(vault, provider)
    tab.goto(f"{vault.base_url}/admin/oauth_app/connection/")
    name, password = vault.house.operator
    tab.get_by_label("Username").fill(name)
    tab.get_by_label("Password").fill(password)
    tab.get_by_role("button", name="Log in").click()
    tab.get_by_role("link", name=secret["name"]).first.click()
    tab.get_by_role("link", name="Consent link").click()
    keep_picture(tab, "operation")
    tab.get_by_role("button", name="Make a link").click()
    link = tab.get_by_label("Consent link").input_value()
    keep_picture(tab, "link")
    assert_shows(tab, tab.goto(link), "connected")
    tab.goto(f"{vault.base_url}/admin/oauth_app/connection/")
    tab.get_by_role("link", name=secret["name"]).first.click()
    tab.get_by_role("link", name="Disconnect").click()
    tab.get_by_role("button", name="Disconnect").click()
    assert tab.get_by_text("The connection has ended.").is_visible()
    keep_picture(tab, "ended")
    assert vault.call("GET", f"/v1/secrets/{secret['id']}/oauth2/token").json()["error"]["reason"] == "not_connected"


def test_the_start_page(vault, tab):
    answer = tab.goto(vault.base_url)
    assert answer.status == 200
    assert tab.get_by_role("heading", level=1).is_visible()
    assert tab.evaluate("document.scripts.length") == 0
