"""The options of whoever starts the provider from a command line, and the switches that they mean."""

from __future__ import annotations

import json
import ssl
from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Mapping
from typing import Any

from .answers import Answer
from .behaviour import SWITCHES, RefreshTokens
from .checks import takes_text
from .control import checked_switches
from .shapes import SHAPES


def add_options(parser: ArgumentParser, *, port: int) -> None:
    """Add every option that means a switch or an address; ``port`` is the default one."""
    parser.add_argument("--host", default="127.0.0.1", help="The address to listen on (default: this machine only).")
    parser.add_argument("--port", type=int, default=port, help=f"The port; 0 takes a free one (default: {port}).")
    parser.add_argument("--shape", choices=list(SHAPES), help="Answer as this provider does (default: plain RFC 6749).")
    parser.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], help="Any switch, as JSON or text; may be repeated."
    )
    tokens = parser.add_argument_group("tokens")
    tokens.add_argument("--expires-in", type=int, metavar="SECONDS", help="The lifetime that answers name.")
    tokens.add_argument("--milliseconds", action="store_true", help="Name lifetimes in milliseconds.")
    tokens.add_argument("--no-expiry", action="store_true", help="Name no lifetime.")
    tokens.add_argument(
        "--rotate",
        action=BooleanOptionalAction,
        help="Refresh tokens are single use, or one is kept for the life of the grant.",
    )
    tokens.add_argument(
        "--reuse-grace", type=float, metavar="SECONDS", help="How long a consumed refresh token may come again."
    )
    faults = parser.add_argument_group("faults of the token endpoint")
    faults.add_argument("--delay", type=float, metavar="SECONDS", help="Answer late; the work is done before.")
    kinds = faults.add_mutually_exclusive_group()
    kinds.add_argument("--hang", action="store_true", help="Do the work and never answer, until released.")
    kinds.add_argument("--status", type=int, metavar="CODE", help="Refuse everything with this status, such as 429.")
    kinds.add_argument("--html-502", action="store_true", help="Answer with a gateway's page.")
    faults.add_argument("--retry-after", metavar="SECONDS", help="With --status: when to come again; a date will do.")
    tls = parser.add_argument_group("https")
    tls.add_argument(
        "--tls-cert", metavar="FILE", help="The server's certificate (PEM); the provider speaks https then."
    )
    tls.add_argument("--tls-key", metavar="FILE", help="Its key, if that is not in the same file.")
    tls.add_argument("--client-ca", metavar="FILE", help="The CA (PEM) of the certificates that clients may show.")
    tls.add_argument(
        "--require-client-certificate",
        action="store_true",
        help="The token endpoint wants a client certificate (RFC 8705) instead of a secret.",
    )


def switches(options: Mapping[str, Any]) -> dict[str, Any]:
    """The switches that the options mean: the shape's, over them the options', over them those of `--set`.

    Raises `ValueError`, in words.
    """
    chosen: dict[str, Any] = dict(SHAPES[options["shape"]].switches) if options["shape"] else {}
    if options["expires_in"] is not None:
        chosen["expires_in"] = options["expires_in"]
        if "omit" in chosen:
            chosen["omit"] = [name for name in chosen["omit"] if name != "expires_in"]
    if options["milliseconds"]:
        chosen["lifetimes_in_milliseconds"] = True
    if options["no_expiry"]:
        chosen["omit"] = [*chosen.get("omit", ()), "expires_in"]
    if options["rotate"] is not None:
        chosen["refresh_tokens"] = RefreshTokens.ROTATED if options["rotate"] else RefreshTokens.KEPT
    for name in ("reuse_grace", "delay"):
        if options[name] is not None:
            chosen[name] = options[name]
    if options["require_client_certificate"]:
        chosen["requires_client_certificate"] = True
    if answer := _answer(options):
        chosen["answer"] = answer
    return checked_switches(chosen | dict(_setting(text) for text in options["set"]))


def ssl_context(options: Mapping[str, Any]) -> ssl.SSLContext | None:
    """The server's side of TLS, if a certificate is given; raises `ValueError`, in words, or `OSError`."""
    if options["require_client_certificate"] and not options["client_ca"]:
        raise ValueError("--require-client-certificate needs --tls-cert and --client-ca.")
    if not options["tls_cert"]:
        if options["tls_key"] or options["client_ca"]:
            raise ValueError("--tls-key and --client-ca need --tls-cert.")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options["tls_cert"], options["tls_key"])
    if options["client_ca"]:
        context.load_verify_locations(options["client_ca"])
        # Asked of everybody, demanded by the token endpoint alone: people's browsers have none.
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _answer(options: Mapping[str, Any]) -> Answer | None:
    if options["retry_after"] is not None and options["status"] is None:
        raise ValueError("--retry-after goes with --status, such as --status 429.")
    if options["hang"]:
        return Answer.hang()
    if options["html_502"]:
        return Answer.html(502)
    if options["status"] is not None:
        return Answer.busy(options["status"], retry_after=options["retry_after"])
    return None


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set takes NAME=VALUE, such as --set delay=3, not {name}.")
    if name in SWITCHES and takes_text(SWITCHES[name].type) and value != "null":
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
