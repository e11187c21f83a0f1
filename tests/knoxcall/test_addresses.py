from __future__ import annotations

import socket
import threading
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from knoxcall import addresses
from knoxcall.addresses import (
    REFUSED_IPV4,
    REFUSED_IPV6,
    UrlRefused,
    check_url,
    is_exempt,
    is_refused,
    parse_url,
    resolve,
)

PUBLIC = ["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0"]
PUBLIC += ["126.255.255.255", "128.0.0.0", "192.0.1.0", "198.17.255.255", "223.255.255.255", "168.63.129.17"]
PUBLIC += ["2606:4700::1111", "2000::", "2001:200::", "2001:db7:ffff::", "2003::", "2620:4f:8001::", "3ffe:ffff::1"]

INTERNAL = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254"),
    *("169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1"),
    *("192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1", "192.175.48.1", "198.18.0.1", "198.19.255.255"),
    *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fec0::1", "ff02::1", "ff0e::1"),
    *(
        "100::1",
        "100:0:0:1::1",
        "2001::1",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
    ),
    *("2620:4f:8000::1", "1::", "4000::1", "8000::1", "200::1", "::ffff:0:127.0.0.1"),
]
# Public IPv4 inside them is refused too: 8.8.8.8 is reached at 8.8.8.8.
V4_INSIDE_V6 = [
    *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "::8.8.8.8", "64:ff9b::10.0.0.1", "64:ff9b::8.8.8.8"),
    *(
        "64:ff9b:1::10.0.0.1",
        "64:ff9b:1:ffff::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ),
]
SPELLINGS_OF_LOOPBACK = [
    *(
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "017700000001",
        "0177.0.0.1",
        "0x7f000001",
        "0x7f.0.0.1",
        "0x7f.1",
    ),
    *(
        "0X7F.0.0.1",
        "127.0.0.1.",
        "127.1.",
        "2130706433.",
        "00000177.1",
        "127.000.000.001",
        "127.0.0.0x1",
        "0",
        "0x",
        "0x0",
    ),
    *("%31%32%37.0.0.1", "127%2e0%2e0%2e1", "１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1", "[::1]", "[0:0:0:0:0:0:0:1]"),
    *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::1%25lo]"),
    *(
        "[fe80::1%eth0]",
        "[fe80::1%25eth0]",
        "[::]",
        "localhost",
        "LOCALHOST",
        "a.localhost",
        "localhost.",
        "loc%61lhost",
    ),
    *("ⓛocalhost", "[v1.127]", "[127.0.0.1]", "127.0.0.1.0x7f", "1.2.3.4.5", "256.256.256.256", "1.2.3.09"),
]


@pytest.fixture(autouse=True)
def nothing_exempt(settings):
    settings.KNOXCALL_OUTBOUND_ALLOW = []


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address):
    assert not is_refused(ip_address(address))
    assert not is_exempt(ip_address(address))


@pytest.mark.parametrize("address", [*INTERNAL, *V4_INSIDE_V6])
def test_internal_addresses_are_refused(address):
    assert is_refused(ip_address(address))


@pytest.mark.parametrize("network", [*REFUSED_IPV4, *REFUSED_IPV6], ids=str)
def test_a_refused_network_is_refused_from_end_to_end(network):
    assert is_refused(network[0])
    assert is_refused(network[-1])


@pytest.mark.parametrize("address", ["fe80::1%eth0", "2606:4700::1111%1", "::1%lo"])
def test_an_address_with_a_scope_is_refused_even_where_its_network_is_exempt(settings, address):
    settings.KNOXCALL_OUTBOUND_ALLOW = [ip_network("::/0")]
    assert is_refused(ip_address(address))


def test_exempt_networks_pass_and_their_neighbours_do_not(settings):
    settings.KNOXCALL_OUTBOUND_ALLOW = [ip_network("10.20.0.0/16"), ip_network("fd00:1::/32")]
    assert not is_refused(ip_address("10.20.255.255"))
    assert not is_refused(ip_address("fd00:1::1"))
    assert is_refused(ip_address("10.21.0.0"))
    assert is_refused(ip_address("fd00:2::1"))


def test_a_mapped_address_is_exempt_where_its_ipv4_address_is(settings):
    settings.KNOXCALL_OUTBOUND_ALLOW = [ip_network("127.0.0.0/8")]
    assert not is_refused(ip_address("::ffff:127.0.0.1"))
    assert is_refused(ip_address("::ffff:10.0.0.1"))
    assert is_refused(ip_address("64:ff9b::127.0.0.1"))


