from __future__ import annotations

import gzip
import logging
import multiprocessing
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network

import pytest

from knoxcall import addresses, connections, http, sockets, tls
from knoxcall.http import (
    MAX_ANSWER_BYTES,
    AddressRefused,
    Answer,
    ConnectFailed,
    NoAnswer,
    OutboundError,
    UrlRefused,
    send,
)
from tests.support.tls import NAME, Peer, ok, says, server_context

SECRET = "hunter2-very-secret"

pytestmark = pytest.mark.usefixtures("trusted", "pool", "names")


@pytest.fixture
def plain():
    """A peer without TLS: at 127.0.0.1, which is exempt."""
    with Peer(ok()).listening() as peer:
        peer.url = f"http://127.0.0.1:{peer.port}/token"
        yield peer


@pytest.fixture
def secure(authority):
    """A peer with TLS, and a certificate for its name."""
    with Peer(ok(), tls=server_context(authority, NAME)).listening() as peer:
        peer.url = f"https://{NAME}:{peer.port}/token"
        yield peer


def idle(pool):
    """The connections that wait for their next request."""
    return [connection for waiting in pool._idle.values() for _, connection in waiting]


def test_a_request_arrives_as_it_was_written(secure):
    secure.say = ok(b'{"access_token": "t"}', "X-Many: a", "x-many: b")
    answer = send(
        "POST",
        f"{secure.url}?resource=a&resource=b%2fc&x={{y}}",
        headers={"Authorization": "Basic eA==", "Content-Type": "application/x-www-form-urlencoded"},
        body=b"grant_type=refresh_token",
    )
    assert answer == Answer(200, answer.headers, b'{"access_token": "t"}')
    assert answer.headers["x-MANY"] == "a, b"
    assert answer.headers.get("nothing") is None
    (request,) = secure.requests
    assert request.line == "POST /token?resource=a&resource=b%2fc&x={y} HTTP/1.1"
    assert request.body == b"grant_type=refresh_token"
    assert request.header("Host") == f"{NAME}:{secure.port}"
    assert request.header("User-Agent") == "KnoxCall-Vault"
    assert request.header("Accept-Encoding") == "identity"
    assert request.header("Content-Length") == "24"
    assert request.header("Authorization") == "Basic eA=="
    assert request.header("Cookie") is None


def test_a_post_without_a_body_says_so(plain):
    send("POST", plain.url)
    send("GET", plain.url)
    assert [request.header("Content-Length") for request in plain.requests] == ["0", None]


def test_an_ipv6_peer_is_called_by_its_bracketed_host():
    with Peer(ok(), address="::1").listening() as peer:
        assert send("GET", f"http://[::1]:{peer.port}/").status == 200
        assert peer.requests[0].header("Host") == f"[::1]:{peer.port}"


def test_localhost_is_loopback_without_a_look_up(plain, names):
    assert send("GET", f"http://localhost:{plain.port}/").status == 200
    assert names.asked == []


def test_an_answer_and_its_errors_show_no_secret(plain):
    plain.say = ok(SECRET.encode(), f"Location: /?code={SECRET}")
    answer = send("GET", plain.url)
    assert SECRET in answer.headers["Location"]
    assert repr(answer) == "Answer(status=200)"


# The address filter, at the address connected to


