"""Answers of the providers' own documents, read by the presets.

Each file of `recorded` is one provider's: the `document` that its answers are taken from, with every token replaced, and what
is to be made of each. `body` is the text of the answer, or an object to be dumped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from requests.structures import CaseInsensitiveDict

from oauth_app.protocol.answers import read_answer
from oauth_app.protocol.client import OAuthClient
from oauth_app.protocol.errors import TokenRequestFailed
from oauth_app.providers import CUSTOM, PROVIDERS

RECORDED = {
    file.stem: json.loads(file.read_text())
    for file in sorted((Path(__file__).parent / "recorded").glob("*.json"), key=lambda file: file.stem)
}


def a_client(provider: str) -> OAuthClient:
    preset = PROVIDERS[provider]
    return OAuthClient(
        provider=provider,
        grant_type="authorization_code",
        client_id="id",
        token_url="https://t",
        scope_separator=preset.scope_separator,
        default_expires_in=preset.default_expires_in,
    )


def outcome(provider: str, answer: dict[str, Any]) -> dict[str, Any]:
    """What `read_answer` makes of ``answer``, in the words of the files."""
    body = answer["body"] if isinstance(answer["body"], str) else json.dumps(answer["body"])
    try:
        read = read_answer(
            a_client(provider),
            status=answer["status"],
            headers=CaseInsensitiveDict(answer["headers"]),
            body=body.encode(),
        )
    except TokenRequestFailed as failure:
        return {"error": type(failure).__name__, "code": failure.code}
    return {
        "access_token": read.access_token.reveal(),
        "refresh_token": read.refresh_token.reveal() if read.refresh_token else None,
        "expires_in": read.expires_in,
        "scopes": None if read.scopes is None else list(read.scopes),
        "token_type": read.token_type,
        "facts": read.facts,
    }


@pytest.mark.parametrize(
    ("provider", "answer"),
    [
        pytest.param(provider, answer, id=f"{provider}: {answer['name']}")
        for provider, file in RECORDED.items()
        for answer in file["answers"]
    ],
)
def test_a_recorded_answer_means_what_its_document_says(provider, answer):
    assert outcome(provider, answer) == answer["expect"]


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name != CUSTOM])
def test_every_preset_has_a_recorded_success_and_a_recorded_error(provider):
    answers = RECORDED[provider]["answers"]
    assert any("access_token" in answer["expect"] for answer in answers)
    assert any("error" in answer["expect"] for answer in answers)


@pytest.mark.parametrize("provider", RECORDED)
def test_a_file_names_its_document_and_holds_no_real_token(provider):
    assert "://" not in RECORDED[provider]["document"]
    expectations = [answer["expect"] for answer in RECORDED[provider]["answers"]]
    tokens = [said.get(kind) for said in expectations for kind in ("access_token", "refresh_token")]
    assert all(token.startswith("recorded-") for token in tokens if token)
