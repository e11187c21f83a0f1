"""Run inside `.venv-client`: drives the official client through the calls it has, and prints what came back as JSON.

A script of its own, because the client's import name is that of our project package. Arguments: base URL, API key, and a JSON
object of settings. Imports nothing of ours.
"""

import json
import sys
from typing import Any

import knoxcall

base_url, api_key, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
seen: dict[str, Any] = {}


def caught(call: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """What the client makes of an error."""
    try:
        call(*args, **kwargs)
    except knoxcall.KnoxCallError as err:
        return {
            "class": type(err).__name__,
            "status": err.status,
            "code": err.code,
            "request_id": bool(err.request_id),
            "body": err.body,
        }
    return {"class": None}


with knoxcall.KnoxCall(base_url=base_url, api_key=api_key) as client:
    made = client.secrets.create_oauth2(**settings["oauth2"])
    seen["create_oauth2"] = made
    seen["create"] = client.secrets.create(
        name=settings["string_name"],
        secret_type="api_key",
        value="planted-value",
        description="d",
        environment="production",
    )
    seen["create_certificate"] = client.secrets.create_certificate(**settings["certificate"])
    seen["create_environment"] = client.environments.create(**settings["environment"])
    seen["environments"] = client.environments.list()
    seen["list"] = client.secrets.list(page=1, per_page=2)
    seen["iterate"] = [secret["name"] for secret in client.secrets.iterate(per_page=2)]
    seen["get"] = client.secrets.get(made["id"])
    seen["token"] = client.secrets.get_oauth_token(made["id"])
    seen["token_in"] = client.secrets.get_oauth_token(made["id"], environment="production")
    seen["409"] = caught(client.secrets.create_oauth2, **settings["oauth2"])
    seen["400"] = caught(client.secrets.create_oauth2, **{**settings["oauth2"], "provider": "nope"})
    seen["404"] = caught(client.secrets.get, "00000000-0000-4000-8000-000000000000")
    unconnected = client.secrets.create_oauth2(**settings["unconnected"])
    seen["500"] = caught(client.secrets.get_oauth_token, unconnected["id"])
    seen["delete"] = client.secrets.delete(made["id"])
    seen["after_delete"] = caught(client.secrets.get, made["id"])

with knoxcall.KnoxCall(base_url=base_url, api_key=settings["free_key"]) as client:
    seen["403"] = caught(client.secrets.create_oauth2, **settings["oauth2"])

with knoxcall.KnoxCall(base_url=base_url, api_key=api_key[:-1] + "!") as client:
    seen["401"] = caught(client.secrets.list)

print(json.dumps(seen))