@pytest.mark.parametrize(
    "found", [["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["1.1.1.1", "::1%lo"], ["1.1.1.1", "169.254.169.254"]]
)
def test_a_name_is_refused_when_one_of_its_addresses_is(secure, names, found):
    names.at[NAME] = found
    with pytest.raises(AddressRefused) as caught:
        send("POST", secure.url)
    assert not caught.value.sent
    assert str(caught.value).startswith(NAME)
    assert secure.connections == 0
    assert names.asked == [NAME]


def test_a_name_on_loopback_is_refused_where_loopback_is_not_exempt(secure, settings):
    settings.KNOXCALL_OUTBOUND_ALLOW = []
    with pytest.raises(AddressRefused):
        send("GET", secure.url)
    assert secure.connections == 0


def test_a_connection_is_not_used_again_once_its_address_is_refused(secure, settings):
    send("GET", secure.url)
    settings.KNOXCALL_OUTBOUND_ALLOW = []
    with pytest.raises(AddressRefused):
        send("GET", secure.url)
    assert len(secure.requests) == 1


def test_a_name_is_looked_up_once_and_that_address_connected_to(secure, names, monkeypatch):
    answers = iter([["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"]])
    connected = []

    def rebind(host):
        names.asked.append(host)
        return [ip_address(address) for address in next(answers)]

    def connect(sock, address):
        connected.append(address)
        return socket.socket.connect(sock, address)

    monkeypatch.setattr(addresses, "look_up", rebind)
    monkeypatch.setattr(sockets.BoundedSocket, "connect", connect)
    assert send("GET", secure.url).status == 200
    assert names.asked == [NAME]
    assert connected == [("127.0.0.1", secure.port)]


def test_plain_http_is_refused_at_the_connection_too(monkeypatch, names, settings):
    settings.KNOXCALL_OUTBOUND_ALLOW = [ip_network("10.0.0.0/8")]
    names.at[NAME] = ["1.1.1.1"]
    target = addresses.Target("http", NAME, 80, "/")
    monkeypatch.setattr(http, "parse_url", lambda url: target)
    with pytest.raises(AddressRefused):
        send("GET", "http://provider.example/")


def test_the_form_of_a_url_is_checked_first(names):
    for url in ("http://provider.example/", "https://10.0.0.1/", "https://provider.example/#f"):
        with pytest.raises(UrlRefused):
            send("GET", url)
    assert names.asked == []


# Connecting


def test_the_next_address_is_tried_when_one_does_not_connect(secure, names):
    names.at[NAME] = ["127.0.0.2", "::1", "127.0.0.1"]
    assert send("GET", secure.url).status == 200
    assert names.asked == [NAME]


def test_a_refused_port_is_a_failed_connection():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectFailed, match="refused") as caught:
        send("POST", f"http://127.0.0.1:{port}/?secret={SECRET}", body=SECRET.encode())
    assert not caught.value.sent
    assert SECRET not in str(caught.value) + repr(caught.value)


def test_an_unknown_name_is_a_failed_look_up(names):
    with pytest.raises(ConnectFailed, match="look-up") as caught:
        send("GET", "https://nowhere.example/")
    assert not caught.value.sent


def test_a_name_without_an_address_is_a_failed_look_up(names):
    names.at[NAME] = []
    with pytest.raises(ConnectFailed, match="look-up"):
        send("GET", f"https://{NAME}/")


def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(addresses, "look_up", lambda host: never.wait(30) and [])
    try:
        with pytest.raises(ConnectFailed, match="took too long"):
            send("GET", f"https://{NAME}/", connect_timeout=0.2)
    finally:
        never.set()


def test_a_connection_that_is_not_answered_is_not_waited_for(names):
    # A full backlog: the kernel drops the handshake.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        try:
            with pytest.raises(ConnectFailed, match="too long") as caught:
                send("GET", f"http://127.0.0.1:{port}/", connect_timeout=0.3)
        finally:
            for filler in fillers:
                filler.close()
    assert not caught.value.sent


# TLS


def test_the_server_is_asked_for_by_name_and_its_certificate_checked_for_that_name(authority, names):
    names.at["other.example"] = ["127.0.0.1"]
    with Peer(ok(), tls=server_context(authority, NAME)).listening() as peer:
        assert send("GET", f"https://{NAME}:{peer.port}/").status == 200
        with pytest.raises(ConnectFailed, match="certificate") as caught:
            send("GET", f"https://other.example:{peer.port}/?{SECRET}")
        assert peer.server_names == [NAME, "other.example"]
        assert len(peer.requests) == 1
    assert not caught.value.sent
    assert SECRET not in str(caught.value)


def test_an_international_name_is_sent_in_its_ascii_form(authority, names):
    names.at["xn--bcher-kva.example"] = ["127.0.0.1"]
    with Peer(ok(), tls=server_context(authority, "xn--bcher-kva.example")).listening() as peer:
        assert send("GET", f"https://bücher.example:{peer.port}/").status == 200
        assert peer.requests[0].header("Host") == f"xn--bcher-kva.example:{peer.port}"


def test_a_certificate_for_an_address_is_checked_for_that_address(authority):
    with Peer(ok(), tls=server_context(authority, "127.0.0.1")).listening() as peer:
        assert send("GET", f"https://127.0.0.1:{peer.port}/").status == 200
    with Peer(ok(), tls=server_context(authority, NAME)).listening() as peer:
        with pytest.raises(ConnectFailed, match="certificate"):
            send("GET", f"https://127.0.0.1:{peer.port}/")
        assert peer.requests == []


def test_an_unknown_authority_is_refused(secure, settings):
    settings.KNOXCALL_OUTBOUND_CA_BUNDLE = ""
    with pytest.raises(ConnectFailed, match="certificate"):
        send("GET", secure.url)
    assert secure.requests == []


def test_an_unreadable_bundle_is_said_and_nothing_is_sent(secure, settings, tmp_path):
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    for bundle in (empty, tmp_path / "missing.pem"):
        settings.KNOXCALL_OUTBOUND_CA_BUNDLE = str(bundle)
        with pytest.raises(ConnectFailed, match="KNOXCALL_OUTBOUND_CA_BUNDLE"):
            send("GET", secure.url)
    assert secure.connections == 0


@pytest.mark.parametrize("first_words", [b"HTTP/1.1 400 This port speaks no TLS\r\n\r\n", b""])
def test_a_peer_that_does_not_shake_hands_is_a_failed_handshake(first_words):
    def speak(listener):
        connection, _ = listener.accept()
        connection.sendall(first_words)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        speaking = threading.Thread(target=speak, args=(listener,))
        speaking.start()
        with pytest.raises(ConnectFailed, match="TLS handshake") as caught:
            send("GET", f"https://127.0.0.1:{listener.getsockname()[1]}/")
        speaking.join()
    assert not caught.value.sent


def test_a_peer_that_is_silent_in_the_handshake_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(ConnectFailed, match="TLS handshake"):
        send("GET", f"https://127.0.0.1:{listener.getsockname()[1]}/", connect_timeout=0.3)


def test_the_context_is_built_once(secure, monkeypatch):
    built = []
    build = tls._new_context
    monkeypatch.setattr(tls, "_new_context", lambda *given: built.append(given) or build(*given))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: send("GET", secure.url), range(16)))
    assert len(built) == 1


