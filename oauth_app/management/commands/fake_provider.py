"""`manage.py fake_provider`: an OAuth2 provider on this machine that misbehaves on request, to rehearse an integration."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from oauth_app.fake_provider import FakeProvider
from oauth_app.fake_provider.guide import catalogue, listing, on_start
from oauth_app.fake_provider.options import add_options, ssl_context, switches
from oauth_app.fake_provider.record import Seen
from oauth_app.fake_provider.wire import is_loopback
from oauth_app.management.certificates import Certificates, find_certificates, make_certificates

PORT = 9000


class Command(BaseCommand):
    help = "Start an OAuth2 provider to rehearse with, faults included. docs/fake_provider.md shows how."
    # It needs no database, no broker and no web server.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        add_options(parser, port=PORT)
        parser.add_argument(
            "--certificates",
            metavar="DIR",
            type=Path,
            help="Speak https with throw-away certificates kept in DIR, and make them if they are not there. "
            "--require-client-certificate does so by itself.",
        )
        parser.add_argument(
            "--print-requests",
            action="store_true",
            help="Print one line per request; never a token, a code or a secret.",
        )
        parser.add_argument("--list", action="store_true", help="List the shapes and the switches, and end.")
        parser.add_argument("--json", action="store_true", help="With --list: for machines.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["list"]:
            self.stdout.write(json.dumps(catalogue()) if options["json"] else listing())
            return
        certificates = self._certificates(options)
        provider = self._listen(options)
        if not is_loopback(options["host"]):
            self.stderr.write(
                f"Whoever reaches {options['host']} can use this provider. Its tokens are worth nothing; "
                "/_control and /_log still answer this machine only."
            )
        # Before it serves: a signal that comes early must end it as one that comes late.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        # A shell without job control starts what it puts in the background with this one ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with provider:
                if certificates:
                    self.stdout.write(_about(certificates, vault=settings.KNOXCALL_BASE_URL))
                self.stdout.write(on_start(provider, options["shape"], vault=settings.KNOXCALL_BASE_URL))
                self.stdout.flush()
                signal.pause()
        except KeyboardInterrupt:
            self.stdout.write("")

    def _certificates(self, options: dict[str, Any]) -> Certificates | None:
        """Throw-away certificates, if they are asked for; ``options`` name them from then on."""
        directory: Path | None = options["certificates"]
        if options["tls_cert"]:
            if directory:
                raise CommandError("--certificates makes certificates, --tls-cert takes yours: give one of them.")
            return None
        if directory is None:
            if not options["require_client_certificate"]:
                return None
            directory = Path(settings.DATA_DIR) / "fake_provider"
        try:
            found = find_certificates(directory, host=options["host"])
            certificates = found or make_certificates(directory, host=options["host"])
        except OSError as err:
            raise CommandError(f"{directory} cannot be used: {err.strerror}.") from None
        options["tls_cert"], options["client_ca"] = certificates.server, certificates.authority
        if options["require_client_certificate"]:
            options["set"] = [f"client_certificate_sha256={certificates.client_sha256}", *options["set"]]
        return certificates

    def _listen(self, options: dict[str, Any]) -> FakeProvider:
        try:
            context = ssl_context(options)
        except OSError as err:
            raise CommandError(f"The certificates cannot be used: {err.strerror or err}.") from None
        except ValueError as err:
            raise CommandError(str(err)) from None
        try:
            return FakeProvider(
                host=options["host"],
                port=options["port"],
                ssl_context=context,
                on_request=self._print if options["print_requests"] else None,
                **switches(options),
            )
        except (ValueError, OverflowError) as err:
            raise CommandError(str(err)) from None
        except OSError as err:
            where = f"{options['host']} port {options['port']}"
            raise CommandError(f"The provider cannot listen on {where}: {err.strerror or err}.") from None

    def _print(self, seen: Seen) -> None:
        self.stdout.write(seen.line())
        self.stdout.flush()


def _about(certificates: Certificates, *, vault: str) -> str:
    return f"""
  The certificates of this rehearsal are in {certificates.directory}

    ca.pem        signed the others; start the vault with KNOXCALL_OUTBOUND_CA_BUNDLE={certificates.authority}
    client.pem    what a client may show, certificate and key
    client.json   the same as the vault takes it; the id of the answer is the secret's mtls_certificate_id:

    curl {vault}/v1/secrets/certificate \\
      -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" -d @{certificates.upload}
"""