def test_plain_http_goes_to_exempt_addresses_only(settings):
    settings.KNOXCALL_OUTBOUND_ALLOW = [ip_network("10.0.0.0/8")]
    assert not is_refused(ip_address("10.0.0.1"), plain_http=True)
    assert is_refused(ip_address("1.1.1.1"), plain_http=True)


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://provider.example", "provider.example", 443, "/"),
        ("https://provider.example?a=1", "provider.example", 443, "/?a=1"),
        ("HTTPS://Provider.Example:8443/Token", "provider.example", 8443, "/Token"),
        ("https://provider.example/t?resource=a&resource=b%2fc&x=~|{}", "provider.example", 443, None),
        ("https://provider.example/a/../b//c", "provider.example", 443, "/a/../b//c"),
        ("https://bücher.example/", "xn--bcher-kva.example", 443, "/"),
        ("https://BÜCHER.example/", "xn--bcher-kva.example", 443, "/"),
        ("https://my_host.example/", "my_host.example", 443, "/"),
        ("https://intranet/", "intranet", 443, "/"),
        ("https://1.1.1.1/", "1.1.1.1", 443, "/"),
        ("https://[2606:4700:0::1111]:65535/", "2606:4700::1111", 65535, "/"),
        ("https://4.example/?@", "4.example", 443, "/?@"),
    ],
)
def test_a_url_is_taken_apart_once_with_its_query_untouched(url, host, port, path):
    assert check_url(url) == url
    path = path or url.removeprefix("https://provider.example")
    assert parse_url(url) == ("https", host, port, path)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "/",
            "provider.example",
            "//provider.example",
            "https:",
            "https:/provider.example",
            "https://",
            "https:///x",
        ),
        *(
            "https://?q",
            "https://:443/",
            "ftp://provider.example",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "data:,x",
        ),
        *("http://provider.example/", "http://1.1.1.1/", "gopher://127.0.0.1:6379/_", "https ://provider.example"),
        *("https://user@provider.example/", "https://user:pw@provider.example/", "https://@provider.example/"),
        *(
            "https://1.1.1.1@127.0.0.1/",
            "https://provider.example#@127.0.0.1/",
            "https://provider.example/#f",
            "https://a.example#",
        ),
        *("https://provider.example\\@127.0.0.1/", "https:\\\\provider.example", "https://provider.example/\\x"),
        *(
            "https://provider.example/a b",
            "https://provider.example/\r\nHost: x",
            "https://provider.example/\t",
            " https://a.example",
        ),
        *(
            "https://provider.example/\x00",
            "https://provider.example/\x7f",
            "https://provider.example/\x85",
            "https://a.example\n",
        ),
        *(
            "https://provider.example/ü",
            "https://provider.example/?q=ü",
            "https://provider.example/\u2028",
            "https://a\u00a0b.example",
        ),
        *(
            "https://provider.example:0/",
            "https://provider.example:65536/",
            "https://provider.example:/",
            "https://provider.example:x/",
        ),
        *(
            "https://provider.example:-1/",
            "https://provider.example:443:443/",
            "https://provider.example:٤٤٣/",
            "https://a.example:000443/",
        ),
        *(
            "https://provider..example/",
            "https://.provider.example/",
            "https://provider.example./",
            "https://-a.example/",
        ),
        *(
            "https://a-.example/",
            "https://" + "a" * 64 + ".example/",
            "https://" + "a." * 127 + "example/",
            "https://a,b.example/",
        ),
        *(
            "https://xn--a.example\u00ad/",
            "https://\u202eexample/",
            "https://\ud800.example/",
            "https://a_ü.example/",
            "https://ü..example",
        ),
        *(
            "https://[::1/",
            "https://::1/",
            "https://[]/",
            "https://[::1]x/",
            "https://[1.1.1.1]/",
            "https://a[b].example/",
            "https://[[::1]]/",
        ),
        "https://provider.example/" + "x" * 2048,
    ],
)
def test_a_url_of_another_form_is_refused(url):
    with pytest.raises(UrlRefused):
        check_url(url)


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("host", SPELLINGS_OF_LOOPBACK)
def test_no_spelling_of_an_internal_host_is_accepted(scheme, host):
    for url in (f"{scheme}://{host}/", f"{scheme}://{host}:8443/?q"):
        with pytest.raises(UrlRefused):
            check_url(url)


@pytest.mark.parametrize("address", [*INTERNAL, *V4_INSIDE_V6])
def test_no_internal_address_is_accepted_as_a_host(address):
    with pytest.raises(UrlRefused):
        check_url(f"https://[{address}]/" if ":" in address else f"https://{address}/")


def test_a_refusal_repeats_nothing_of_the_url():
    for url in ("https://user:hunter2@provider.example/", "https://hunter2.example:0/", "https://hunter2 .example"):
        with pytest.raises(UrlRefused) as caught:
            check_url(url)
        assert "hunter2" not in str(caught.value)


