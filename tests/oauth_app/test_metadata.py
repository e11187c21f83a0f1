"""Reading an issuer's metadata: what we use of it is right in every member, or none of it is used."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from knoxcall.addresses import MAX_URL_LENGTH, UrlRefused
from oauth_app.protocol.metadata import IssuerMetadata, MetadataRefused, check_issuer_url, metadata_urls, read_metadata
from oauth_app.providers import TokenAuthMethod

ISSUER = "https://id.example/tenant"
TOKEN_URL = "https://id.example/token"
LEAST = {"issuer": ISSUER, "token_endpoint": TOKEN_URL}


def read(document: Any, *, issuer: str = ISSUER, status: int = 200, **headers: str) -> IssuerMetadata:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    stated = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return read_metadata(issuer, status=status, headers=CaseInsensitiveDict(stated), body=body)


def test_a_full_document_is_read():
    metadata = read(
        {
            **LEAST,
            "authorization_endpoint": "https://login.example/authorize?p=policy",
            "revocation_endpoint": "https://id.example/revoke",
            "authorization_response_iss_parameter_supported": True,
            "token_endpoint_auth_methods_supported": ["private_key_jwt", "client_secret_post"],
            "code_challenge_methods_supported": ["plain", "S256"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "scopes_supported": ["openid", "offline_access"],
            "mtls_endpoint_aliases": {
                "token_endpoint": "https://mtls.id.example/token",
                "revocation_endpoint": "https://mtls.id.example/revoke",
                "userinfo_endpoint": 7,
            },
            "jwks_uri": ["not ours"],
        }
    )
    assert metadata == IssuerMetadata(
        issuer=ISSUER,
        token_endpoint=TOKEN_URL,
        authorization_endpoint="https://login.example/authorize?p=policy",
        revocation_endpoint="https://id.example/revoke",
        requires_iss=True,
        token_endpoint_auth_methods=("private_key_jwt", "client_secret_post"),
        code_challenge_methods=("plain", "S256"),
        grant_types=("authorization_code", "refresh_token"),
        scopes_supported=("openid", "offline_access"),
        mtls_token_endpoint="https://mtls.id.example/token",
        mtls_revocation_endpoint="https://mtls.id.example/revoke",
    )


@pytest.mark.parametrize("said", [{}, {"scopes_supported": None, "mtls_endpoint_aliases": None}])
def test_silence_means_what_the_specifications_say(said):
    metadata = read({**LEAST, **said})
    assert metadata == IssuerMetadata(issuer=ISSUER, token_endpoint=TOKEN_URL)
    assert metadata.token_endpoint_auth_methods == ("client_secret_basic",)
    assert metadata.pkce


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("issuer", None),
        ("issuer", [ISSUER]),
        ("token_endpoint", None),
        ("token_endpoint", ""),
        ("token_endpoint", 7),
        ("token_endpoint", [TOKEN_URL]),
        ("token_endpoint", "http://id.example/token"),
        ("token_endpoint", "https://10.0.0.1/token"),
        ("token_endpoint", "https://169.254.169.254/latest/meta-data"),
        ("token_endpoint", "https://id.example/token#here"),
        ("token_endpoint", "https://user:word@id.example/token"),
        ("authorization_endpoint", "javascript:alert(1)"),
        ("authorization_endpoint", "https://id.example/\u0000"),
        ("revocation_endpoint", "//id.example/revoke"),
        ("revocation_endpoint", "https://id.example/" + "x" * MAX_URL_LENGTH),
        ("authorization_response_iss_parameter_supported", "true"),
        ("token_endpoint_auth_methods_supported", "client_secret_basic"),
        ("token_endpoint_auth_methods_supported", [None]),
        ("code_challenge_methods_supported", {"S256": True}),
        ("grant_types_supported", ["two words"]),
        ("scopes_supported", ["\u0000"]),
        ("scopes_supported", ["x"] * 1001),
        ("mtls_endpoint_aliases", [TOKEN_URL]),
        ("mtls_endpoint_aliases.token_endpoint", "http://id.example/token"),
        ("mtls_endpoint_aliases.revocation_endpoint", False),
    ],
)
def test_a_member_that_is_wrong_is_refused_by_its_name(member, value):
    outer, _, inner = member.partition(".")
    with pytest.raises(MetadataRefused, match=f"^{member}: "):
        read({**LEAST, outer: {inner: value} if inner else value})


@pytest.mark.parametrize(
    "said",
    [f"{ISSUER}/", ISSUER.upper(), "https://id.example:443/tenant", "https://id.example", "https://evil.example"],
)
def test_another_issuer_is_refused_and_both_are_named(said):
    with pytest.raises(MetadataRefused, match=r"^issuer: ") as refused:
        read({**LEAST, "issuer": said})
    assert f"`{said}`" in str(refused.value)
    assert f"`{ISSUER}`" in str(refused.value)


def test_of_what_an_issuer_calls_itself_little_is_shown_and_in_plain_characters():
    with pytest.raises(MetadataRefused) as refused:
        read({**LEAST, "issuer": "\u001b[31m\r\n\u202eé" + "x" * 5000})
    message = str(refused.value)
    assert message.replace("…", "").isascii()
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"null", b'"text"', b"{", b"\xff{}", b"[" * 100_000, b'{"issuer": ' + b"9" * 5000]
)
def test_what_is_no_json_object_is_refused(body):
    with pytest.raises(MetadataRefused):
        read(body)


@pytest.mark.parametrize("status", [201, 204, 301, 302, 401, 404, 500])
def test_every_status_but_200_is_refused(status):
    with pytest.raises(MetadataRefused, match=str(status)):
        read(LEAST, status=status)


def test_a_page_is_not_metadata_whatever_it_shows():
    with pytest.raises(MetadataRefused):
        read(LEAST, Content_Type="text/html; charset=utf-8")
    read(LEAST, Content_Type="application/json; charset=utf-8")
    assert read_metadata(ISSUER, status=200, headers={}, body=json.dumps(LEAST).encode()).issuer == ISSUER


BASIC, POST, NONE = TokenAuthMethod
JWT = "private_key_jwt"


@pytest.mark.parametrize(
    ("offered", "has_secret", "has_certificate", "meant"),
    [
        ([], True, False, BASIC),
        (["client_secret_post", "client_secret_basic"], True, False, BASIC),
        ([JWT, "client_secret_post", "none"], True, False, POST),
        ([JWT, "none"], True, False, NONE),
        (["none"], False, False, NONE),
        (["client_secret_basic"], False, False, NONE),
        (["tls_client_auth"], False, True, NONE),
        (["self_signed_tls_client_auth"], True, True, NONE),
        (["tls_client_auth", "client_secret_post"], True, True, POST),
        ([JWT], True, False, None),
        ([JWT], False, True, None),
        (["tls_client_auth"], True, False, None),
    ],
)
def test_how_to_authenticate_follows_from_what_is_offered_and_what_there_is(
    offered, has_secret, has_certificate, meant
):
    metadata = read({**LEAST, "token_endpoint_auth_methods_supported": offered})
    if meant is None:
        with pytest.raises(MetadataRefused):
            metadata.preferred_auth_method(has_secret, has_certificate=has_certificate)
    else:
        assert metadata.preferred_auth_method(has_secret, has_certificate=has_certificate) is meant


@pytest.mark.parametrize(
    ("said", "meant"), [(["S256"], True), (["plain", "S256"], True), (["plain"], False), ([], True)]
)
def test_pkce_is_on_unless_the_issuer_speaks_another_one_only(said, meant):
    assert read({**LEAST, "code_challenge_methods_supported": said}).pkce is meant


def test_stored_metadata_is_read_by_older_and_newer_releases():
    stored = {"issuer": ISSUER, "token_endpoint": TOKEN_URL, "of_a_newer_release": [1]}
    assert IssuerMetadata.from_json(stored) == IssuerMetadata(issuer=ISSUER, token_endpoint=TOKEN_URL)


@pytest.mark.parametrize(
    ("issuer", "first", "second"),
    [
        ("https://a.example", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"),
        ("https://a.example/", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"),
        ("https://a.example/t", "/t/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/t"),
        ("https://a.example/t/", "/t/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/t"),
    ],
)
def test_where_metadata_is(issuer, first, second):
    assert metadata_urls(issuer) == (f"https://a.example{first}", f"https://a.example{second}")


def test_metadata_of_an_international_host_is_fetched_by_its_ascii_name():
    assert all(url.startswith("https://xn--bcher-kva.example/") for url in metadata_urls("https://bücher.example/"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "id.example",
        "http://id.example",
        "https://10.0.0.1",
        "https://id.example?tenant=a",
        "https://id.example/?",
        "https://id.example/#a",
        "https://id.example/\u0000",
        "https://me@id.example",
        "https://id.example/" + "x" * 500,
    ],
)
def test_what_cannot_be_an_issuer_is_refused(url):
    with pytest.raises(UrlRefused):
        check_issuer_url(url)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
urls = st.sampled_from([TOKEN_URL, "https://other.example", "http://id.example", "https://10.0.0.1/"]) | st.text().map(
    "https://{}".format
)
lists = st.lists(st.sampled_from(["none", "S256", JWT]) | st.text(max_size=3), max_size=3)
documents = st.fixed_dictionaries(
    {"issuer": st.just(ISSUER) | anything, "token_endpoint": st.just(TOKEN_URL) | urls | anything},
    optional={
        "authorization_endpoint": urls | anything,
        "revocation_endpoint": urls | anything,
        "authorization_response_iss_parameter_supported": st.booleans() | anything,
        "token_endpoint_auth_methods_supported": lists | anything,
        "code_challenge_methods_supported": lists | anything,
        "scopes_supported": lists | anything,
        "mtls_endpoint_aliases": st.dictionaries(
            st.sampled_from(["token_endpoint", "revocation_endpoint"]), urls | anything
        )
        | anything,
    },
)


@given(documents | st.dictionaries(st.text(), anything))
def test_any_object_is_metadata_that_can_be_stored_or_is_refused(document):
    try:
        metadata = read(document)
    except MetadataRefused:
        return
    stored = json.dumps(metadata.to_json(), ensure_ascii=False)
    assert stored.isascii()
    assert "\\u0000" not in stored
    assert IssuerMetadata.from_json(json.loads(stored)) == metadata
