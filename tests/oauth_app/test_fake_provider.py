"""The fake provider keeps to the protocol where it is not told otherwise, and to the letter of what it is told."""

from __future__ import annotations

import base64
import hashlib
import secrets
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import pytest
import requests
import trustme

from oauth_app.fake_provider import Answer, Drop, FakeProvider, RefreshTokens
from tests.support.browser import Browser
from tests.support.fake_client import REDIRECT_URI, ask, consent, refresh, sign_in
from tests.support.fake_provider_process import FakeProviderProcess

# What the protocol asks for.


def test_a_code_is_exchanged_once_by_whoever_has_the_verifier(http: requests.Session, provider: FakeProvider) -> None:
    provider.iss = provider.issuer
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    back = consent(http, provider, code_challenge=challenge, code_challenge_method="S256", scope="read write")
    assert (back["keep"], back["state"], back["iss"]) == ("this", "s", provider.base_url)
    exchange = {"grant_type": "authorization_code", "code": back["code"], "redirect_uri": REDIRECT_URI}

    assert ask(http, provider, **exchange).json()["error"] == "invalid_grant"
    assert ask(http, provider, **exchange, code_verifier="another").json()["error"] == "invalid_grant"
    tokens = ask(http, provider, **exchange, code_verifier=verifier).json()

    assert tokens["access_token"].startswith("fake-access-")
    assert tokens["refresh_token"].startswith("fake-refresh-")
    assert (tokens["token_type"], tokens["expires_in"], tokens["scope"]) == ("Bearer", 3600, "read write")
    assert provider.is_live(tokens["access_token"])

    # RFC 6749 §4.1.2: a code used twice ends what it was exchanged for.
    assert ask(http, provider, **exchange, code_verifier=verifier).json()["error"] == "invalid_grant"
    assert not provider.is_live(tokens["access_token"])
    assert provider.code_reuses == 1


def test_a_code_goes_only_to_the_redirect_uri_that_it_was_made_for(
    http: requests.Session, provider: FakeProvider
) -> None:
    code = consent(http, provider)["code"]
    answer = ask(http, provider, grant_type="authorization_code", code=code, redirect_uri="http://127.0.0.1:1/other")
    assert answer.json()["error"] == "invalid_grant"


def test_an_unknown_client_is_not_redirected(http: requests.Session, provider: FakeProvider) -> None:
    query = {"client_id": "other", "redirect_uri": REDIRECT_URI, "response_type": "code"}
    assert http.get(provider.authorize_url, params=query, allow_redirects=False, timeout=5).status_code == 400


def test_consent_may_be_refused_or_lack_a_challenge(http: requests.Session, provider: FakeProvider) -> None:
    provider.requires_pkce = True
    assert consent(http, provider)["error"] == "invalid_request"
    provider.authorize_error = "access_denied"
    assert consent(http, provider)["error"] == "access_denied"


def test_an_implicit_token_comes_in_the_fragment(provider: FakeProvider) -> None:
    query = {"client_id": "fake-client", "redirect_uri": f"{provider.base_url}/nothing", "response_type": "token"}
    page = Browser().open(f"{provider.authorize_url}?{urlencode(query)}")
    assert parse_qs(urlsplit(page.url).fragment)["access_token"][0].startswith("fake-access-")


