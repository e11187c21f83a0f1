"""Properties of whatever is read of an answer: a token or a typed error, and nothing that a database would not take."""

from __future__ import annotations

import base64
import json
import re
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from oauth_app.protocol.answers import TokenAnswer, read_answer, read_fragment
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import TokenRequestFailed
from oauth_app.protocol.identity import account_name, read_id_token, subject_of
from oauth_app.providers import PROVIDERS

FORM = "application/x-www-form-urlencoded"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
KNOWN = sorted(
    {
        *("access_token", "refresh_token", "expires_in", "scope", "token_type", "error", "ok", "id_token", "message"),
        *("error_description", "refresh_token_expires_in", "authed_user"),
        *(name for preset in PROVIDERS.values() for name in preset.facts),
    }
)
objects = st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=6), json_values, max_size=8)
presets = st.sampled_from(sorted(PROVIDERS))
tokens = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1).filter(str.strip)
headers = st.fixed_dictionaries(
    {},
    optional={
        "Content-Type": st.sampled_from(["application/json", FORM, "text/html"]) | st.text(max_size=20),
        "Retry-After": st.sampled_from(["0", "-1", "9" * 99, "Tue, 24 Nov 2026 00:00:00"]) | st.text(max_size=40),
        "Date": st.sampled_from(["Tue, 24 Nov 2026 00:00:00 GMT"]) | st.text(max_size=40),
    },
)
moderately = settings(max_examples=60)


def a_reader(preset: str) -> OAuthClient:
    return OAuthClient(provider=preset, grant_type="authorization_code", client_id="id", token_url="https://t")


def check_storable(answer: TokenAnswer, preset: str) -> None:
    """Nothing that either database refuses, and nothing longer than its column."""
    columns = (
        (account_name(PROVIDERS[preset], answer.identity, answer.facts), 255),
        (subject_of(PROVIDERS[preset], answer.identity, answer.facts), 255),
        (answer.token_type, 50),
    )
    assert all(len(text) <= most for text, most in columns)
    kept = [text for text, _ in columns] + [*(answer.scopes or ()), *texts_of(answer.facts)]
    assert not any(re.search("[\0-\x1f\x7f\ud800-\udfff]", text) for text in kept)
    assert all(len(text) <= 500 for text in texts_of(answer.facts))
    assert timedelta(seconds=answer.expires_in or 1) <= timedelta(days=3650)


def texts_of(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in texts_of(part)]
    assert isinstance(value, str)
    return [value]


@moderately
@given(
    st.binary(max_size=200) | objects.map(lambda data: json.dumps(data).encode()),
    st.integers(100, 999),
    headers,
    presets,
)
def test_anything_is_a_token_that_can_be_stored_or_a_typed_error(body, status, headers, preset):
    try:
        answer = read_answer(a_reader(preset), status=status, headers=CaseInsensitiveDict(headers), body=body)
    except TokenRequestFailed as err:
        failure = err
    else:
        check_storable(answer, preset)
        return
    assert re.fullmatch("[a-z0-9_]{1,64}", failure.code)
    assert len(failure.message) <= 500
    assert 0 <= (failure.retry_after or 0) <= 86_400


@moderately
@given(
    objects, tokens, tokens, presets, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"]), headers
)
def test_an_object_with_two_tokens_brings_exactly_these(data, access, refresh, preset, encoding, headers):
    data |= {"access_token": access, "refresh_token": refresh, "error": None, "ok": True}
    body = json.dumps(data).encode(encoding)
    answer = read_answer(a_reader(preset), status=200, headers=CaseInsensitiveDict(headers), body=body)
    assert answer.refresh_token is not None
    assert (answer.access_token.reveal(), answer.refresh_token.reveal()) == (access, refresh)
    check_storable(answer, preset)


@moderately
@given(st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=6), st.text(max_size=40) | tokens), presets)
def test_any_fragment_is_a_token_without_refresh_token_or_a_typed_error(fields, preset):
    try:
        answer = read_fragment(a_reader(preset), fields)
    except TokenRequestFailed:
        assert not re.fullmatch(r"[\x20-\x7e]*[\x21-\x7e][\x20-\x7e]*", fields.get("access_token", ""))
        return
    assert (answer.access_token.reveal(), answer.refresh_token) == (fields["access_token"], None)
    check_storable(answer, preset)


def a_jwt(payload: bytes) -> str:
    return f"e30.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}."


claims = st.dictionaries(st.sampled_from(["sub", "email", "preferred_username", "upn", "name"]), json_values)
id_tokens = st.one_of(
    st.text(max_size=60),
    st.binary(max_size=60).map(a_jwt),
    (claims | json_values).map(lambda c: a_jwt(json.dumps(c).encode())),
)


@moderately
@given(id_tokens | json_values, objects, presets)
def test_no_name_of_an_account_has_a_control_character(id_token, facts, preset):
    identity = read_id_token(id_token)
    for name in (account_name(PROVIDERS[preset], identity, facts), subject_of(PROVIDERS[preset], identity, facts)):
        assert len(name) <= 255
        assert not re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", name)
