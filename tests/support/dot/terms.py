"""What each application is granted beyond the toolkit's own fields; kept in memory, as there is one process."""

import os
from dataclasses import dataclass

from oauthlib.common import Request


@dataclass(frozen=True)
class Terms:
    pkce_required: bool
    access_token_seconds: int


USUAL = Terms(
    pkce_required=os.environ.get("DOT_PKCE_REQUIRED", "1") == "1",
    access_token_seconds=int(os.environ.get("DOT_ACCESS_TOKEN_SECONDS", "3600")),
)
_of_client: dict[str, Terms] = {}


def agree(client_id: str, terms: Terms) -> None:
    _of_client[client_id] = terms


def is_pkce_required(client_id: str) -> bool:
    return _of_client.get(client_id, USUAL).pkce_required


def access_token_seconds(request: Request) -> int:
    return _of_client.get(request.client.client_id, USUAL).access_token_seconds