def test_the_environment_is_not_asked(secure, authority, settings, monkeypatch, tmp_path):
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("")
    trusted = settings.KNOXCALL_OUTBOUND_CA_BUNDLE
    (tmp_path / ".netrc").write_text(f"machine {NAME} login me password {SECRET}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(nothing))
    assert send("GET", secure.url).status == 200
    assert secure.requests[0].header("Authorization") is None
    assert not (tmp_path / "keys.log").exists()
    # And none of them adds an authority that is not ours.
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, trusted)
    settings.KNOXCALL_OUTBOUND_CA_BUNDLE = ""
    with pytest.raises(ConnectFailed, match="certificate"):
        send("GET", secure.url)


# What is sent


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET /x HTTP/1.1\r\nX: ", {}),
        ("", {}),
        ("GÉT", {}),
        ("GET", {"X": f"{SECRET}\r\nHost: internal"}),
        ("GET", {"X": f"{SECRET}\n folded"}),
        ("GET", {"X": f"{SECRET}\r"}),
        ("GET", {"X": f"{SECRET}\x00"}),
        ("GET", {"X": f"{SECRET}€"}),
        ("GET", {"X: y\r\nZ": SECRET}),
        ("GET", {"": SECRET}),
        ("GET", {"X ": SECRET}),
        ("GET", {"host": SECRET}),
        ("POST", {"Transfer-Encoding": "chunked"}),
        ("POST", {"CONTENT-LENGTH": "0"}),
        ("GET", {"Accept-Encoding": "gzip"}),
    ],
)
def test_what_would_break_out_of_its_header_is_not_sent(plain, method, headers):
    with pytest.raises(ValueError, match=r"^The ") as caught:
        send(method, plain.url, headers=headers)
    assert SECRET not in str(caught.value)
    assert plain.connections == 0


