"""What the tests of outbound calls stand on: an authority, a resolver, and a pool of their own."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network

import pytest
import trustme

from knoxcall import addresses, connections
from tests.support.tls import NAME


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


@pytest.fixture
def trusted(settings, authority, tmp_path):
    """The authority is trusted, and loopback may be called."""
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    settings.KNOXCALL_OUTBOUND_CA_BUNDLE = str(bundle)
    settings.KNOXCALL_OUTBOUND_ALLOW = [ip_network("127.0.0.0/8"), ip_network("::1/128")]


@pytest.fixture
def pool(monkeypatch):
    pool = connections.Pool()
    monkeypatch.setattr(connections, "_pool", pool)
    yield pool
    pool.close_idle()


class Names:
    """A resolver that knows what it is told, and remembers what it was asked."""

    def __init__(self):
        self.at = {NAME: ["127.0.0.1"]}
        self.asked = []

    def look_up(self, host):
        self.asked.append(host)
        if host not in self.at:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [ip_address(address) for address in self.at[host]]


@pytest.fixture
def names(monkeypatch):
    names = Names()
    monkeypatch.setattr(addresses, "look_up", names.look_up)
    return names