def test_clients_authenticate_in_the_header_or_in_the_form(http: requests.Session, provider: FakeProvider) -> None:
    provider.client_secret = "a:b%c+d é"
    # RFC 6749 §2.3.1: form-encoded before base64.
    pair = f"{quote_plus('fake-client')}:{quote_plus(provider.client_secret)}"
    basic = {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    form = {"grant_type": "client_credentials"}

    in_header = http.post(provider.token_url, data=form, headers=basic, timeout=5)
    in_form = ask(http, provider, **form, client_secret=provider.client_secret)
    wrong = ask(http, provider, **form, client_secret="wrong")
    twice = http.post(provider.token_url, data=form | {"client_secret": "x"}, headers=basic, timeout=5)

    assert [answer.status_code for answer in (in_header, in_form, wrong, twice)] == [200, 200, 401, 400]
    assert [request.auth_method for request in provider.requests] == ["basic", "post", "post", "basic"]
    assert [request.outcome for request in provider.requests] == [
        "issued",
        "issued",
        "invalid_client",
        "invalid_request",
    ]


def test_client_credentials_bring_no_refresh_token(http: requests.Session, provider: FakeProvider) -> None:
    assert "refresh_token" not in ask(http, provider, grant_type="client_credentials").json()


def test_a_rotated_refresh_token_that_comes_back_ends_the_grant(http: requests.Session, provider: FakeProvider) -> None:
    first = sign_in(http, provider)
    second = refresh(http, provider, first).json()
    assert second["refresh_token"] != first["refresh_token"]

    assert refresh(http, provider, first).json()["error"] == "invalid_grant"

    assert refresh(http, provider, second).json()["error"] == "invalid_grant"
    assert not provider.is_live(second["access_token"])
    assert (provider.refreshes, provider.reuses, provider.count("refresh_token")) == (1, 1, 3)


def test_a_reuse_may_be_refused_without_ending_the_grant(http: requests.Session, provider: FakeProvider) -> None:
    provider.reuse_revokes = False
    provider.reuse_error = "bad_refresh_token"
    provider.error_status = 200
    first = sign_in(http, provider)
    second = refresh(http, provider, first).json()

    reused = refresh(http, provider, first)

    assert (reused.status_code, reused.json()["error"]) == (200, "bad_refresh_token")
    assert "access_token" in refresh(http, provider, second).json()


@pytest.mark.parametrize(
    ("kind", "is_new", "is_told"),
    [
        (RefreshTokens.RENEWED, True, True),
        (RefreshTokens.KEPT, False, False),
        (RefreshTokens.REPEATED, False, True),
    ],
)
def test_refresh_tokens_that_do_not_rotate_may_be_used_again(
    http: requests.Session, provider: FakeProvider, kind: RefreshTokens, is_new: bool, is_told: bool
) -> None:
    provider.refresh_tokens = kind
    first = sign_in(http, provider)

    second = refresh(http, provider, first).json()

    assert ("refresh_token" in second) is is_told
    assert (second.get("refresh_token", first["refresh_token"]) != first["refresh_token"]) is is_new
    assert refresh(http, provider, first).status_code == 200
    assert provider.reuses == 0


def test_one_of_many_concurrent_refreshes_wins_and_the_others_end_the_grant(provider: FakeProvider) -> None:
    with requests.Session() as http:
        http.trust_env = False
        first = sign_in(http, provider)

        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: refresh(http, provider, first).status_code, range(8)))

    assert sorted(statuses) == [200] + [400] * 7
    assert (provider.refreshes, provider.reuses) == (1, 7)


def test_revoking_a_refresh_token_ends_its_grant(http: requests.Session, provider: FakeProvider) -> None:
    tokens = sign_in(http, provider)
    form = {"client_id": "fake-client", "client_secret": "fake-client-secret", "token": tokens["refresh_token"]}

    assert http.post(provider.revoke_url, data=form, timeout=5).status_code == 200

    assert not provider.is_live(tokens["access_token"])
    assert provider.revocations == [{"style": "rfc7009", **form}]
    assert refresh(http, provider, tokens).json()["error"] == "invalid_grant"


def test_all_grants_can_be_ended_at_once(http: requests.Session, provider: FakeProvider) -> None:
    tokens = sign_in(http, provider)
    provider.revoke_grants()
    assert refresh(http, provider, tokens).json()["error"] == "invalid_grant"


def test_the_metadata_document_names_the_endpoints(http: requests.Session, provider: FakeProvider) -> None:
    document = http.get(f"{provider.issuer}/.well-known/openid-configuration", timeout=5).json()
    assert (document["issuer"], document["token_endpoint"]) == (provider.issuer, provider.token_url)


# What it is told.


