"""Secrets that are planted in a vault, and every way in which it gets to see them."""

from __future__ import annotations

import re
import time
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
import trustme
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from oauth_app.fake_provider import Answer, FakeProvider
from tests.support.browser import Browser
from tests.support.certificates import Issued, chain
from tests.support.vaults import Vault

LEAF = chain()[0]
AUTHORITY = trustme.CA()
# What is shown to a token endpoint.
SHOWN = AUTHORITY.issue_cert("vault@example.com")
SHOWN_KEY = SHOWN.private_key_pem.bytes().decode()
PLANTED = {
    "value": "planted-value-7f3a",
    "client_id": "planted-client-id-7f3a",
    "client_secret": "planted-client-secret-7f3a",
    "username": "planted-username-7f3a",
    "password": "planted-password-7f3a",
    "token_param": "planted-token-param-7f3a",
    "bad_secret": "planted-bad-secret-7f3a",
    "certificate_content": "planted-content-7f3a",
    "private_key": "planted-key-7f3a",
    "key_line": LEAF.key_pem().split("\n")[1],
    "passphrase": "planted-passphrase-7f3a",
    "shown_passphrase": "planted-shown-passphrase-7f3a",
    "shown_key_line": SHOWN_KEY.split("\n")[2],
    "new_client_secret": "planted-new-client-secret-7f3a",
    "return_url": "planted-return-url-7f3a",
    "link_return_url": "planted-link-return-url-7f3a",
    "implicit": "planted-implicit-token-7f3a",
    "id_token": "planted-id-token-7f3a",
    "access": "fake-access-",
    "refresh": "fake-refresh-",
    "code": "fake-code-",
}


# Known only when the vault has made it.
LINK: dict[str, str] = {}
# Where a link leads afterwards stands in its row, as its state does.
IN_ROWS = "link_return_url"


def found_in(text: bytes, *, but: str = "") -> list[str]:
    return [name for name, planted in {**PLANTED, **LINK}.items() if planted.encode() in text and name != but]


def use(vault: Vault, provider: FakeProvider) -> None:
    client = {
        "provider": "custom",
        "client_id": PLANTED["client_id"],
        "client_secret": PLANTED["client_secret"],
        "auth_url": provider.authorize_url,
        "token_url": provider.token_url,
        "token_params": {"planted": PLANTED["token_param"]},
    }
    keyed = {"headers": {"X-Idempotency-Key": "leaks"}}
    assert vault.call("POST", "/v1/secrets", {"name": "s", "value": PLANTED["value"]}, **keyed).status_code == 201
    file = {
        "certificate_content": f"{PLANTED['certificate_content']}\n{LEAF.pem}",
        "private_key": f"{PLANTED['private_key']}\n{LEAF.key_pem()}",
        "passphrase": PLANTED["passphrase"],
    }
    certificate = vault.call("POST", "/v1/secrets/certificate", {"name": "certificate", **file}).json()["data"]
    assert vault.call("PUT", f"/v1/secrets/{certificate['id']}/certificate", file).status_code == 200
    machine = vault.create_oauth2(name="machine", grant_type="client_credentials", **client)
    person = {"username": PLANTED["username"], "password": PLANTED["password"]}
    by_password = vault.create_oauth2(name="password", grant_type="password", **person, **client)
    by_consent = vault.create_oauth2(name="consent", **client)
    page = Browser().open(by_consent["redirect_uri"])
    assert page.status == 200, page.text
    for made in (machine, by_password, by_consent):
        token = vault.token(made["id"], "?force_refresh=true")
        assert token["access_token"].startswith(PLANTED["access"])
    # The failures, where values tend to be quoted: bad bodies, refused clients, providers that repeat what they got.
    bad = {
        **client,
        "client_secret": PLANTED["bad_secret"],
        "password": PLANTED["bad_secret"],
        "grant_type": "password",
    }
    assert vault.call("POST", "/v1/secrets/oauth2", {"name": "bad", **bad}).status_code == 400
    assert vault.call("POST", "/v1/secrets", {"name": "bad", "value": [PLANTED["value"]]}).status_code == 400
    broken = f'{{"name": "x", "value": "{PLANTED["value"]}'
    assert (
        vault.call("POST", "/v1/secrets", data=broken, headers={"Content-Type": "application/json"}).status_code == 400
    )
    for field in ("certificate_content", "private_key"):
        bad_file = {"name": "bad", **file, field: f"{LEAF.pem}{PLANTED[field]}"}
        assert vault.call("POST", "/v1/secrets/certificate", bad_file).status_code == 400
    echo = Answer.json({"error": "fake-refresh-echo", "error_description": PLANTED["client_secret"]}, status=400)
    provider.next(echo, times=3, endpoint="token")
    time.sleep(3)
    vault.call("GET", f"/v1/secrets/{by_consent['id']}/oauth2/token?force_refresh=true")
    provider.revoke_grants()
    vault.call("GET", f"/v1/secrets/{by_consent['id']}/oauth2/token?force_refresh=true")
    denied = vault.create_oauth2(name="denied", **client)
    provider.next(echo, endpoint="token")
    Browser().open(denied["redirect_uri"])