# What is read


def test_a_redirect_is_an_answer(plain):
    plain.say = says(b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 4\r\n\r\nbody")
    answer = send("POST", plain.url, body=b"refresh_token=r")
    assert (answer.status, answer.headers["Location"], answer.body) == (307, "http://127.0.0.1:1/", b"body")
    assert len(plain.requests) == 1


def test_cookies_are_not_kept(plain):
    plain.say = ok(b"", "Set-Cookie: session=1; Path=/")
    send("GET", plain.url)
    send("GET", plain.url)
    assert plain.requests[1].header("Cookie") is None


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n",
            200,
            b"abcde",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 Bad\r\nContent-Length: 1\r\n\r\nx", 400, b"x"),
        (b"HTTP/1.1 503 \r\nContent-Encoding: identity\r\nContent-Length: 1\r\n\r\nx", 503, b"x"),
    ],
)
def test_an_answer_that_ends_by_itself_leaves_the_connection_open(plain, raw, status, body):
    plain.say = says(raw)
    for _ in range(2):
        answer = send("GET", plain.url)
        assert (answer.status, answer.body) == (status, body)
    assert plain.connections == 1


@pytest.mark.parametrize(
    "raw", [b"HTTP/1.0 200 OK\r\n\r\nabc", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"]
)
def test_an_answer_that_ends_with_its_connection_is_read_to_the_end(plain, raw):
    plain.say = says(raw, keep=False)
    for _ in range(2):
        assert send("GET", plain.url).body == b"abc"
    assert plain.connections == 2


def test_the_answer_to_head_has_no_body(plain):
    plain.say = says(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
    assert send("HEAD", plain.url).body == b""
    assert send("HEAD", plain.url).headers["Content-Length"] == "99999999"
    assert plain.connections == 1


def test_a_folded_header_is_one_line(plain):
    plain.say = ok(b"", "X-Folded: a\r\n\t b")
    assert send("GET", plain.url).headers["X-Folded"] == "a b"


CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
AT_THE_CAP = {
    "declared": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MAX_ANSWER_BYTES + b"x" * MAX_ANSWER_BYTES,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK * 16 + b"0\r\n\r\n",
    "undeclared": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * MAX_ANSWER_BYTES,
}
OVER_THE_CAP = {
    "declared": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_ANSWER_BYTES + 1),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK * 16 + b"1\r\nx\r\n0\r\n\r\n",
    "one huge chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n"
    + b"x" * (MAX_ANSWER_BYTES + 1),
    "undeclared": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_ANSWER_BYTES + 1),
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n" + b"x" * (MAX_ANSWER_BYTES + 1),
    "headers": b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"x" * 65000 + b"\r\n") * 80 + b"Content-Length: 0\r\n\r\n",
    "interim answers": b"HTTP/1.1 100 Continue\r\nX: x\r\n\r\n" * 70_000,
    "chunk extensions": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + (b"1;" + b"x" * 60000 + b"\r\nx\r\n") * 40,
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + (b"X: " + b"x" * 60000 + b"\r\n") * 40,
}


@pytest.mark.parametrize("kind", AT_THE_CAP)
def test_an_answer_may_be_as_large_as_the_cap(plain, kind):
    plain.say = says(AT_THE_CAP[kind], keep=False)
    assert send("GET", plain.url).body == b"x" * MAX_ANSWER_BYTES


@pytest.mark.parametrize("kind", OVER_THE_CAP)
def test_an_answer_over_the_cap_is_no_answer(plain, kind):
    plain.say = says(OVER_THE_CAP[kind])
    with pytest.raises(NoAnswer, match="KiB") as caught:
        send("GET", plain.url)
    assert caught.value.sent


