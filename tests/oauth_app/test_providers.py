"""What holds of every preset, whoever wrote its record."""

from __future__ import annotations

import re
from string import Formatter
from urllib.parse import urlsplit

import pytest

from knoxcall.addresses import check_url
from oauth_app.api.fields import RESERVED_PARAMS
from oauth_app.models import GrantType
from oauth_app.providers import CUSTOM, PROVIDERS, Provider, RevocationStyle

PRESETS = [preset for name, preset in PROVIDERS.items() if name != CUSTOM]
# Who is known by name since the beginning stands before the catalogue.
FIRST = ["google", "github", "salesforce", "microsoft", "slack"]
VARIABLES = [
    pytest.param(preset, variable, id=f"{preset.name}-{variable.name}")
    for preset in PRESETS
    for variable in preset.variables
]
HOSTILE = [
    "",
    "evil.com/",
    "evil.com#",
    "evil.com?",
    "evil.com:443",
    "a.b",
    "x@y",
    "..",
    "-a",
    "a-",
    "a%2f",
    "a#",
    "a?b",
    "a:1",
    "a/b",
    "a\\b",
    "a b",
    "a\n",
    "a\x00",
    "{a}",
    "ä",
    "a" * 300,
]

every_preset = pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)


def addresses(preset: Provider) -> list[str]:
    """The addresses of a preset that its variables fill in."""
    return [url for url in (preset.auth_url, preset.token_url, preset.refresh_url, preset.issuer) if url]


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def examples(preset: Provider) -> dict[str, str]:
    return {variable.name: variable.default or "example" for variable in preset.variables}


def known_facts(preset: Provider) -> set[str]:
    return {*preset.facts, *preset.callback_facts}


def test_the_registry_is_in_order():
    names = list(PROVIDERS)
    assert names[: len(FIRST)] == FIRST
    assert names[len(FIRST) : -1] == sorted(names[len(FIRST) : -1])
    assert names[-1] == CUSTOM


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_preset_is_known_by_its_own_name(name):
    assert PROVIDERS[name].name == name
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    assert PROVIDERS[name].label


@every_preset
def test_a_preset_names_its_document_and_ends_its_sentences(preset):
    assert re.fullmatch(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+/\S+", preset.source)
    assert not preset.note or preset.note.endswith(".")


@every_preset
def test_addresses_pass_the_check_of_typed_ones(preset):
    assert preset.auth_url
    assert preset.token_url
    for template in addresses(preset):
        assert fields(template) <= set(examples(preset))
        assert check_url(template.format(**examples(preset))).startswith("https://")


@every_preset
def test_the_revocation_address_has_only_parts_that_can_be_filled(preset):
    if preset.revocation is None:
        return
    template = preset.revocation.url
    assert fields(template) <= {*examples(preset), *known_facts(preset), "client_id"}
    if template.startswith("{"):
        # The whole origin is a fact: it is checked when it is called.
        return
    filled = {name: examples(preset).get(name, "example") for name in fields(template)}
    assert check_url(template.format(**filled)).startswith("https://")


@every_preset
def test_a_revocation_that_needs_a_fact_keeps_it(preset):
    if preset.revocation is not None and preset.revocation.style is RevocationStyle.STRIPE:
        assert "stripe_user_id" in preset.facts


@pytest.mark.parametrize(("preset", "variable"), VARIABLES)
def test_a_variable_can_name_nothing_but_the_intended_host(preset, variable):
    assert re.fullmatch(variable.pattern, variable.default or "example")
    in_host = any(f"{{{variable.name}}}" in urlsplit(url).netloc for url in addresses(preset))
    for value in HOSTILE:
        if value == "a.b" and not in_host:
            continue
        assert not re.fullmatch(variable.pattern, value), value


@every_preset
def test_scopes_are_plain_and_those_for_a_refresh_token_are_asked_for(preset):
    for scope in (*preset.default_scopes, *preset.offline_scopes, *preset.client_credentials_scopes):
        assert re.fullmatch(r"[\x21-\x7e]+", scope)
        assert preset.scope_separator not in scope
    assert not preset.offline_scopes or set(preset.offline_scopes) & set(preset.default_scopes)


@every_preset
def test_grants_are_known_ones(preset):
    assert preset.grants
    assert len(set(preset.grants)) == len(preset.grants)
    assert set(preset.grants) <= {str(grant) for grant in GrantType}
    assert not preset.client_credentials_scopes or "client_credentials" in preset.grants


@every_preset
def test_parameters_leave_alone_what_the_protocol_sets(preset):
    allowed = {"response_mode"} if preset.authorize_params.get("response_mode") == "query" else set()
    for name in (*preset.authorize_params, *preset.token_params):
        assert name not in RESERVED_PARAMS - allowed
        assert not name.startswith("code_challenge")


@every_preset
def test_what_names_the_account_is_kept(preset):
    named = [*preset.connected_as, *([preset.subject] if preset.subject else [])]
    assert {name.partition(".")[0] for name in named} <= known_facts(preset)


@every_preset
def test_lifetimes_are_whole_seconds(preset):
    for seconds in (preset.default_expires_in, preset.refresh_token_idle, preset.refresh_token_lifetime):
        assert seconds is None or seconds > 0