def end(vault: Vault, provider: FakeProvider, tls_provider: FakeProvider) -> None:
    """The changes and the ends: another client secret, links, a certificate that is shown, and tokens that wait to be revoked.

    The worker refreshes some of the others meanwhile.
    """
    client = {
        "provider": "custom",
        "client_id": PLANTED["client_id"],
        "client_secret": PLANTED["client_secret"],
        "auth_url": provider.authorize_url,
        "token_url": provider.token_url,
        "revocation_url": provider.revoke_url,
    }
    # The provider is away for all revocations, so that their tokens wait in the database.
    for away in (provider, tls_provider):
        away.next(Answer.busy(503), times=1000, endpoint="revoke")
    operator = signed_in(vault)
    allow_origin(operator, vault, provider.base_url)
    returning = vault.create_oauth2(
        name="returning", return_url=f"{provider.base_url}/?planted={PLANTED['return_url']}", **client
    )
    Browser().open(returning["redirect_uri"])
    consent_by_link(vault, provider, returning["id"])
    take_implicitly(vault, provider)
    change_client(vault, provider, returning["id"])
    operate(operator, vault, "returning")
    shown = show_certificate(vault, tls_provider, "shows")
    for ended in (returning["id"], shown):
        assert disconnect(vault, ended)["revocation"]["outcome"] == "pending"
    again = show_certificate(vault, tls_provider, "shows-again")
    assert vault.call("DELETE", f"/v1/secrets/{again}").status_code == 200


def signed_in(vault: Vault) -> requests.Session:
    """The operator in the admin."""
    name, password = vault.house.operator
    session = requests.Session()
    session.trust_env = False
    session.get(f"{vault.base_url}/admin/login/")
    submit(session, f"{vault.base_url}/admin/login/", username=name, password=password)
    return session


def submit(session: requests.Session, address: str, **fields: str) -> bytes:
    form = {**fields, "csrfmiddlewaretoken": session.cookies["csrftoken"]}
    answer = session.post(address, data=form, headers={"Referer": address}, timeout=30)
    assert answer.status_code == 200, address
    return answer.content


def allow_origin(operator: requests.Session, vault: Vault, origin: str) -> None:
    address = f"{vault.base_url}/admin/oauth_app/returnorigin/add/"
    found = re.search(r'<option value="([0-9a-f-]{36})"', operator.get(address, timeout=30).text)
    assert found
    assert origin.encode() in submit(operator, address, account=found[1], origin=origin)


def consent_by_link(vault: Vault, provider: FakeProvider, secret_id: str) -> None:
    wanted = {"return_url": f"{provider.base_url}/?planted={PLANTED['link_return_url']}"}
    for _ in range(2):
        made = vault.call(
            "POST", f"/v1/secrets/{secret_id}/oauth2/authorize", wanted, headers={"X-Idempotency-Key": "link"}
        )
        assert made.status_code == 200, made.text
    url = made.json()["data"]["authorize_url"]
    LINK["link"] = dict(parse_qsl(urlsplit(url).query))["link"]
    browser = Browser()
    browser.open(url)
    assert PLANTED["link_return_url"] in browser.address
    assert "result=connected" in browser.address