@pytest.mark.parametrize("expires_in", [8, "3599", 3599.5, 0, -1, 3_600_000, None])
def test_the_lifetime_is_sent_as_it_stands(http: requests.Session, provider: FakeProvider, expires_in: object) -> None:
    provider.expires_in = expires_in
    assert sign_in(http, provider)["expires_in"] == expires_in


def test_fields_can_be_left_out_changed_and_added(http: requests.Session, provider: FakeProvider) -> None:
    provider.omit = {"expires_in", "token_type", "refresh_token"}
    provider.scope = "repo,user"
    provider.extra = {"instance_url": "https://org.example"}

    answer = sign_in(http, provider)

    assert set(answer) == {"access_token", "scope", "instance_url"}
    assert (answer["scope"], answer["instance_url"]) == ("repo,user", "https://org.example")


def test_a_nested_pair_of_tokens_is_a_grant_of_its_own(http: requests.Session, provider: FakeProvider) -> None:
    provider.nest_under = "authed_user"
    provider.omit = {"access_token", "refresh_token"}
    code = consent(http, provider)["code"]
    answer = ask(http, provider, grant_type="authorization_code", code=code, redirect_uri=REDIRECT_URI).json()

    assert "access_token" not in answer
    assert refresh(http, provider, answer["authed_user"]).status_code == 200


def test_an_answer_can_be_form_encoded(http: requests.Session, provider: FakeProvider) -> None:
    provider.form_encoded = True
    answer = ask(http, provider, grant_type="client_credentials")
    assert answer.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qs(answer.text)["token_type"] == ["Bearer"]


def test_planned_answers_are_given_in_turn_and_leave_the_provider_as_it_was(
    http: requests.Session, provider: FakeProvider
) -> None:
    tokens = sign_in(http, provider)
    provider.next(Answer.error("invalid_grant"))
    provider.next(Answer.error("bad_verification_code", status=200))
    provider.next(Answer.ok_false("token_revoked"))
    provider.next(Answer.html(502))
    provider.next(Answer.empty())
    provider.next(Answer.busy(429, retry_after=7), times=2)

    answers = [refresh(http, provider, tokens) for _ in range(7)]

    assert [answer.status_code for answer in answers] == [400, 200, 200, 502, 200, 429, 429]
    assert answers[2].json() == {"ok": False, "error": "token_revoked"}
    assert answers[3].headers["Content-Type"].startswith("text/html")
    assert answers[4].content == b""
    assert answers[6].headers["Retry-After"] == "7"
    assert {request.outcome for request in provider.requests[1:]} == {"replaced"}
    assert refresh(http, provider, tokens).status_code == 200
    assert provider.reuses == 0


def test_an_answer_can_be_meant_for_one_grant_or_one_endpoint(http: requests.Session, provider: FakeProvider) -> None:
    provider.next(Answer.html(500), grant_type="refresh_token")
    provider.next(Answer.html(503), endpoint="revoke")

    tokens = sign_in(http, provider)
    revoked = http.post(provider.revoke_url, data={"client_id": "fake-client"}, timeout=5)

    assert [refresh(http, provider, tokens).status_code for _ in range(2)] == [500, 200]
    assert revoked.status_code == 503


def test_a_standing_answer_holds_until_it_is_taken_back(http: requests.Session, provider: FakeProvider) -> None:
    provider.answer = Answer.busy()
    assert [ask(http, provider, grant_type="client_credentials").status_code for _ in range(3)] == [503] * 3
    provider.answer = None
    assert ask(http, provider, grant_type="client_credentials").status_code == 200


def test_an_answer_can_be_lost_after_the_refresh_took_effect(http: requests.Session, provider: FakeProvider) -> None:
    tokens = sign_in(http, provider)
    provider.next(Answer.dropped(Drop.CLOSED, takes_effect=True))

    with pytest.raises(requests.ConnectionError):
        refresh(http, provider, tokens)

    assert provider.refreshes == 1
    assert refresh(http, provider, tokens).json()["error"] == "invalid_grant"
    assert provider.reuses == 1


