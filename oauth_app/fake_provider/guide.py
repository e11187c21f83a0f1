"""What whoever rehearses reads on the terminal: where the provider is, how to use it, what it can be told."""

from __future__ import annotations

import json
import shlex
from typing import Any

from . import metadata
from .behaviour import DEFAULTS, SWITCHES
from .checks import in_words
from .provider import FakeProvider
from .shapes import SHAPES


def secret_for(provider: FakeProvider, shape: str | None) -> dict[str, Any]:
    """The body of `POST /v1/secrets/oauth2` for a secret of this provider's."""
    body: dict[str, Any] = {
        "name": f"rehearsal {shape or 'plain'}",
        "provider": "custom",
        "client_id": provider.client_id,
    }
    if provider.requires_client_certificate or provider.client_certificate_sha256:
        body["mtls_certificate_id"] = "ID_OF_THE_CERTIFICATE"
    elif provider.client_secret is None:
        body["token_auth_method"] = "none"
    else:
        body["client_secret"] = provider.client_secret
    body |= {"auth_url": provider.authorize_url, "token_url": provider.token_url}
    if shape is None or SHAPES[shape].has_revocation:
        body["revocation_url"] = provider.revoke_url
    if shape is not None:
        body |= {name: value for name, value in SHAPES[shape].secret.items() if name not in body}
        if "mtls_certificate_id" in body:
            body.pop("token_auth_method", None)
    return body


def on_start(provider: FakeProvider, shape: str | None, *, vault: str) -> str:
    """What to know at the start; ``vault`` is the vault's base URL."""
    base = provider.base_url
    ways = "\n".join(f"    {name:<14}{where}" for name, where in _endpoints(provider))
    switching: list[dict[str, Any]] = [
        {"set": {"delay": 3}},
        {"next": [{"answer": {"status": 503, "body": ""}, "times": 2}]},
        {"revoke_grants": True},
    ]
    orders = "\n".join(f"    {_order(provider, order)}" for order in switching)
    return f"""
  A provider for rehearsals, {f"shaped like {shape}" if shape else "plain RFC 6749"}, is listening: {base}

{ways}

    client id     {provider.client_id}
    client secret {provider.client_secret or "none"}
    username      {provider.username}
    password      {provider.password}

  The vault calls this machine only if it is told to: start it with KNOXCALL_OUTBOUND_ALLOW=127.0.0.0/8
  Then, with an API key of the vault in KEY, make a secret, and open the redirect_uri of the answer in a browser:

    curl {vault}/v1/secrets/oauth2 \\
      -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\
      -d {shlex.quote(json.dumps(secret_for(provider, shape)))}

  Faults can be switched while it runs, from this machine only. Late answers, two refusals, the end of every grant:

{orders}

    {_call(provider, "/_log")}    shows what came in
    manage.py fake_provider --list         shows every shape and switch

  Ctrl-C ends it.
"""


def listing() -> str:
    """Every shape and every switch, for people."""
    shapes = "\n".join(f"  {name:<12}{shape.doc}" for name, shape in SHAPES.items())
    switches = "\n".join(
        f"  {name}\n      {switch.doc}\n      {in_words(switch.type)}; {json.dumps(_plain(DEFAULTS[name]))} unless set"
        for name, switch in SWITCHES.items()
    )
    return f"Shapes (--shape NAME)\n\n{shapes}\n\nSwitches (--set NAME=VALUE)\n\n{switches}\n"


def catalogue() -> dict[str, Any]:
    """The same for machines: `{"shapes": {name: {doc, switches}}, "switches": {name: {doc, takes, default}}}`."""
    return {
        "shapes": {
            name: {"doc": shape.doc, "switches": {key: _plain(value) for key, value in shape.switches.items()}}
            for name, shape in SHAPES.items()
        },
        "switches": {
            name: {"doc": switch.doc, "takes": in_words(switch.type), "default": _plain(DEFAULTS[name])}
            for name, switch in SWITCHES.items()
        },
    }


def _endpoints(provider: FakeProvider) -> list[tuple[str, str]]:
    known = metadata.document(provider)
    return [
        ("authorize", provider.authorize_url),
        ("token", provider.token_url),
        ("revoke", known.get("revocation_endpoint") or "none in the metadata, as at the provider it is shaped like"),
        ("", f"{provider.base_url}/api/auth.revoke (as Slack)"),
        ("", f"DELETE {provider.base_url}/applications/{provider.client_id}/token (as GitHub)"),
        ("metadata", f"{provider.base_url}/.well-known/openid-configuration"),
    ]


def _order(provider: FakeProvider, order: dict[str, Any]) -> str:
    return f"{_call(provider, '/_control')} -d {shlex.quote(json.dumps(order))}"


def _call(provider: FakeProvider, path: str) -> str:
    return f"curl {'--insecure ' if provider.base_url.startswith('https') else ''}{provider.base_url}{path}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
