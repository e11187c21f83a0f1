"""The pages that people see: what they say, that nobody's words become markup, and that the strict policy holds."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.contrib.staticfiles import finders
from django.template.loader import get_template, render_to_string

from oauth_app.pages import _PAGES, Page, Tone, page_for

STATUSES = {
    "connected": 200,
    "connected_without_refresh_token": 200,
    "denied": 200,
    "expired": 410,
    "interrupted": 503,
    "already_used": 409,
    "in_progress": 409,
    "unknown_state": 400,
    "wrong_browser": 403,
    "wrong_secret": 400,
    "wrong_issuer": 400,
    "provider_error": 400,
    "exchange_failed": 400,
    "provider_unavailable": 503,
    "start_used": 410,
    "start_expired": 410,
    "start_disabled": 403,
    "link_used": 410,
    "link_replaced": 410,
    "link_expired": 410,
    "too_many_open": 429,
    "not_browser_grant": 400,
    "not_found": 404,
    "superseded": 409,
    "vault_unavailable": 503,
}
CODES = sorted(STATUSES)
CONNECTED = {"connected", "connected_without_refresh_token"}
PROVIDER_ANSWERED = {"denied", "provider_error", "exchange_failed", "provider_unavailable"}
NAMELESS = {"unknown_state", "wrong_browser", "wrong_secret", "not_found"}
PLAIN_TEMPLATES = ["index.html", "400.html", "403.html", "403_csrf.html", "404.html", "500.html"]

# Words of the protocol, which mean nothing to the person who came from a link.
JARGON_ANYWHERE = r"\b(state|pkce|fragment|nonce|csrf|verifier|callback)\b"
JARGON_FOR_THE_PERSON = (
    JARGON_ANYWHERE[:-3] + r"|oauth2?|grant|tokens?|scopes?|redirect|uri|issuer|secret|operator|client)\b"
)

HOSTILE = "</bdi><script>alert('x')</script><img src=x onerror=\"alert(1)\">{{ settings.SECRET_KEY }}{% debug %}"
# Turns the direction of everything after it: what ends in "gpj.exe" reads as "exe.jpg".
RTL_OVERRIDE = "\N{RIGHT-TO-LEFT OVERRIDE}"


class Outline(HTMLParser):
    """What a browser would find in a page: its elements in order, their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def outcome(page: Page, *, request_id: str = "req-1") -> str:
    return render_to_string("oauth_app/outcome.html", {"page": page, "request_id": request_id})


def full_page(code: str, words: str = "some words") -> Page:
    """A page whose caller passed everything it could."""
    return page_for(
        code,
        secret_name=words,
        provider=words,
        environment=words,
        connected_as=words,
        provider_said=words,
        reason=words,
    )