UNREADABLE = {
    "garbage": b"\x16\x03\x01 garbage\r\n\r\n",
    "another protocol": b"220 smtp.example ESMTP\r\n",
    "an endless line": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n",
    "a chunk size that is none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    "a negative status": b"HTTP/1.1 -20 OK\r\n\r\n",
    "nothing": b"",
    "half a status line": b"HTTP/1.1 2",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nabc",
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    "a second coding": b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Encoding: br\r\n\r\n",
    "a coded transfer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "early hints": b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "another protocol, as asked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_is_no_answer_and_ends_the_connection(plain, kind):
    plain.say = says(UNREADABLE[kind], keep=False)
    with pytest.raises(NoAnswer, match=r"^127\.0\.0\.1 ") as caught:
        send("POST", plain.url, body=b"refresh_token=r")
    assert caught.value.sent
    assert len(plain.requests) == 1
    plain.say = ok()
    assert send("GET", plain.url).status == 200
    assert plain.connections == 2


def test_a_compressed_bomb_is_not_opened(plain):
    bomb = gzip.compress(b"x" * 50_000_000)
    plain.say = ok(bomb, "Content-Encoding: GZIP")
    with pytest.raises(NoAnswer, match="compressed"):
        send("GET", plain.url)


def test_an_error_quotes_neither_the_request_nor_the_answer(plain):
    plain.say = says(f"{SECRET}\r\n{SECRET}".encode(), keep=False)
    with pytest.raises(NoAnswer) as caught:
        send("POST", f"{plain.url}?{SECRET}", headers={"X": SECRET}, body=SECRET.encode())
    error = caught.value
    assert SECRET not in f"{error} {error!r} {error.args} {error.__cause__}"
    assert error.__suppress_context__


def test_nothing_of_a_query_is_logged(plain, caplog):
    caplog.set_level(logging.DEBUG)
    for say in (ok(), says(b"HTTP/1.1 200 OK\r\nbroken header\r\n\r\n", keep=False)):
        plain.say = say
        send("GET", f"{plain.url}?{SECRET}")
    assert SECRET not in caplog.text


# Time


def drip(before: bytes, piece: bytes):
    def say(connection, request):
        connection.sendall(before)
        for _ in range(100):
            connection.sendall(piece)
            time.sleep(0.05)

    return say


SLOW = {
    "silent": drip(b"", b""),
    "a slow status line": drip(b"HTTP/1.1 200 ", b"O"),
    "slow headers": drip(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n"),
    "a slow body": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"),
    "slow chunks": drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "endless interim answers": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("kind", SLOW)
def test_a_slow_answer_is_left_at_the_deadline(plain, kind):
    plain.say = SLOW[kind]
    started = time.monotonic()
    with pytest.raises(NoAnswer, match="in time") as caught:
        send("GET", plain.url, deadline=0.5)
    assert caught.value.sent
    assert time.monotonic() - started < 4


def test_a_slow_answer_over_tls_is_left_at_the_deadline(secure):
    secure.say = SLOW["a slow body"]
    with pytest.raises(NoAnswer, match="in time"):
        send("GET", secure.url, deadline=0.5)


@pytest.mark.parametrize("scheme", ["plain", "secure"])
def test_a_peer_that_reads_nothing_is_left_at_the_deadline(request, scheme, monkeypatch):
    peer = request.getfixturevalue(scheme)
    enough = threading.Event()
    monkeypatch.setattr("tests.support.tls._read_request", lambda stream: enough.wait(10) and None)
    try:
        with pytest.raises(NoAnswer, match="in time") as caught:
            send("POST", peer.url, body=b"x" * 20_000_000, deadline=0.5)
    finally:
        enough.set()
    assert caught.value.sent


def test_no_time_at_all_sends_nothing(plain):
    with pytest.raises(ConnectFailed):
        send("GET", plain.url, deadline=0)
    send("GET", plain.url)
    with pytest.raises(ConnectFailed):
        send("GET", plain.url, deadline=0)
    assert len(plain.requests) == 1


# Connections, kept and left


def test_a_connection_is_used_again(secure, names):
    for _ in range(5):
        assert send("POST", secure.url, body=b"x").status == 200
    assert (secure.connections, len(secure.requests), names.asked) == (1, 5, [NAME])


def test_connections_are_shared_by_origin_only(plain, names, authority, secure):
    send("GET", plain.url)
    send("GET", f"http://localhost:{plain.port}/")
    send("GET", plain.url)
    assert plain.connections == 2


def test_an_idle_connection_that_the_peer_closed_is_left(secure):
    send("GET", secure.url)
    secure.hang_up()
    assert send("POST", secure.url, body=b"refresh_token=r").status == 200
    assert (secure.connections, len(secure.requests)) == (2, 2)


def test_a_connection_that_spoke_unasked_is_left(plain):
    unasked = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    speak = threading.Event()

    def say(connection, request):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        connection.sendall(unasked)
        speak.set()
        return True

    plain.say = say
    send("GET", plain.url)
    assert speak.wait(5)
    assert send("GET", plain.url).body == b"ok"


def test_a_request_is_not_sent_again_when_its_connection_closes(plain):
    send("POST", plain.url, body=b"first")
    plain.say = says(b"", keep=False)
    with pytest.raises(NoAnswer) as caught:
        send("POST", plain.url, body=b"refresh_token=r")
    assert caught.value.sent
    assert [request.body for request in plain.requests] == [b"first", b"refresh_token=r"]
    assert plain.connections == 1


@pytest.mark.parametrize(("announced", "connections"), [("timeout=60, max=100", 1), ("timeout=1", 2), ("timeout=0", 2)])
def test_a_connection_is_left_before_the_peer_said_that_it_closes_it(plain, announced, connections):
    plain.say = ok(b"", f"Keep-Alive: {announced}")
    send("GET", plain.url)
    send("GET", plain.url)
    assert plain.connections == connections


def test_a_connection_that_was_idle_for_long_is_left(plain, monkeypatch, pool):
    monkeypatch.setattr(connections, "MAX_IDLE_SECONDS", 0.05)
    send("GET", plain.url)
    time.sleep(0.1)
    send("GET", plain.url)
    assert plain.connections == 2
    assert len(idle(pool)) == 1


def test_idle_connections_are_bounded(plain, monkeypatch, pool):
    monkeypatch.setattr(connections, "MAX_IDLE_PER_ORIGIN", 2)
    monkeypatch.setattr(connections, "MAX_IDLE", 3)
    together = threading.Barrier(4)

    def say(connection, request):
        together.wait(10)
        return ok()(connection, request)

    plain.say = say
    with ThreadPoolExecutor(4) as threads:
        for url, kept in ((plain.url, 2), (f"http://localhost:{plain.port}/", 3)):
            list(threads.map(lambda _, url=url: send("GET", url), range(4)))
            assert len(idle(pool)) == kept
    assert sorted(connection.host for connection in idle(pool)) == ["127.0.0.1", "localhost", "localhost"]


@pytest.mark.parametrize("scheme", ["plain", "secure"])
def test_many_threads_each_get_their_own_answer(request, scheme):
    peer = request.getfixturevalue(scheme)
    peer.say = lambda connection, request: ok(request.body)(connection, request)
    bodies = [f"body {number}".encode() for number in range(400)]
    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(lambda body: send("POST", peer.url, body=body).body, bodies))
    assert answers == bodies
    assert peer.connections <= 40 + 20
    assert len(peer.requests) == 400


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_leaves_the_connections_to_its_parent(secure):
    send("GET", secure.url)
    parents = connections._pool

    def child(result):
        idle = len(connections._pool._idle), connections._pool is parents
        result.send((idle, send("GET", secure.url).status))
        os._exit(0)

    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(there,))
    process.start()
    assert here.poll(10)
    assert here.recv() == ((0, False), 200)
    process.join(5)
    here.close()
    there.close()
    assert send("GET", secure.url).status == 200
    # The parent's connection was still good, and the child had made one of its own.
    assert secure.connections == 2


def test_every_error_says_whether_the_request_left():
    assert {error.__name__: error.sent for error in OutboundError.__subclasses__()} == {
        "AddressRefused": False,
        "ClientCertificateRefused": False,
        "ClientCertificateUnusable": False,
        "ConnectFailed": False,
        "NoAnswer": True,
    }