def take_implicitly(vault: Vault, provider: FakeProvider) -> None:
    """Connect by the implicit grant, as the page's script would, with a token that is planted."""
    secret = vault.create_oauth2(
        name="implicit",
        provider="custom",
        grant_type="implicit",
        client_id=PLANTED["client_id"],
        auth_url=provider.authorize_url,
    )
    browser = Browser()
    page = browser.open(f"{secret['redirect_uri']}?start=1")
    brought = dict(parse_qsl(urlsplit(page.url).fragment)) | {
        "access_token": PLANTED["implicit"],
        "id_token": PLANTED["id_token"],
        "expires_in": "3600",
    }
    taken = browser.fetch(page, secret["redirect_uri"], body=brought)
    assert taken.status == 200, taken.text
    assert vault.token(secret["id"])["access_token"] == PLANTED["implicit"]


def change_client(vault: Vault, provider: FakeProvider, secret_id: str) -> None:
    """Give it a secret that the provider does not know yet, and have it refused and the previous one taken."""
    change = {"client_secret": PLANTED["new_client_secret"]}
    assert vault.call("PATCH", f"/v1/secrets/{secret_id}/oauth2", change).status_code == 200
    for _ in range(2):
        renewed = vault.call(
            "POST", f"/v1/secrets/{secret_id}/oauth2/refresh", {}, headers={"X-Idempotency-Key": "refresh"}
        )
        assert renewed.status_code == 200, renewed.text
    shown = vault.call("GET", f"/v1/secrets/{secret_id}/oauth2")
    assert "previous_client_secret_in_use" in shown.text
    assert found_in(shown.content) == []


def operate(operator: requests.Session, vault: Vault, name: str) -> None:
    """What the admin can do, but for the end: each page shows what it made, and nothing else."""
    listed = operator.get(f"{vault.base_url}/admin/oauth_app/connection/?q={name}", timeout=30).text
    found = re.search(r"/admin/oauth_app/connection/([0-9a-f-]{36})/change/", listed)
    assert found
    pages = f"{vault.base_url}/admin/oauth_app/connection/{found[1]}"
    assert found_in(submit(operator, f"{pages}/refresh/")) == []
    made = submit(operator, f"{pages}/consent-link/", return_url="")
    assert b"/auth/oauth2/connect?link=" in made
    assert found_in(made) == []


def show_certificate(vault: Vault, tls_provider: FakeProvider, name: str) -> str:
    """Have a token by a certificate whose key is encrypted; returns the secret's id."""
    key = load_pem_private_key(SHOWN_KEY.encode(), None)
    file = {
        "certificate_content": "".join(part.bytes().decode() for part in SHOWN.cert_chain_pems),
        "private_key": Issued(LEAF.certificate, key).key_pem(PLANTED["shown_passphrase"]),
        "passphrase": PLANTED["shown_passphrase"],
    }
    kept = vault.call("POST", "/v1/secrets/certificate", {"name": f"{name}-it", **file}).json()["data"]
    made = vault.create_oauth2(
        name=name,
        provider="custom",
        grant_type="client_credentials",
        client_id=PLANTED["client_id"],
        token_url=tls_provider.token_url,
        revocation_url=tls_provider.revoke_url,
        mtls_certificate_id=kept["id"],
    )
    assert made["connection_status"] == "connected", made
    assert tls_provider.requests[-1].peer_sha256
    return str(made["id"])


def disconnect(vault: Vault, secret_id: str) -> dict[str, Any]:
    answer = vault.call("POST", f"/v1/secrets/{secret_id}/oauth2/disconnect", {})
    assert answer.status_code == 200, answer.text
    assert found_in(answer.content) == []
    data: dict[str, Any] = answer.json()["data"]
    return data