def assert_well_formed(html: str) -> None:
    outline = Outline(html)
    assert outline.count("h1") == 1
    assert outline.count("main") == outline.count("header") == outline.count("footer") == outline.count("title") == 1
    assert outline.attributes("html") == [{"lang": "en", "dir": "ltr"}]
    assert "KnoxCall vault" in html
    ids = [attrs["id"] for _, attrs in outline.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    labels = {attrs["aria-labelledby"] for _, attrs in outline.elements if "aria-labelledby" in attrs}
    assert labels <= set(ids)


def assert_obeys_the_policy(html: str) -> None:
    """`default-src 'none'` but for our styles and pictures: nothing inline, from elsewhere, or to be submitted."""
    outline = Outline(html)
    for tag, attrs in outline.elements:
        assert tag not in {"script", "style", "form", "iframe", "object", "embed", "base"}
        assert not {name for name in attrs if name == "style" or name.startswith("on")}
        for name in ("href", "src"):
            assert (attrs.get(name) or "/").startswith("/")


class TestCopy:
    @pytest.mark.parametrize("code", CODES)
    def test_every_outcome_has_its_status(self, code):
        page = page_for(code)

        assert (page.code, page.status) == (code, STATUSES[code])

    def test_the_codes_are_a_closed_set(self):
        assert set(_PAGES) == set(STATUSES)
        with pytest.raises(KeyError):
            page_for("something_else")

    @pytest.mark.parametrize("code", CODES)
    def test_every_outcome_says_what_happened_and_what_to_do_next(self, code):
        page = page_for(code)

        assert page.title
        assert page.heading
        assert page.message
        assert page.next_steps
        assert page.details == ()

    @pytest.mark.parametrize("code", CODES)
    def test_a_person_reads_no_jargon(self, code):
        page = full_page(code)
        for_the_person = " ".join([page.title, page.heading, page.message, *page.next_steps])

        assert not re.search(JARGON_FOR_THE_PERSON, for_the_person, re.IGNORECASE)
        assert not re.search(JARGON_ANYWHERE, Outline(outcome(page)).text, re.IGNORECASE)

    def test_only_a_connection_looks_like_one(self):
        assert {code for code in CODES if page_for(code).is_connected} == CONNECTED
        assert [code for code in CODES if page_for(code).tone is Tone.SUCCESS] == ["connected"]

    def test_no_gap_is_left_open(self):
        for code in CODES:
            for page in (page_for(code), full_page(code)):
                assert not re.search(
                    r"[{}]", " ".join([page.heading, page.message, *page.next_steps, *page.operator_notes])
                )

    def test_the_provider_is_named_where_it_is_known(self):
        assert "GitHub" in page_for("connected", provider="GitHub").heading
        assert "GitHub" in page_for("exchange_failed", provider="GitHub").message
        assert "The provider" in page_for("provider_unavailable").heading

    def test_braces_in_a_name_are_only_braces(self):
        page = page_for("connected", provider="{Provider.__class__}{0}")

        assert "{Provider.__class__}{0}" in page.heading

    @pytest.mark.parametrize("code", CODES)
    def test_the_account_is_named_only_where_it_was_connected(self, code):
        page = page_for(code, connected_as="ada@example.com")

        assert (("Account", "ada@example.com") in page.details) == (code in CONNECTED)

    @pytest.mark.parametrize("code", CODES)
    def test_a_stranger_learns_no_names(self, code):
        page = page_for(code, secret_name="orders-sync", environment="staging")

        assert (page.details == ()) == (code in NAMELESS)

    @pytest.mark.parametrize("code", CODES)
    def test_only_a_provider_that_answered_is_quoted(self, code):
        said = "The app is not approved."

        assert page_for(code).provider_said is None
        assert page_for(code, provider_said="").provider_said is None
        assert page_for(code, provider_said=said).provider_said == (said if code in PROVIDER_ANSWERED else None)

    def test_long_words_of_others_are_cut(self):
        page = page_for("provider_error", provider_said="word " * 1000)

        assert page.provider_said is not None
        assert len(page.provider_said) <= 500
        assert page.provider_said.endswith("…")

    def test_a_name_of_255_characters_is_shown_whole(self):
        name = "x" * 255

        assert ("Connection", name) in page_for("connected", secret_name=name).details

    def test_marks_that_turn_the_text_around_become_visible(self):
        page = page_for("connected", secret_name=f"photo{RTL_OVERRIDE}gpj.exe", provider=f"Git{RTL_OVERRIDE}Hub")

        assert ("Connection", "photo\N{REPLACEMENT CHARACTER}gpj.exe") in page.details
        assert RTL_OVERRIDE not in page.heading

    def test_a_name_written_right_to_left_keeps_to_its_place_in_the_sentence(self):
        page = page_for("connected", provider="خدمة")

        assert "\N{FIRST STRONG ISOLATE}خدمة\N{POP DIRECTIONAL ISOLATE}" in page.heading

    def test_joiners_that_scripts_and_emoji_need_stay(self):
        name = "می\N{ZERO WIDTH NON-JOINER}خواهم 👩\N{ZERO WIDTH JOINER}🚀"

        assert ("Connection", name) in page_for("connected", secret_name=name).details

    def test_half_a_character_does_not_break_the_page(self):
        page = page_for("provider_error", provider_said="broken \ud800 \x00 text")

        outcome(page).encode()
        assert page.provider_said == "broken \N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER} text"


class TestOutcomePage:
    @pytest.mark.parametrize("code", CODES)
    def test_every_outcome_renders(self, code):
        page = full_page(code)
        html = outcome(page)

        assert_well_formed(html)
        assert_obeys_the_policy(html)
        text = Outline(html).text
        for words in (page.heading, page.message, *page.next_steps, *page.operator_notes, "req-1"):
            assert words in text

    @pytest.mark.parametrize("code", CODES)
    def test_nothing_that_others_wrote_becomes_markup(self, code):
        hostile = full_page(code, words=HOSTILE + RTL_OVERRIDE)
        html = outcome(hostile, request_id=HOSTILE)

        assert_well_formed(html)
        assert_obeys_the_policy(html)
        assert "<script" not in html
        assert 'onerror="' not in html
        assert RTL_OVERRIDE not in html
        assert settings.SECRET_KEY not in html
        harmless = outcome(full_page(code))
        assert [tag for tag, _ in Outline(html).elements] == [tag for tag, _ in Outline(harmless).elements]

    def test_words_of_others_keep_their_own_direction(self):
        html = outcome(page_for("provider_error", secret_name="מפתח", provider_said="تعذر إكمال الطلب"))

        assert "<bdi>מפתח</bdi>" in html
        assert "<bdi>تعذر إكمال الطلب</bdi>" in html

    def test_the_providers_words_appear_only_when_passed(self):
        said = "The app is not approved."

        assert said in outcome(page_for("provider_error", provider_said=said))
        assert "blockquote" not in outcome(page_for("provider_error"))
        assert said not in outcome(page_for("unknown_state", provider_said=said))

    def test_tones_differ_by_sign_and_not_only_by_colour(self):
        signs = {}
        for code in ("connected", "too_many_open", "wrong_issuer", "denied"):
            page = page_for(code)
            html = outcome(page)
            assert f'<body class="tone-{page.tone}">' in html
            signs[page.tone] = Outline(html).attributes("path")[-1]["d"]

        assert len(signs) == len(set(signs.values())) == len(Tone)

    def test_without_a_request_id_the_page_offers_no_reference(self):
        html = render_to_string("oauth_app/outcome.html", {"page": page_for("denied")})

        assert "mention this reference" not in html


class TestPlainPages:
    @pytest.mark.parametrize("name", PLAIN_TEMPLATES)
    def test_each_renders_with_no_context_at_all(self, name):
        html = get_template(name).render()

        assert_well_formed(html)
        assert_obeys_the_policy(html)
        assert not re.search(JARGON_FOR_THE_PERSON, Outline(html).text, re.IGNORECASE)

    @pytest.mark.parametrize("name", PLAIN_TEMPLATES)
    def test_what_the_visitor_asked_for_is_not_repeated(self, name):
        html = get_template(name).render({"request_path": "/zebra", "exception": "zebra", "reason": "zebra"})

        assert "zebra" not in html

    def test_the_start_page_leads_to_the_admin_and_the_health_check_and_nowhere_else(self):
        html = get_template("index.html").render()

        assert [a["href"] for a in Outline(html).attributes("a")] == ["/admin/", "/healthz"]
        assert not re.search(r"\d+\.\d+", Outline(html).text)


class TestTemplatesAndStyles:
    def test_no_template_holds_script_or_style_or_turns_escaping_off(self):
        inline = r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|=.data:"
        unescaped = r"\|\s*safe(seq)?\b|autoescape\s+off"
        for path in (Path(settings.BASE_DIR) / "templates").rglob("*.html"):
            assert not re.search(f"{inline}|{unescaped}", path.read_text()), path

    def test_every_static_file_that_a_page_names_is_there(self):
        html = outcome(page_for("connected"))
        named = [attrs["href"] for attrs in Outline(html).attributes("link")]
        named += [attrs["src"] for attrs in Outline(html).attributes("img")]

        assert len(named) == 3
        for address in [*named, settings.STATIC_URL + "knoxcall/admin.css"]:
            assert finders.find((address or "").removeprefix(settings.STATIC_URL)) is not None

    def test_styles_load_nothing(self):
        for name in ("pages.css", "admin.css"):
            assert not re.search(r"url\(|@import|@font-face", stylesheet(name))

    def test_every_class_of_the_pages_has_a_style(self):
        css = stylesheet("pages.css")
        html = "".join(
            [outcome(full_page(code)) for code in CODES] + [get_template(name).render() for name in PLAIN_TEMPLATES]
        )
        used = {name for _, attrs in Outline(html).elements for name in (attrs.get("class") or "").split()}

        assert used
        assert {name for name in used if not re.search(rf"\.{name}[ ,]", css)} == set()

    @pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
    def test_text_of_the_pages_can_be_read(self, dark):
        colours = variables(stylesheet("pages.css"), dark=dark)
        pairs = [(ink, ground) for ink in ("ink", "quiet") for ground in ("ground", "card", "inset")]
        pairs += [("link", "card"), ("link", "ground"), ("on-link", "link")]
        pairs += [("card", tone) for tone in Tone]

        for ink, ground in pairs:
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        for tone in Tone:
            assert contrast(colours[tone], colours[f"{tone}-tint"]) >= 4.5, tone

    @pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
    def test_badges_of_the_admin_can_be_read(self, dark):
        colours = variables(stylesheet("admin.css"), dark=dark)

        for name in ("green", "grey", "amber", "red", "slate"):
            assert contrast(colours[f"kc-{name}-fg"], colours[f"kc-{name}-bg"]) >= 4.5, name

    def test_the_admin_is_as_dark_by_choice_as_by_the_systems_wish(self):
        css = stylesheet("admin.css")
        chosen = re.search(r'^html\[data-theme="dark"\] \{(.*?)^\}', css, re.DOTALL | re.MULTILINE)

        assert chosen is not None
        wished = variables(css, dark=True)
        assert declared(chosen[1]).items() <= wished.items()
        assert len(declared(chosen[1])) == len(
            declared(css.split("@media (prefers-color-scheme: dark)")[1].split("\n}\n")[0])
        )

    @pytest.mark.parametrize(
        "status", ["connected", "not_connected", "refresh_failing", "reauthorization_required", "disconnected"]
    )
    def test_every_status_has_its_badge(self, status):
        assert f".kc-badge--{status}" in stylesheet("admin.css")


def test_the_admin_carries_our_name_and_no_script_of_ours():
    html = render_to_string("admin/base_site.html", {"title": "Home", "user": AnonymousUser()})
    outline = Outline(html)

    assert "Home | KnoxCall vault" in html
    assert "knoxcall/admin.css" in html
    assert "knoxcall/favicon.svg" in html
    assert all("src" in attrs for attrs in outline.attributes("script"))
    assert outline.count("style") == 0
    assert not [tag for tag, attrs in outline.elements if "style" in attrs]


def stylesheet(name: str) -> str:
    path = finders.find(f"knoxcall/{name}")
    assert isinstance(path, str)
    return Path(path).read_text()


def declared(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", block))


def variables(css: str, *, dark: bool) -> dict[str, str]:
    """The colours a browser ends up with: the first block, and over it the one for dark mode."""
    light, _, rest = css.partition("@media (prefers-color-scheme: dark)")
    return declared(light) | (declared(rest.split("\n}\n")[0]) if dark else {})


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, "contrast ratio": 1 to 21, and text needs 4.5."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
