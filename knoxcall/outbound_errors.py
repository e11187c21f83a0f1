"""The errors of calls to providers. Their texts may be shown to users: they name the host, nothing that was sent."""

from __future__ import annotations

from typing import ClassVar


class OutboundError(Exception):
    """A call that brought no answer."""

    sent: ClassVar[bool]
    """True: the request may have reached the peer, its outcome is unknown. False: the peer acted on nothing of it."""


class AddressRefused(OutboundError):
    """The host is at an address that the vault does not call."""

    sent = False


class ConnectFailed(OutboundError):
    """The name look-up, the connection or the TLS handshake failed; the message says which."""

    sent = False


class ClientCertificateUnusable(OutboundError):
    """The client certificate to show, or its private key, cannot be loaded. The peer was not called."""

    sent = False


class ClientCertificateRefused(OutboundError):
    """The peer ended the handshake over the client certificate that it was shown, or because it was shown none."""

    sent = False


class NoAnswer(OutboundError):
    """The request was sent, perhaps in part, and no answer came that is read."""

    sent = True


class Unacceptable(Exception):
    """The peer answers in a way that is read no further. The text continues a sentence that starts with the host."""
