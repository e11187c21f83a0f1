"""What a request fills into a preset's address can name no other host."""

from __future__ import annotations

import re

import pytest

from oauth_app.providers import PROVIDERS

HOSTILE = (
    *(
        "evil.example",
        "a.evil",
        "a/b",
        "a@evil.example",
        "a%2e",
        "a#",
        "a?x",
        "a:443",
        "a\\b",
        "-a",
        "a-",
        "é",
        "a\n",
        "",
    ),
    *(
        "evil.example/.my.salesforce.com",
        "evil.example@app.intercom.com",
        "account-dxdocusign.com",
        "app.intercom.com.evil",
    ),
)


def pattern(provider: str) -> str:
    (variable,) = PROVIDERS[provider].variables
    return variable.pattern


@pytest.mark.parametrize(
    ("provider", "value"),
    [
        ("zendesk", "acme"),
        ("zendesk", "d3v-acme1"),
        ("docusign", "account.docusign.com"),
        ("docusign", "account-d.docusign.com"),
        ("intercom", "app.intercom.com"),
        ("intercom", "app.eu.intercom.com"),
        ("salesforce", "test.salesforce.com"),
        ("salesforce", "acme--uat.sandbox.my.salesforce.com"),
        ("salesforce", "acme-dev-ed.develop.my.salesforce.com"),
    ],
)
def test_the_hosts_that_are_meant_are_taken(provider, value):
    assert re.fullmatch(pattern(provider), value)


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("provider", ["zendesk", "docusign", "intercom", "salesforce"])
def test_another_host_is_refused(provider, value):
    assert not re.fullmatch(pattern(provider), value)
