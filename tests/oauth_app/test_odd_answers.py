"""Answers that no document describes: read alone, in a refresh, and in a consent; and addresses that no provider made.

Each answer is the right token or a typed error. A refresh token is replaced by the one that came or stays, and what others
wrote is never markup, and is shown to nobody who has not proven to be the one who asked.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from requests.structures import CaseInsensitiveDict

from oauth_app.claim import claim_one
from oauth_app.clients import registrations_of
from oauth_app.fake_provider import Answer, Drop
from oauth_app.models import Connection
from oauth_app.protocol.answers import TokenAnswer, read_answer
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import ClientRefused, GrantDead, OutcomeUnknown
from oauth_app.providers import PROVIDERS, ReplayPolicy
from oauth_app.refresh import refresh
from secrets_app.models import AuditEvent
from tests.factories import Caller, a_preset_client, an_oauth2_secret, consent
from tests.oauth_app.odd_answers import (
    ERRORS,
    HOSTILE,
    ODD,
    PRESETS,
    SPELLINGS,
    STATUSES,
    STRUCTURES,
    TOKENS,
    Brings,
    Odd,
    said,
)

Status = Connection.Status
USED = sorted({odd.provider for odd in ODD})
# A few of each kind: a consent takes longer than a refresh.
CONSENTED = [*ERRORS[::2], *PRESETS, *TOKENS[::4], *STRUCTURES[::4], *SPELLINGS[::4], *STATUSES[::4]]


def key(odd: Odd) -> str:
    return f"{odd.provider}: {odd.name}"


def read(odd: Odd) -> TokenAnswer:
    preset = PROVIDERS[odd.provider]
    client = OAuthClient(
        provider=odd.provider,
        grant_type="authorization_code",
        client_id="id",
        token_url="https://t",
        scope_separator=preset.scope_separator,
        default_expires_in=preset.default_expires_in,
    )
    headers = CaseInsensitiveDict({"Content-Type": odd.content_type})
    return read_answer(client, status=odd.status, headers=headers, body=odd.body)


def answer_of(odd: Odd) -> Answer:
    return Answer(status=odd.status, body=odd.body, content_type=odd.content_type)


def opened(sealed: Any) -> str | None:
    return sealed.open().reveal() if sealed else None


def test_no_two_have_the_same_name():
    assert len({key(odd) for odd in ODD}) == len(ODD)


@pytest.mark.parametrize("odd", ODD, ids=key)
def test_an_odd_answer_is_the_right_token_or_a_typed_error(odd):
    if not isinstance(odd.meaning, Brings):
        with pytest.raises(odd.meaning) as caught:
            read(odd)
        assert type(caught.value) is odd.meaning
        assert "hostile" not in str(caught.value)
        return
    answer = read(odd)
    refresh_token = answer.refresh_token.reveal() if answer.refresh_token else None
    found = Brings(answer.access_token.reveal(), refresh_token, answer.expires_in, answer.scopes, answer.token_type)
    assert found == odd.meaning


class Held:
    """A connection that can be put back to what it was."""

    def __init__(self, connection: Connection) -> None:
        self.pk, self.secret_id = connection.pk, connection.secret_id
        self.registration = registrations_of([connection.secret_id])[connection.secret_id]
        self._columns = Connection.objects.filter(pk=connection.pk).values().get()

    def restored(self) -> Connection:
        Connection.objects.filter(pk=self.pk).update(**self._columns)
        return self.now()

    def now(self) -> Connection:
        return Connection.objects.get(pk=self.pk)

    def refreshed(self) -> Connection:
        claimed = claim_one(self.now())
        assert claimed is not None
        refresh(claimed, self.registration)
        return self.now()


@pytest.fixture
def caller(db) -> Caller:
    return Caller()


@pytest.fixture
def operator(db) -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("operator", password="-"))
    return client


@pytest.fixture
def connected(caller, provider, http) -> dict[str, Held]:
    """A connection at each of the presets that odd answers are for."""
    return {name: Held(consent(an_oauth2_secret(caller, a_preset_client(name, provider), name), http)) for name in USED}


@pytest.fixture
def unconnected(caller, provider) -> dict[str, Held]:
    return {name: Held(an_oauth2_secret(caller, a_preset_client(name, provider), name)) for name in USED}


def state_of(row: Connection) -> tuple[Any, ...]:
    lifetime = row.expires_at and row.issued_at and (row.expires_at - row.issued_at).total_seconds()
    tokens = (opened(row.access_token), opened(row.refresh_token))
    return (row.status, *tokens, lifetime, row.token_type, row.outcome_unknown_at is not None)


def expected_of(odd: Odd, before: Connection) -> tuple[Any, ...]:
    """What a refresh of ``before`` leaves behind."""
    _, access, kept, lifetime, token_type, _ = state_of(before)
    if isinstance(brings := odd.meaning, Brings):
        new = (brings.access, brings.refresh or kept, brings.expires_in, brings.token_type)
        return (Status.CONNECTED, *new, False)
    if odd.meaning is GrantDead:
        return (Status.REAUTHORIZATION_REQUIRED, access, None, lifetime, token_type, False)
    return (Status.REFRESH_FAILING, access, kept, lifetime, token_type, odd.meaning is OutcomeUnknown)


def test_no_odd_answer_to_a_refresh_loses_a_refresh_token_or_becomes_markup(connected, provider, caller, operator):
    found, expected, marked = {}, {}, []
    for odd in ODD:
        held = connected[odd.provider]
        before = held.restored()
        provider.next(answer_of(odd))
        after = held.refreshed()
        found[key(odd)], expected[key(odd)] = state_of(after), expected_of(odd, before)
        if b"hostile" not in odd.body and odd not in PRESETS:
            continue
        page = operator.get(f"/admin/oauth_app/connection/{held.pk}/change/")
        answer = caller.get(f"/v1/secrets/{held.secret_id}/oauth2")
        if (page.status_code, answer.status_code) != (200, 200) or HOSTILE in page.content.decode():
            marked.append(key(odd))
        assert answer["Content-Type"] == "application/json"
    assert found == expected
    assert marked == []
    assert HOSTILE not in operator.get("/admin/oauth_app/connection/").content.decode()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=204, body=said()),
        Answer(body=said(), headers={"Content-Encoding": "gzip"}),
        Answer(body=b"zz\r\n" + said(), headers={"Transfer-Encoding": "chunked"}),
        Answer(body=b"fff\r\n" + said(), headers={"Transfer-Encoding": "chunked"}, drop=Drop.MID_ANSWER),
        Answer(body=said(), headers={"Content-Length": "7"}),
        Answer(body=said(), headers={"Content-Length": "9999999999"}),
        Answer(body=said(), headers={"X\r\nY": "z"}),
        Answer(body=b" " * 2_000_000 + said()),
        Answer(body=said(), drop=Drop.MID_ANSWER),
    ],
    ids=["no content", "encoded", "no chunk", "half a chunk", "short", "long", "head", "big", "dropped"],
)
def test_an_answer_broken_on_the_wire_spoils_neither_this_refresh_nor_the_next(caller, provider, http, answer):
    client = a_preset_client("custom", provider, replay_policy=ReplayPolicy.SAFE)
    held = Held(consent(an_oauth2_secret(caller, client), http))
    before = held.now()
    provider.next(answer)
    after = held.refreshed()
    kept = (opened(before.access_token), opened(before.refresh_token))
    whole = ("new-access", "new-refresh")
    assert (opened(after.access_token), opened(after.refresh_token)) in (kept, whole)
    assert (after.status == Status.CONNECTED) == (opened(after.access_token) == "new-access")
    provider.next(Answer(body=said(access_token="next")))
    assert opened(held.refreshed().access_token) == "next"


def test_no_odd_answer_to_a_code_breaks_the_page_or_becomes_markup(unconnected, provider, http):
    found, expected = {}, {}
    for odd in CONSENTED:
        held = unconnected[odd.provider]
        held.restored()
        provider.next(answer_of(odd))
        browser = Client()
        page = browser.get(back_to(browser, http, held))
        row, text = held.now(), page.content.decode()
        is_quoted = HOSTILE in text or ("hostile" in text and row.status != Status.CONNECTED)
        found[key(odd)] = (page.status_code, row.status, opened(row.refresh_token), is_quoted)
        expected[key(odd)] = (*page_of(odd), False)
    assert found == expected


def back_to(browser: Client, http: Any, held: Held, **changed: str) -> str:
    """Start a consent; the address that the provider sends the ``browser`` back to, with other parameters."""
    started = browser.get(f"/auth/oauth2/callback/{held.secret_id}")
    back = urlsplit(http.get(started["Location"], allow_redirects=False).headers["Location"])
    brought = {name: values[0] for name, values in parse_qs(back.query).items()}
    return f"{back.path}?{urlencode({**brought, **changed})}"


def page_of(odd: Odd) -> tuple[Any, ...]:
    if isinstance(brings := odd.meaning, Brings):
        return 200, Status.CONNECTED, brings.refresh
    return 400 if odd.meaning in (GrantDead, ClientRefused) else 503, Status.NOT_CONNECTED, None


PLANTED = "planted <b>words</b>"


@pytest.mark.parametrize("name", ["error", "error_description", "error_uri", "iss", "scope", "code", "state"])
def test_an_address_that_proves_nothing_shows_nothing_of_what_is_in_it(unconnected, http, name):
    held, other = unconnected["custom"], unconnected["slack"]
    callback = f"/auth/oauth2/callback/{held.secret_id}?"
    browser = Client()
    proven = back_to(browser, http, held, **({} if name == "state" else {name: PLANTED}))
    forged = urlencode({"state": "x", "code": "y", name: PLANTED})
    pages = {
        "made up": browser.get(callback + forged),
        "an error without state": browser.get(callback + urlencode({"error": "access_denied", name: PLANTED})),
        "another browser": Client().get(proven),
        "another secret": browser.get(proven.replace(str(held.secret_id), str(other.secret_id))),
        "twice": browser.get(f"{proven}&code=second&{urlencode({name: PLANTED})}"),
        "no secret": browser.get(f"/auth/oauth2/callback/00000000-0000-4000-8000-000000000000?{forged}"),
    }
    assert [case for case, page in pages.items() if "planted" in page.content.decode()] == []
    assert {page.status_code for page in pages.values()} <= {400, 403}


@pytest.mark.parametrize(
    "error",
    ["access_denied", "server_error", PLANTED, "\0", "x" * 5000],
    ids=["denied", "known", "markup", "NUL", "long"],
)
def test_what_a_provider_says_to_who_asked_is_escaped_and_cut(unconnected, http, error):
    browser, held = Client(), unconnected["custom"]
    words = f"{PLANTED}\0\r\n\u202e" + "y" * 5000
    back = back_to(browser, http, held, error=error, error_description=words, scope=PLANTED, iss=PLANTED)
    text = browser.get(back).content.decode()
    # Who says no themselves needs no quotation.
    assert text.count("planted &lt;b&gt;words&lt;/b&gt;") == text.count("planted") == (error != "access_denied")
    assert not re.search("[\0\u202e]|<b>words|x{9}|y{301}", text)
    assert "planted" not in repr(list(AuditEvent.objects.values_list("details", flat=True)))
    assert held.now().status == Status.NOT_CONNECTED


@pytest.mark.parametrize(
    "iss",
    [PLANTED, "https://issuer.example\0", "\u202e" + "x" * 5000],
    ids=["markup", "NUL", "long"],
)
def test_an_issuer_that_we_cannot_compare_never_costs_the_connection(unconnected, http, iss):
    browser, held = Client(), unconnected["custom"]
    page = browser.get(back_to(browser, http, held, iss=iss, scope=PLANTED))
    assert (page.status_code, held.now().status) == (200, Status.CONNECTED)
    assert "planted" not in page.content.decode()
    recorded = AuditEvent.objects.get(action="consent.completed").details.get("iss", "")
    assert recorded == "".join(filter(str.isprintable, iss))[:300]