@pytest.mark.parametrize(
    ("drop", "error"),
    [
        (Drop.RESET, requests.ConnectionError),
        (Drop.CLOSED, requests.ConnectionError),
        (Drop.MID_ANSWER, requests.exceptions.ChunkedEncodingError),
    ],
)
def test_connections_can_be_lost(
    http: requests.Session, provider: FakeProvider, drop: Drop, error: type[Exception]
) -> None:
    provider.next(Answer.dropped(drop))
    with pytest.raises(error):
        ask(http, provider, grant_type="client_credentials")
    assert ask(http, provider, grant_type="client_credentials").status_code == 200


def test_a_lost_connection_is_reset_or_closed_in_good_order(provider: FakeProvider) -> None:
    provider.next(Answer.dropped(Drop.RESET))
    provider.next(Answer.dropped(Drop.CLOSED))
    address = urlsplit(provider.base_url)

    def read() -> bytes:
        with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
            connection.sendall(b"POST /token HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
            return connection.recv(100)

    with pytest.raises(ConnectionResetError):
        read()
    assert read() == b""


def test_a_held_request_has_taken_effect_and_is_answered_when_released(provider: FakeProvider) -> None:
    with requests.Session() as http, ThreadPoolExecutor(1) as pool:
        http.trust_env = False
        tokens = sign_in(http, provider)
        provider.next(Answer.hang())
        held = pool.submit(refresh, http, provider, tokens)
        provider.wait_for_requests(2)
        assert not held.done()

        provider.release()

        assert held.result(5).status_code == 200
        assert provider.refreshes == 1


def test_a_provider_that_stops_lets_go_of_what_it_held() -> None:
    with requests.Session() as http, ThreadPoolExecutor(1) as pool:
        http.trust_env = False
        with FakeProvider(answer=Answer.hang(takes_effect=False)) as provider:
            held = pool.submit(ask, http, provider, grant_type="client_credentials")
            provider.wait_for_requests(1)
        with pytest.raises(requests.ConnectionError):
            held.result(5)
        assert provider.issued == 0


def test_delays_fall_between_the_work_and_the_answer(http: requests.Session, provider: FakeProvider) -> None:
    tokens = sign_in(http, provider)
    provider.delay = 0.3
    started = time.monotonic()
    with pytest.raises(requests.ReadTimeout):
        http.post(
            provider.token_url,
            data={
                "client_id": "fake-client",
                "client_secret": "fake-client-secret",
                "grant_type": "refresh_token",
                "refresh_token": tokens["refresh_token"],
            },
            timeout=0.1,
        )
    assert provider.refreshes == 1
    assert ask(http, provider, grant_type="client_credentials").status_code == 200
    assert time.monotonic() - started > 0.4


def test_a_trickling_answer_is_slow_only_as_a_whole(http: requests.Session, provider: FakeProvider) -> None:
    provider.next(Answer(body=b'{"error": 1}', trickle=0.02))
    started = time.monotonic()
    answer = ask(http, provider, grant_type="client_credentials")
    assert answer.content == b'{"error": 1}'
    assert time.monotonic() - started > 0.2


def test_the_peak_counts_requests_under_way_at_once(provider: FakeProvider) -> None:
    provider.answer = Answer.hang()
    with ThreadPoolExecutor(5) as pool, requests.Session() as http:
        http.trust_env = False
        asked = [pool.submit(ask, http, provider, grant_type="client_credentials") for _ in range(5)]
        provider.wait_for_requests(5)
        provider.release()
        assert [answer.result(5).status_code for answer in asked] == [200] * 5
    assert provider.peak_in_flight == 5


def test_connections_are_kept(provider: FakeProvider) -> None:
    with closing(HTTPConnection(urlsplit(provider.base_url).netloc, timeout=5)) as connection:
        connection.connect()
        kept = connection.sock
        for _ in range(3):
            connection.request("POST", "/token", "grant_type=client_credentials")
            connection.getresponse().read()
            assert connection.sock is kept


def test_over_https_the_certificate_of_the_client_is_recorded(http: requests.Session, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    root, own = tmp_path / "root.pem", tmp_path / "own.pem"
    authority.cert_pem.write_to_path(root)
    authority.issue_cert("client@example.org", common_name="client").private_key_and_cert_chain_pem.write_to_path(own)

    with FakeProvider(ssl_context=context, client_secret=None) as provider:
        form = {"grant_type": "client_credentials", "client_id": "fake-client"}
        with pytest.raises(requests.ConnectionError):
            http.post(provider.token_url, data=form, verify=str(root), timeout=5)
        answer = http.post(provider.token_url, data=form, verify=str(root), cert=str(own), timeout=5)
        http.close()

    assert answer.status_code == 200
    assert (("commonName", "client"),) in provider.requests[0].peer_certificate["subject"]


def test_no_thread_is_left_behind() -> None:
    with FakeProvider() as provider, requests.Session() as http:
        http.trust_env = False
        ask(http, provider, grant_type="client_credentials")
        provider.stop()
    deadline = time.monotonic() + 2
    while any("process_request_thread" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


# As a process.


def test_as_a_process_it_has_the_same_switches(http: requests.Session) -> None:
    with FakeProviderProcess(expires_in=8) as provider:
        first = sign_in(http, provider)
        provider.next(Answer.busy(retry_after=2), grant_type="refresh_token")
        provider.next(Answer(body=b"\xff\x00", takes_effect=True))
        provider.set(answer=Answer.html(502))

        answers = [refresh(http, provider, first) for _ in range(3)]
        provider.set(answer=None)
        reused = refresh(http, provider, first)
        log = provider.log(after=1)

    assert first["expires_in"] == 8
    assert [answer.status_code for answer in answers] == [503, 200, 502]
    assert answers[1].content == b"\xff\x00"
    assert reused.json()["error"] == "invalid_grant"
    assert (log["refreshes"], log["reuses"], log["received"], len(log["requests"])) == (1, 1, 5, 4)
    assert log["requests"][0]["form"]["refresh_token"] == first["refresh_token"]


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def test_it_tells_what_became_of_every_grant(http: requests.Session) -> None:
    with FakeProvider(reuse_grace=60) as provider:
        first, other = sign_in(http, provider), sign_in(http, provider)
        second = refresh(http, provider, first).json()
        assert refresh(http, provider, first).json() == second
        provider.reuse_grace = 0
        refresh(http, provider, first)
        log = http.get(f"{provider.base_url}/_log?only=reuses,grants", timeout=5).json()
        assert "grants" not in http.get(f"{provider.base_url}/_log", timeout=5).json()

    assert log.keys() == {"reuses", "grants"}
    assert log["reuses"] == 1
    told, untouched = log["grants"]
    assert told["first_refresh_token_sha256"] == sha256(first["refresh_token"])
    assert told["latest_refresh_token_sha256"] == sha256(second["refresh_token"])
    assert (told["refreshes"], told["is_revoked"]) == (1, True)
    assert [(replay["refresh_token_sha256"], replay["is_forgiven"]) for replay in told["replays"]] == [
        (sha256(first["refresh_token"]), True),
        (sha256(first["refresh_token"]), False),
    ]
    assert untouched["first_refresh_token_sha256"] == sha256(other["refresh_token"])
    assert (untouched["refreshes"], untouched["replays"], untouched["is_revoked"]) == (0, [], False)


def test_it_tells_whose_requests_are_under_way(http: requests.Session) -> None:
    with FakeProvider(answer=Answer.hang()) as provider, socket.socket() as caller:
        address = urlsplit(provider.base_url)
        caller.connect((address.hostname, address.port))
        caller.sendall(b"POST /token HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n")
        provider.wait_for_requests(1)
        assert [request.port for request in provider.under_way] == [caller.getsockname()[1]]
        provider.release()
        assert caller.recv(100).startswith(b"HTTP/1.1 ")
        assert provider.under_way == []


def test_as_a_process_it_refuses_a_switch_that_it_does_not_have(http: requests.Session) -> None:
    with FakeProviderProcess() as provider:
        answer = http.post(f"{provider.base_url}/_control", json={"set": {"speed": 3}}, timeout=5)
        assert answer.status_code == 400
        assert "speed" in answer.json()["error"]
