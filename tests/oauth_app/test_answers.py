"""Reading token answers: whatever a provider sends is the right token or a typed error."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from requests.structures import CaseInsensitiveDict

from oauth_app.protocol.answers import TokenAnswer, read_answer, read_lifetime, read_retry_after
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import (
    ClientRefused,
    GrantDead,
    OutcomeUnknown,
    ProviderUnavailable,
    TokenRequestFailed,
)

JSON = {"Content-Type": "application/json"}


def a_client(provider: str = "custom", **further) -> OAuthClient:
    return OAuthClient(
        provider=provider, grant_type="authorization_code", client_id="id", token_url="https://t", **further
    )


def read(data, *, status: int = 200, headers=None, provider: str = "custom", **further) -> TokenAnswer:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return read_answer(
        a_client(provider, **further), status=status, headers=CaseInsensitiveDict(headers or JSON), body=body
    )


def test_a_plain_answer_is_read():
    answer = read(
        {"access_token": "a", "refresh_token": "r", "token_type": "bearer", "expires_in": 3600, "scope": "x y"}
    )
    assert answer.access_token.reveal() == "a"
    assert answer.refresh_token is not None
    assert answer.refresh_token.reveal() == "r"
    assert (answer.token_type, answer.expires_in, answer.scopes) == ("Bearer", 3600, ("x", "y"))


def test_a_read_token_does_not_print():
    assert "sesame" not in repr(read({"access_token": "sesame", "refresh_token": "sesame"}))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (3600, 3600),
        ("3600", 3600),
        (" 3600 ", 3600),
        (3599.9, 3599),
        ("3599.5", 3599),
        (1e3, 1000),
        (0, None),
        (-1, None),
        ("", None),
        ("soon", None),
        (None, None),
        (True, None),
        ([3600], None),
        ({"s": 1}, None),
        ("1e999", None),
        ("nan", None),
        ("9" * 400, None),
        (10**30, 315_360_000),
        (0.4, None),
    ],
)
def test_lifetimes_of_every_shape(said, meant):
    assert read_lifetime(said, default=None) == meant
    assert read_lifetime(said, default=77) == (77 if meant is None else meant)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("bearer", "Bearer"),
        ("BEARER", "Bearer"),
        ("Bearer", "Bearer"),
        ("DPoP", "DPoP"),
        ("mac", "mac"),
        (None, "Bearer"),
    ],
)
def test_token_types_in_any_case(said, meant):
    assert read({"access_token": "a", "token_type": said}).token_type == meant


def test_a_missing_lifetime_is_the_presets_default():
    assert read({"access_token": "a"}, provider="salesforce", default_expires_in=3600).expires_in == 3600
    assert read({"access_token": "a"}, provider="github").expires_in is None


@pytest.mark.parametrize(
    ("said", "meant"),
    [("a b", ("a", "b")), ("a,b", ("a,b",)), (["a", "b"], ("a", "b")), (None, None), (7, None), ("", ())],
)
def test_scopes_as_text_or_list(said, meant):
    assert read({"access_token": "a", "scope": said}).scopes == meant


def test_github_asks_with_spaces_and_answers_with_commas():
    assert read({"access_token": "a", "scope": "repo,user"}, provider="github").scopes == ("repo", "user")


def test_a_form_encoded_answer_is_read():
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    answer = read(b"access_token=gho_1&scope=repo%2Cgist&token_type=bearer", headers=headers, provider="github")
    assert answer.access_token.reveal() == "gho_1"
    assert answer.scopes == ("repo", "gist")


def test_slacks_user_token_is_nested():
    user = {"access_token": "xoxp", "refresh_token": "xoxe", "expires_in": 43200}
    answer = read({"ok": True, "authed_user": user}, provider="slack")
    assert answer.access_token.reveal() == "xoxp"
    assert answer.expires_in == 43200


def test_what_an_answer_tells_of_the_account_is_kept_by_the_preset_only():
    data = {"access_token": "a", "instance_url": "https://x.my.salesforce.com", "signature": "s", "id": "u"}
    assert read(data, provider="salesforce").facts == {"instance_url": "https://x.my.salesforce.com", "id": "u"}
    assert read(data).facts == {}


@pytest.mark.parametrize(
    ("status", "data", "kind"),
    [
        (400, {"error": "invalid_grant"}, GrantDead),
        (401, {"error": "invalid_grant"}, GrantDead),
        (200, {"error": "bad_refresh_token"}, GrantDead),
        (200, {"ok": False, "error": "invalid_refresh_token"}, GrantDead),
        (200, {"ok": False, "error": "token_revoked"}, GrantDead),
        (200, {"ok": False, "error": "account_inactive"}, GrantDead),
        (400, {"error": "interaction_required"}, GrantDead),
        (400, {"error": "invalid_client"}, ClientRefused),
        (401, {"error": "invalid_client"}, ClientRefused),
        (400, {"error": "unauthorized_client"}, ClientRefused),
        (400, {"error": "invalid_scope"}, ClientRefused),
        (400, {"error": "unsupported_grant_type"}, ClientRefused),
        (200, {"error": "incorrect_client_credentials"}, ClientRefused),
        # Permanent words, but not with a permanent status.
        (403, {"error": "invalid_grant"}, ProviderUnavailable),
        (500, {"error": "invalid_grant"}, ProviderUnavailable),
        (503, {"error": "temporarily_unavailable"}, ProviderUnavailable),
        (400, {"error": "invalid_request"}, ProviderUnavailable),
        (200, {"ok": False}, ProviderUnavailable),
        (400, {"error": {"nested": 1}}, ProviderUnavailable),
        (400, {"message": "no"}, ProviderUnavailable),
        (404, {}, ProviderUnavailable),
        (302, {}, ProviderUnavailable),
        (408, {}, ProviderUnavailable),
        (425, {}, ProviderUnavailable),
        (429, {}, ProviderUnavailable),
        (503, {}, ProviderUnavailable),
        (500, {}, OutcomeUnknown),
        (500, {"error": "server_error"}, OutcomeUnknown),
        (504, {"error": "Gateway Timeout"}, OutcomeUnknown),
        (502, {"error": {"code": 502}}, OutcomeUnknown),
        (500, {"error": "temporarily_unavailable"}, ProviderUnavailable),
        (200, {"ok": False, "error": "fatal_error"}, OutcomeUnknown),
        (200, {"error": "internal_error"}, OutcomeUnknown),
        (502, b"<html>Bad gateway</html>", OutcomeUnknown),
        (504, b"", OutcomeUnknown),
        (200, b"", OutcomeUnknown),
        (200, b"<html>Sign in</html>", OutcomeUnknown),
        (200, b"[]", OutcomeUnknown),
        (200, b"\xff\xfe", OutcomeUnknown),
        (200, {}, OutcomeUnknown),
        (200, {"access_token": ""}, OutcomeUnknown),
        (200, {"access_token": None}, OutcomeUnknown),
        (200, {"access_token": 7}, OutcomeUnknown),
        (200, {"access_token": "line\nbreak"}, OutcomeUnknown),
    ],
)
def test_failures_are_sorted_by_what_they_mean(status, data, kind):
    with pytest.raises(TokenRequestFailed) as caught:
        read(data, status=status)
    assert type(caught.value) is kind


def test_a_providers_words_do_not_reach_our_message():
    with pytest.raises(GrantDead) as caught:
        read({"error": "invalid_grant", "error_description": "token fake-refresh-1 is dead <script>"}, status=400)
    assert "fake-refresh" not in str(caught.value)


def test_an_error_code_that_could_be_anything_is_not_repeated():
    with pytest.raises(ProviderUnavailable) as caught:
        read({"error": "fake-refresh-Ab12"}, status=400)
    assert caught.value.code == "unrecognised_error"


def test_retry_after_as_seconds_and_as_a_date():
    now = datetime.now(UTC).replace(microsecond=0)
    later = format_datetime(now + timedelta(seconds=90), usegmt=True)
    assert read_retry_after(CaseInsensitiveDict({"Retry-After": "120"})) == 120
    stated = {"Retry-After": later, "Date": format_datetime(now, usegmt=True)}
    assert read_retry_after(CaseInsensitiveDict(stated)) == 90
    assert read_retry_after(CaseInsensitiveDict({"Retry-After": "9" * 30})) == 86_400
    for nonsense in ("", "-5", "soon", "1.5", "Mon, 99 Foo 2026 00:00:00 GMT"):
        assert read_retry_after(CaseInsensitiveDict({"Retry-After": nonsense})) is None


def test_a_429_carries_its_retry_after():
    with pytest.raises(ProviderUnavailable) as caught:
        read({}, status=429, headers={**JSON, "Retry-After": "7"})
    assert caught.value.retry_after == 7