def test_plain_http_is_accepted_at_exempt_addresses_and_localhost_only(settings):
    settings.KNOXCALL_OUTBOUND_ALLOW = [ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8")]
    for host in ("127.0.0.1:9000", "10.1.2.3", "localhost", "LOCALHOST:9000", "[::ffff:127.0.0.1]"):
        check_url(f"http://{host}/token?x=1")
        check_url(f"https://{host}/token?x=1")
    check_url("https://a.localhost/")
    for host in (
        "provider.example",
        "a.localhost",
        "192.168.0.1",
        "[::1]",
        "127.1",
        "1.1.1.1",
        "localhost.",
        "2130706433",
    ):
        with pytest.raises(UrlRefused):
            check_url(f"http://{host}/")


def test_localhost_stays_refused_where_only_other_networks_are_exempt(settings):
    settings.KNOXCALL_OUTBOUND_ALLOW = [ip_network("10.0.0.0/8")]
    for url in ("http://localhost/", "https://localhost/", "https://a.localhost/"):
        with pytest.raises(UrlRefused):
            check_url(url)


_piece = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["https://", "http://", "://", "@", ":", "/", "?", "#", "[", "]", "%", ".", "..", "\\", "127.1", "::1"]
    ),
    st.sampled_from(
        ["localhost", "xn--", "ü", "。", "0x7f", "443", "a.example", "%00", "\r\n", "1", "::ffff:127.0.0.1"]
    ),
)


def is_an_address_to_the_system(host):
    try:
        socket.inet_aton(host)
    except OSError:
        return False
    return True


@given(
    st.one_of(
        st.text(), st.lists(_piece, max_size=8).map("".join), st.lists(_piece).map(lambda p: "https://" + "".join(p))
    )
)
@example("https://\U0001d7cf.1/")
def test_whatever_passes_means_the_same_to_another_parser(url):
    try:
        target = parse_url(url)
    except UrlRefused:
        return
    other = urlsplit(url)
    assert target.scheme == other.scheme == "https"
    assert other.username is None
    assert other.password is None
    assert not other.fragment
    assert (other.port or 443) == target.port
    assert target.host.isascii()
    assert target.path.isascii()
    assert target.path.startswith("/")
    assert not set(target.path) & set(" \r\n\t\\#")
    assert other.query == target.path.partition("?")[2]
    try:
        address = ip_address(target.host)
    except ValueError:
        assert target.host not in ("localhost", "")
        assert not is_an_address_to_the_system(target.host)
    else:
        assert not is_refused(address)


def test_localhost_is_the_exempt_part_of_loopback_whatever_a_resolver_says(settings, monkeypatch):
    monkeypatch.setattr(addresses, "look_up", lambda host: [ip_address("1.1.1.1")])
    assert [str(address) for address in resolve("localhost", seconds=1)] == ["127.0.0.1", "::1"]
    settings.KNOXCALL_OUTBOUND_ALLOW = [ip_network("::1/128")]
    assert [str(address) for address in resolve("a.localhost", seconds=1)] == ["::1"]


def test_an_address_is_not_looked_up(monkeypatch):
    monkeypatch.setattr(addresses, "look_up", lambda host: pytest.fail("looked up"))
    assert resolve("1.1.1.1", seconds=1) == [ip_address("1.1.1.1")]
    assert resolve("2606:4700::1111", seconds=1) == [ip_address("2606:4700::1111")]


def test_what_the_system_answers_is_read_with_its_scope_and_without_repeats(monkeypatch):
    answers = [("fe80::1%eth0", 0, 0, 2), ("1.1.1.1", 0), ("1.1.1.1", 0)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", answer) for answer in answers])
    assert resolve("provider.example", seconds=1) == [ip_address("fe80::1%eth0"), ip_address("1.1.1.1")]


def test_a_name_that_cannot_be_encoded_is_a_failed_look_up(monkeypatch):
    def look_up(host):
        raise UnicodeError

    monkeypatch.setattr(addresses, "look_up", look_up)
    with pytest.raises(OSError, match="not a name"):
        resolve("provider.example", seconds=1)


def test_a_dead_resolver_keeps_a_bounded_number_of_threads(monkeypatch):
    never, running = threading.Event(), []

    def hang(host):
        running.append(host)
        never.wait(30)
        return []

    monkeypatch.setattr(addresses, "look_up", hang)
    monkeypatch.setattr(addresses, "_look_ups", threading.BoundedSemaphore(3))
    try:
        for _ in range(6):
            with pytest.raises(TimeoutError):
                resolve("provider.example", seconds=0.05)
        assert len(running) == 3
    finally:
        never.set()
    assert resolve("provider.example", seconds=5) == []
