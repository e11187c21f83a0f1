"""Certificate secrets: parsed in a process of their own, created, replaced under the same id, read."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import uuid
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import transaction
from django.dispatch import Signal

from knoxcall.api.errors import DependencyUnavailable, InvalidType, invalid
from knoxcall.api.idempotency import Attempt
from knoxcall.context import seconds_left
from knoxcall.waiting import NoPlaceToWait, place, release_connection
from secrets_app import audit
from secrets_app.certificate_files.reading import Reading
from secrets_app.crypto.cipher import Plaintext
from secrets_app.models import Certificate, Secret
from secrets_app.vault import NewSecret, Scope, create_secret, get_secret, record

logger = logging.getLogger(__name__)

# Sent inside the transaction that replaces a certificate, with `certificate`: who presents it may have to begin anew.
certificate_replaced = Signal()

# Seconds. The reader ends by itself after 5 s of computing; a machine that gives it less in this time is too busy.
LONGEST_READING = 15.0
_READER = [sys.executable, "-m", "secrets_app.certificate_files"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedCertificate:
    """A certificate as it was sent and what is in it, checked. The columns of ``Certificate``, under their names."""

    certificate_type: str
    content: Plaintext
    chain: str
    private_key: Plaintext | None
    passphrase: Plaintext | None
    subject: str
    issuer: str
    serial_number: str
    fingerprint_sha256: str
    not_before: datetime
    expires_at: datetime

    def columns(self) -> dict[str, Any]:
        """Everything, by the name of its column."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def parse_certificate(
    content: str, *, certificate_type: str, private_key: str | None, passphrase: str | None
) -> ParsedCertificate:
    """Read what was sent: PEM text, or base64 of DER, PKCS#12 or PKCS#7, as ``certificate_type`` says.

    Raises ``ValidationFailed``, which names the field and quotes nothing, for whatever is no certificate with its chain and
    its key; an expired one is taken. Raises ``DependencyUnavailable`` on a machine that is too busy to say. Not inside a
    transaction: it may take seconds.
    """
    asked = {
        "content": content,
        "certificate_type": certificate_type,
        "private_key": private_key,
        "passphrase": passphrase,
    }
    reading = _read_apart(json.dumps(asked).encode())
    return parsed_from(reading, content=content, certificate_type=certificate_type, passphrase=passphrase)


def parsed_from(reading: Reading, *, content: str, certificate_type: str, passphrase: str | None) -> ParsedCertificate:
    """What was sent together with what the reader says of it."""
    read = asdict(reading)
    key = read.pop("private_key")
    return ParsedCertificate(
        certificate_type=certificate_type,
        content=Plaintext(content),
        private_key=None if key is None else Plaintext(key),
        passphrase=None if passphrase is None else Plaintext(passphrase),
        not_before=datetime.fromisoformat(read.pop("not_before")),
        expires_at=datetime.fromisoformat(read.pop("expires_at")),
        **read,
    )


def create_certificate(scope: Scope, new: NewSecret, parsed: ParsedCertificate, *, attempt: Attempt) -> Secret:
    """Create a certificate secret. Raises what ``create_secret`` raises."""

    def furnish(secret: Secret) -> None:
        Certificate.objects.create(secret=secret, account_id=secret.account_id, **parsed.columns())

    return create_secret(scope, new, secret_type=Secret.Type.CERTIFICATE, furnish=furnish, attempt=attempt)


def replace_certificate(
    scope: Scope, secret_id: uuid.UUID, parsed: ParsedCertificate, *, attempt: Attempt
) -> Certificate:
    """Put another certificate under the same id, as its next version; ``attempt`` is told before the commit.

    The row is locked, so the version that is returned is the one that this call made. Sends ``certificate_replaced``. Raises
    ``NotFound`` or ``InvalidType``.
    """
    with transaction.atomic():
        # In the order of a deletion: the secret first.
        Secret.objects.select_for_update().filter(pk=secret_id, account_id=scope.account_id, mode=scope.mode).first()
        certificate = get_certificate(scope, secret_id)
        for name, value in parsed.columns().items():
            setattr(certificate, name, value)
        certificate.version += 1
        certificate.save()
        certificate.secret.save(update_fields=["updated_at"])
        details = {"name": certificate.secret.name, "version": certificate.version}
        record(audit.Action.CERTIFICATE_REPLACED, scope, certificate.secret, details=details)
        certificate_replaced.send(sender=Certificate, certificate=certificate)
        attempt.names(secret_id)
    return certificate


def get_certificate(scope: Scope, secret_id: uuid.UUID) -> Certificate:
    """Return the certificate of a secret. Raises ``NotFound``, and ``InvalidType`` for a secret of another type."""
    secret = get_secret(scope, secret_id)
    if secret.secret_type != Secret.Type.CERTIFICATE:
        raise InvalidType("The secret is not a certificate.")
    return Certificate.objects.select_related("secret__base_environment").get(pk=secret.pk)


def _read_apart(asked: bytes) -> Reading:
    """Have the reader read, under its limits. It gets no variable of our environment, which holds the root keys."""
    release_connection()
    try:
        with place():
            ended = subprocess.run(  # noqa: S603  a program of our own, and no shell
                _READER,
                input=asked,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=settings.BASE_DIR,
                # Where some installations of Python find their own libraries.
                env={name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"},
                timeout=seconds_left(LONGEST_READING),
                check=False,
            )
    except NoPlaceToWait:
        raise DependencyUnavailable("Too many requests are waiting. Try again in a second.") from None
    except (subprocess.TimeoutExpired, OSError) as err:
        logger.warning("The reader of certificates did not run to its end: %s", type(err).__name__)
        raise DependencyUnavailable("The machine is too busy to read a certificate. Try again shortly.") from None
    if ended.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise invalid("certificate_content", "Takes too long to open: too many rounds of hashing, or too long a key.")
    if ended.returncode:
        logger.error("The reader of certificates ended with %d.", ended.returncode)
        raise invalid("certificate_content", "Cannot be read.")
    answer = json.loads(ended.stdout)
    if "unreadable" in answer:
        raise invalid(*answer["unreadable"])
    return Reading(**answer["reading"])
