"""The switches of the provider as JSON, for whoever runs it as a process of its own."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_type_hints
from urllib.parse import parse_qs

from .answers import Answer
from .behaviour import SWITCHES
from .checks import checked

if TYPE_CHECKING:
    from .provider import FakeProvider

COMMANDS = ("set", "next", "release", "forget_plans", "revoke_grants")
_PLAN_FIELDS = frozenset({"answer", "times", "endpoint", "grant_type"})
_ANSWER_FIELDS = get_type_hints(Answer)


def apply(provider: FakeProvider, order: Any) -> None:
    """Do what one document asks, in this order; raises `ValueError`, in words, for what it does not know.

    {"set": {"expires_in": 8, "answer": null}, "next": [{"answer": {"status": 503, "body": ""}, "times": 2}],
     "forget_plans": true, "release": true, "revoke_grants": true}
    """
    if not isinstance(order, Mapping) or set(order) - set(COMMANDS):
        raise ValueError(f"An order is an object of {', '.join(COMMANDS)}.")
    plans = [_plan(plan) for plan in order.get("next", [])]
    switch(provider, order.get("set", {}))
    if order.get("forget_plans"):
        provider.forget_plans()
    for plan in plans:
        provider.next(**plan)
    if order.get("release"):
        provider.release()
    if order.get("revoke_grants"):
        provider.revoke_grants()


def switch(provider: FakeProvider, values: Any) -> None:
    """Set switches by name, all of them or none; raises `ValueError`, in words."""
    for name, value in checked_switches(values).items():
        setattr(provider, name, value)


def checked_switches(values: Any) -> dict[str, Any]:
    """The switches as `Behaviour` keeps them, out of JSON; raises `ValueError`, in words."""
    if not isinstance(values, Mapping):
        raise ValueError("set must be an object of switches.")
    if unknown := set(values) - set(SWITCHES):
        raise ValueError(f"No such switch: {', '.join(sorted(unknown))}. There are: {', '.join(SWITCHES)}.")
    return {
        name: checked(
            name, SWITCHES[name].type, answer_from_json(value) if name == "answer" and value is not None else value
        )
        for name, value in values.items()
    }


def _plan(plan: Any) -> dict[str, Any]:
    if not isinstance(plan, Mapping) or "answer" not in plan or set(plan) - _PLAN_FIELDS:
        raise ValueError("A plan is an object of answer and, if need be, times, endpoint (token, revoke), grant_type.")
    return {**plan, "answer": answer_from_json(plan["answer"]), "times": checked("times", int, plan.get("times", 1))}


def log(provider: FakeProvider, query: str) -> dict[str, Any]:
    """Counters, and the token requests from the one numbered `after` on; with `only` those parts alone that it names.

    `grants`, what became of every grant, is left out unless it is named.
    """
    asked = parse_qs(query)
    after = int(asked.get("after", ["0"])[0])
    parts: dict[str, Callable[[], Any]] = {
        "issued": lambda: provider.issued,
        "refreshes": lambda: provider.refreshes,
        "reuses": lambda: provider.reuses,
        "code_reuses": lambda: provider.code_reuses,
        "peak_in_flight": lambda: provider.peak_in_flight,
        "under_way": lambda: [request.port for request in provider.under_way],
        "authorizations": lambda: provider.authorizations[:],
        "revocations": lambda: provider.revocations[:],
        "received": lambda: len(provider.requests),
        "requests": lambda: [asdict(request) for request in provider.requests[after:]],
        "grants": lambda: _grants(provider),
    }
    named = asked["only"][0].split(",") if "only" in asked else parts.keys() - {"grants"}
    return {name: tell() for name, tell in parts.items() if name in named}


def _grants(provider: FakeProvider) -> list[dict[str, Any]]:
    """Every grant with a refresh token, the oldest first. Tokens are told by their SHA-256, in hex."""
    with provider.lock:
        return [
            {
                "first_refresh_token_sha256": _sha256(grant.first_refresh_token),
                "latest_refresh_token_sha256": _sha256(grant.latest_refresh_token),
                "refreshes": grant.refreshes,
                "refreshed_at": grant.refreshed_at,
                "replays": [
                    {
                        "at": replay.at,
                        "refresh_token_sha256": _sha256(replay.refresh_token),
                        "is_forgiven": replay.is_forgiven,
                    }
                    for replay in grant.replays
                ],
                "is_revoked": grant.is_revoked,
            }
            for grant in provider.refreshable
        ]


def _sha256(token: str | None) -> str:
    return hashlib.sha256((token or "").encode()).hexdigest()


def answer_from_json(document: Any) -> Answer:
    """An answer from its fields; the body is text in `body`, bytes in `body_base64`, or any document in `json`.

    Raises `ValueError`, in words, for a field that answers do not have.
    """
    if isinstance(document, Answer):
        return document
    if not isinstance(document, Mapping) or set(document) - set(_ANSWER_FIELDS) - {"json", "body_base64"}:
        raise ValueError(f"An answer is an object of json, body_base64, {', '.join(sorted(_ANSWER_FIELDS))}.")
    given = dict(document)
    if "json" in given:
        given["body"] = json.dumps(given.pop("json")).encode()
    elif "body_base64" in given:
        given["body"] = base64.b64decode(given.pop("body_base64"))
    elif given.get("body") is not None:
        given["body"] = str(given["body"]).encode()
    return Answer(**{name: checked(name, _ANSWER_FIELDS[name], value) for name, value in given.items()})


def answer_to_json(answer: Answer) -> dict[str, Any]:
    given = {name: value for name, value in asdict(answer).items() if value is not None}
    if answer.body is not None:
        given["body_base64"] = base64.b64encode(given.pop("body")).decode()
    return given
