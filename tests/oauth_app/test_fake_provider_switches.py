"""The switches of the fake provider: the less common ways of providers, and what a switch refuses."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
import trustme

from oauth_app.fake_provider import Answer, FakeProvider
from oauth_app.fake_provider.behaviour import SWITCHES
from oauth_app.fake_provider.record import Seen
from oauth_app.fake_provider.wire import is_loopback
from tests.support.browser import Browser
from tests.support.fake_client import REDIRECT_URI, ask, consent, refresh, sign_in

# Refresh.


def test_a_consumed_refresh_token_may_come_again_in_its_grace(http: requests.Session, provider: FakeProvider) -> None:
    provider.reuse_grace = 60
    first = sign_in(http, provider)
    second = refresh(http, provider, first).json()

    assert refresh(http, provider, first).json() == second
    assert (provider.refreshes, provider.reuses) == (1, 0)

    provider.reuse_grace = 0
    assert refresh(http, provider, first).json()["error"] == "invalid_grant"
    assert provider.reuses == 1


def test_a_refresh_may_end_the_access_token_before_it(http: requests.Session, provider: FakeProvider) -> None:
    provider.refresh_ends_access_token = True
    first = sign_in(http, provider)
    second = refresh(http, provider, first).json()
    assert [provider.is_live(tokens["access_token"]) for tokens in (first, second)] == [False, True]


# Answers.


def test_lifetimes_can_be_in_milliseconds(http: requests.Session, provider: FakeProvider) -> None:
    provider.lifetimes_in_milliseconds = True
    provider.refresh_token_expires_in = 86_400
    answer = sign_in(http, provider)
    assert (answer["expires_in"], answer["refresh_token_expires_in"]) == (3_600_000, 86_400_000)


def test_without_an_offline_scope_there_is_no_refresh_token(http: requests.Session, provider: FakeProvider) -> None:
    provider.offline_scopes = ["offline_access"]
    person = {"grant_type": "password", "username": "fake-user", "password": "fake-password"}
    assert "refresh_token" not in ask(http, provider, **person, scope="read").json()
    assert "refresh_token" in ask(http, provider, **person, scope="read offline_access").json()


@pytest.mark.parametrize("secret", ["fake-client-secret", None])
def test_an_id_token_comes_with_the_scope_openid(
    http: requests.Session, provider: FakeProvider, secret: str | None
) -> None:
    provider.client_secret = secret
    provider.id_token = {"email": "ada@example.org"}
    back = consent(http, provider, scope="openid email", nonce="n")
    answer = ask(http, provider, grant_type="authorization_code", code=back["code"], redirect_uri=REDIRECT_URI).json()

    signed, _, signature = answer["id_token"].rpartition(".")
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in signed.split("."))
    expected = {
        "iss": provider.base_url,
        "sub": "fake-user",
        "aud": "fake-client",
        "email": "ada@example.org",
        "nonce": "n",
    }
    assert expected.items() <= claims.items()
    if secret is None:
        assert (header["alg"], signature) == ("none", "")
    else:
        digest = hmac.digest(secret.encode(), signed.encode(), hashlib.sha256)
        assert (header["alg"], signature) == ("HS256", base64.urlsafe_b64encode(digest).rstrip(b"=").decode())
    assert "id_token" not in sign_in(http, provider)


def test_a_token_request_may_be_json(http: requests.Session, provider: FakeProvider) -> None:
    body = {"grant_type": "client_credentials", "client_id": "fake-client", "client_secret": "fake-client-secret"}
    assert http.post(provider.token_url, json=body, timeout=5).status_code == 200
    for nonsense in ("[1]", "{", '{"grant_type": {}}'):
        answer = http.post(provider.token_url, nonsense, headers={"Content-Type": "application/json"}, timeout=5)
        assert answer.json()["error"] == "invalid_client"


# Consent.


def test_an_error_of_the_implicit_grant_comes_in_the_fragment(http: requests.Session, provider: FakeProvider) -> None:
    provider.authorize_error = "access_denied"
    query = {"client_id": "fake-client", "redirect_uri": REDIRECT_URI, "response_type": "token", "state": "s"}
    answer = http.get(provider.authorize_url, params=query, allow_redirects=False, timeout=5)
    back = urlsplit(answer.headers["Location"])
    assert (back.query, parse_qs(back.fragment)) == ("keep=this", {"error": ["access_denied"], "state": ["s"]})


def test_an_implicit_token_says_all_there_is_to_say_of_it(http: requests.Session, provider: FakeProvider) -> None:
    back = consent(http, provider, response_type="token", scope="read")
    assert {name: value for name, value in back.items() if name != "access_token"} == {
        "token_type": "Bearer",
        "expires_in": "3600",
        "scope": "read",
        "state": "s",
    }


@pytest.mark.parametrize(("button", "outcome"), [("Allow", "code"), ("Deny", "error")])
def test_a_person_is_asked_and_decides(provider: FakeProvider, button: str, outcome: str) -> None:
    provider.asks = True
    provider.username = "ada <script>"
    query = [
        ("client_id", "fake-client"),
        ("redirect_uri", f"{provider.base_url}/nothing"),
        ("response_type", "code"),
        ("scope", "read:user write"),
        ("state", '"><script>'),
        ("resource", "a"),
        ("resource", "b"),
    ]
    browser = Browser()
    page = browser.open(f"{provider.authorize_url}?{urlencode(query)}")

    assert page.status == 200
    for shown in ("fake-client", "ada <script>", "read:user", "write"):
        assert shown in page.text
    assert b"<script>" not in page.body
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert [pair for pair in page.form(0).filled({}) if pair[0] != "decision"] == query

    back = browser.submit(page, click=button.lower())

    said = parse_qs(urlsplit(back.url).query)
    assert set(said) == {outcome, "state"}
    assert said["state"] == ['"><script>']
    # One person came, although two requests did.
    assert len(provider.authorizations) == 1


def test_what_is_wrong_with_an_authorization_is_said_before_anybody_is_asked(
    http: requests.Session, provider: FakeProvider
) -> None:
    provider.asks = provider.requires_pkce = True
    assert consent(http, provider)["error"] == "invalid_request"


# Revocation.


def revoke(http: requests.Session, provider: FakeProvider, style: str, token: str) -> requests.Response:
    client = ("fake-client", "fake-client-secret")
    match style:
        case "bearer":
            headers = {"Authorization": f"Bearer {token}"}
            return http.post(f"{provider.base_url}/api/auth.revoke", headers=headers, timeout=5)
        case "github":
            url = f"{provider.base_url}/applications/fake-client/token"
            return http.delete(url, json={"access_token": token}, auth=client, timeout=5)
        case "rfc7009":
            return http.post(provider.revoke_url, data={"token": token, "client_id": client[0]}, auth=client, timeout=5)
        case _:
            return http.post(provider.revoke_url, data={"token": token}, timeout=5)


@pytest.mark.parametrize(
    ("style", "status", "refused"),
    [("rfc7009", 200, 200), ("token_only", 200, 200), ("bearer", 200, 200), ("github", 204, 422)],
)
def test_each_way_to_revoke_ends_the_token_and_is_recorded(
    http: requests.Session, provider: FakeProvider, style: str, status: int, refused: int
) -> None:
    provider.revocation_needs_client = style == "rfc7009"
    tokens = sign_in(http, provider)
    provider.next(Answer.busy(), endpoint="revoke")

    outage = revoke(http, provider, style, tokens["access_token"])
    assert (outage.status_code, provider.revocations) == (503, [])

    assert revoke(http, provider, style, tokens["access_token"]).status_code == status
    assert not provider.is_live(tokens["access_token"])
    assert provider.revocations[0]["style"] == style
    assert tokens["access_token"] in provider.revocations[0].values()

    again = revoke(http, provider, style, tokens["access_token"])
    assert again.status_code == refused
    if style == "bearer":
        assert again.json() == {"ok": False, "error": "token_revoked"}
    # The grant lives on.
    assert refresh(http, provider, tokens).status_code == 200


def test_revoking_an_access_token_may_end_its_grant(http: requests.Session, provider: FakeProvider) -> None:
    provider.revoke_ends_grant = True
    tokens = sign_in(http, provider)
    revoke(http, provider, "rfc7009", tokens["access_token"])
    assert refresh(http, provider, tokens).json()["error"] == "invalid_grant"


@pytest.mark.parametrize("style", ["rfc7009", "token_only", "github"])
def test_a_stranger_revokes_nothing(http: requests.Session, provider: FakeProvider, style: str) -> None:
    tokens = sign_in(http, provider)
    provider.client_secret = "another"
    assert revoke(http, provider, style, tokens["access_token"]).status_code == 401
    assert provider.is_live(tokens["access_token"])


# Discovery.


@pytest.mark.parametrize("name", ["openid-configuration", "oauth-authorization-server"])
def test_the_metadata_says_what_the_switches_say(http: requests.Session, provider: FakeProvider, name: str) -> None:
    provider.iss = "{base_url}"
    provider.mtls_endpoint_aliases = {"token_endpoint": "{base_url}/token"}
    provider.metadata = {"revocation_endpoint": None, "issuer": "https://elsewhere.example"}
    document = http.get(f"{provider.base_url}/.well-known/{name}", timeout=5).json()

    assert document["authorization_response_iss_parameter_supported"] is True
    assert document["mtls_endpoint_aliases"] == {"token_endpoint": provider.token_url}
    assert document["issuer"] == "https://elsewhere.example"
    assert "revocation_endpoint" not in document
    assert consent(http, provider)["iss"] == provider.base_url


# Mutual TLS.


def test_a_client_is_known_by_its_certificate(http: requests.Session, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    authority.configure_trust(context)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    root, own, other = (tmp_path / name for name in ("root.pem", "own.pem", "other.pem"))
    authority.cert_pem.write_to_path(root)
    issued = authority.issue_cert("client.example.org")
    issued.private_key_and_cert_chain_pem.write_to_path(own)
    authority.issue_cert("other.example.org").private_key_and_cert_chain_pem.write_to_path(other)
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())).hexdigest()

    def errors(cert: Path | None, **form: str) -> str | None:
        form = {"grant_type": "client_credentials", "client_id": "fake-client"} | form
        # A new session each time: a kept connection would keep its certificate.
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(provider.token_url, form, verify=str(root), cert=cert and str(cert), timeout=5)
        return answer.json().get("error")

    with FakeProvider(ssl_context=context, requires_client_certificate=True) as provider:
        assert [errors(cert) for cert in (None, own, other)] == ["invalid_client", None, None]
        provider.client_certificate_sha256 = ":".join(digest[at : at + 2] for at in range(0, 64, 2)).upper()
        assert [errors(cert) for cert in (None, own, other)] == ["invalid_client", None, "invalid_client"]
        assert errors(own, client_secret="wrong") == "invalid_client"
        assert errors(own, client_id="other") == "invalid_client"


def test_over_plain_http_nobody_has_a_certificate(http: requests.Session, provider: FakeProvider) -> None:
    provider.requires_client_certificate = True
    assert ask(http, provider, grant_type="client_credentials").json()["error"] == "invalid_client"


# What may be told, and by whom.


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("delay", "3", "delay must be a number of seconds, 0 or more."),
        ("delay", -1, "delay must be a number of seconds, 0 or more."),
        ("asks", 1, "asks must be true or false."),
        ("refresh_tokens", "rotate", "refresh_tokens must be one of rotated, renewed, kept, repeated, never."),
        ("omit", "expires_in", "omit must be a list of texts."),
        ("extra", [], "extra must be an object."),
        ("error_status", True, "error_status must be a whole number or null."),
        ("client_id", None, "client_id must be text."),
        ("answer", {"speed": 3}, "An answer is an object of "),
        ("answer", {"status": "429"}, "status must be a whole number or null."),
        ("answer", {"drop": "gently"}, "drop must be one of reset, closed, mid-answer or null."),
        ("speed", 3, "No such switch: speed. There are: client_id, "),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_words(
    http: requests.Session, provider: FakeProvider, name: str, value: Any, expected: str
) -> None:
    before = provider.expires_in
    answer = http.post(f"{provider.base_url}/_control", json={"set": {"expires_in": 1, name: value}}, timeout=5)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(expected)
    assert provider.expires_in == before


@pytest.mark.parametrize(
    "order", [[], {"say": 1}, {"set": 1}, {"next": [{}]}, {"next": [{"answer": {}, "endpoint": "else"}]}]
)
def test_an_order_that_is_not_understood_is_refused(http: requests.Session, provider: FakeProvider, order: Any) -> None:
    answer = http.post(f"{provider.base_url}/_control", json=order, timeout=5)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


def test_every_switch_is_told_in_a_sentence() -> None:
    assert all(switch.doc.endswith(".") for switch in SWITCHES.values())


@pytest.mark.parametrize("path", ["/_control", "/_log"])
def test_only_this_machine_gives_orders(
    http: requests.Session, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("oauth_app.fake_provider.wire.is_loopback", lambda host: host != "127.0.0.1")
    call = http.post if path == "/_control" else http.get
    assert call(provider.base_url + path, timeout=5).status_code == 404
    assert ask(http, provider, grant_type="client_credentials").status_code == 200


@pytest.mark.parametrize(
    ("host", "is_near"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("localhost.example.org", False),
    ],
)
def test_loopback_is_this_machine(host: str, is_near: bool) -> None:
    assert is_loopback(host) is is_near


def test_it_listens_on_ipv6_too(http: requests.Session) -> None:
    with FakeProvider(host="::1") as provider:
        assert provider.base_url.startswith("http://[::1]:")
        assert ask(http, provider, grant_type="client_credentials").status_code == 200


# What is seen of a request.


def test_what_is_told_of_requests_holds_nothing_to_keep(http: requests.Session) -> None:
    seen: list[Seen] = []
    with FakeProvider(on_request=seen.append) as provider:
        back = consent(http, provider, scope="read")
        code = {"grant_type": "authorization_code", "code": back["code"], "redirect_uri": REDIRECT_URI}
        tokens = ask(http, provider, **code).json()
        provider.next(Answer.busy(429))
        refresh(http, provider, tokens)
        ask(http, provider, grant_type=tokens["refresh_token"], client_id="li\nne\x1b[31m")
        revoke(http, provider, "rfc7009", tokens["refresh_token"])

    lines = [one.line() for one in seen]
    assert [line.partition(" ")[2] for line in lines] == [
        "authorize code fake-client allowed",
        "token authorization_code fake-client issued, status 200",
        "token refresh_token fake-client replaced, status 429",
        "token other li?ne?[31m invalid_client, status 401",
        "revoke - fake-client revoked, status 200",
    ]
    for kept in (back["code"], tokens["access_token"], tokens["refresh_token"], "fake-client-secret"):
        assert kept not in "\n".join(lines)
