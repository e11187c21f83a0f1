"""The switches of the provider as JSON, for whoever runs it as a process of its own."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from .answers import Answer, Drop
from .behaviour import Behaviour

if TYPE_CHECKING:
    from .provider import FakeProvider

SWITCHES = frozenset(switch.name for switch in fields(Behaviour))
COMMANDS = frozenset({"set", "next", "release", "forget_plans", "revoke_grants"})


def apply(provider: FakeProvider, order: Mapping[str, Any]) -> None:
    """Do what one document asks, in this order; raises `ValueError` or `TypeError` for what it does not know.

    {"set": {"expires_in": 8, "answer": null}, "next": [{"answer": {"status": 503, "body": ""}, "times": 2}],
     "forget_plans": true, "release": true, "revoke_grants": true}
    """
    if unknown := set(order) - COMMANDS:
        raise ValueError(f"Unknown: {', '.join(sorted(unknown))}")
    switch(provider, order.get("set", {}))
    if order.get("forget_plans"):
        provider.forget_plans()
    for plan in order.get("next", []):
        provider.next(answer_from_json(plan["answer"]), **{name: plan[name] for name in plan if name != "answer"})
    if order.get("release"):
        provider.release()
    if order.get("revoke_grants"):
        provider.revoke_grants()


def switch(provider: FakeProvider, values: Mapping[str, Any]) -> None:
    if unknown := set(values) - SWITCHES:
        raise ValueError(f"No such switch: {', '.join(sorted(unknown))}")
    for name, value in values.items():
        setattr(provider, name, answer_from_json(value) if name == "answer" and value is not None else value)


def log(provider: FakeProvider, query: str) -> dict[str, Any]:
    """Counters, and the token requests from the one numbered `after` on."""
    after = int(parse_qs(query).get("after", ["0"])[0])
    return {
        "issued": provider.issued,
        "refreshes": provider.refreshes,
        "reuses": provider.reuses,
        "code_reuses": provider.code_reuses,
        "peak_in_flight": provider.peak_in_flight,
        "authorizations": provider.authorizations[:],
        "revocations": provider.revocations[:],
        "received": len(provider.requests),
        "requests": [asdict(request) for request in provider.requests[after:]],
    }


def discovery(provider: FakeProvider) -> dict[str, Any]:
    """The metadata document of RFC 8414 and OpenID Connect Discovery."""
    return {
        "issuer": provider.issuer,
        "authorization_endpoint": provider.authorize_url,
        "token_endpoint": provider.token_url,
        "revocation_endpoint": provider.revoke_url,
        "response_types_supported": ["code", "token"],
        "grant_types_supported": ["authorization_code", "implicit", "refresh_token", "client_credentials", "password"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "code_challenge_methods_supported": ["S256"],
    }


def answer_from_json(document: Mapping[str, Any]) -> Answer:
    """An answer from its fields; the body is text in `body`, bytes in `body_base64`, or any document in `json`."""
    given = dict(document)
    if "json" in given:
        given["body"] = json.dumps(given.pop("json")).encode()
    elif "body_base64" in given:
        given["body"] = base64.b64decode(given.pop("body_base64"))
    elif given.get("body") is not None:
        given["body"] = given["body"].encode()
    if given.get("drop") is not None:
        given["drop"] = Drop(given["drop"])
    return Answer(**given)


def answer_to_json(answer: Answer) -> dict[str, Any]:
    given = {name: value for name, value in asdict(answer).items() if value is not None}
    if answer.body is not None:
        given["body_base64"] = base64.b64encode(given.pop("body")).decode()
    return given
