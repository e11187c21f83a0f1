"""TLS contexts for calls to providers: what we trust, and the certificate that we show. Built once, kept while in use."""

from __future__ import annotations

import ssl
import threading
import time
from dataclasses import dataclass, field

import certifi
from django.conf import settings

from knoxcall.client_certificates import ClientCertificate
from knoxcall.outbound_errors import ConnectFailed
from knoxcall.sockets import BoundedTLSSocket

# One takes about 700 KB, nearly all of it the authorities.
MAX_CONTEXTS = 64
MAX_UNUSED_SECONDS = 600.0


class Context(ssl.SSLContext):
    """What one side of our connections trusts and shows. Connections, and so sessions, are shared within one only.

    Our side never resumes a session: Python does so only with one that it is given.
    """

    sslsocket_class = BoundedTLSSocket
    is_dropped = False
    """Whether calls that trust and show the same use another by now, or none."""


@dataclass(slots=True)
class _Kept:
    used_at: float
    building: threading.Lock = field(default_factory=threading.Lock)
    context: Context | None = None


class Contexts:
    """The contexts of one process: one for each bundle of authorities and identity of a certificate."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The one that is unused for longest comes first.
        self._kept: dict[tuple[str, str | None], _Kept] = {}

    def get(self, certificate: ClientCertificate | None) -> Context:
        """The context that shows ``certificate``, built by the first call that needs it.

        Raises ``ConnectFailed`` if our own bundle of authorities is unreadable, and ``ClientCertificateUnusable``.
        """
        bundle: str = settings.KNOXCALL_OUTBOUND_CA_BUNDLE
        kept = self._take((bundle, certificate.identity if certificate else None))
        # Not under the lock of all: this takes tens of milliseconds.
        with kept.building:
            if kept.context is None:
                kept.context = _new_context(bundle, certificate)
            return kept.context

    def _take(self, key: tuple[str, str | None]) -> _Kept:
        now = time.monotonic()
        with self._lock:
            kept = self._kept.pop(key, None) or _Kept(now)
            kept.used_at = now
            self._kept[key] = kept
            while len(self._kept) > MAX_CONTEXTS or self._oldest().used_at < now - MAX_UNUSED_SECONDS:
                dropped = self._kept.pop(next(iter(self._kept)))
                if dropped.context:
                    dropped.context.is_dropped = True
        return kept

    def _oldest(self) -> _Kept:
        return next(iter(self._kept.values()))


def _new_context(bundle: str, certificate: ClientCertificate | None) -> Context:
    """A context that trusts certifi's authorities and those of ``bundle``.

    Not by `ssl.create_default_context` or urllib3's: they obey SSL_CERT_FILE and write session keys to SSLKEYLOGFILE.
    """
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate:
        certificate.load_into(context)
    context.load_verify_locations(certifi.where())
    if bundle:
        try:
            context.load_verify_locations(bundle)
        except OSError as error:
            raise ConnectFailed(
                "KNOXCALL_OUTBOUND_CA_BUNDLE names no file of certificates that can be read."
            ) from error
    return context
