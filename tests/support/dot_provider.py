"""A real OAuth2 server for tests: django-oauth-toolkit, in a process of its own."""

from __future__ import annotations

import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

from tests.support.processes import ServerProcess

Grant = Literal["authorization-code", "client-credentials", "password", "implicit"]


class DotProvider:
    """The server, seen from outside, with the controls of its operator; a context manager.

    Refresh tokens are single use: one that comes twice ends every token of its grant. Codes need PKCE with S256 and
    tokens live for an hour, unless it is told otherwise here or for one application. Scopes are `read` (the default)
    and `write`.
    """

    def __init__(self, *, access_token_seconds: int = 3600, pkce_required: bool = True) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="dot-")
        try:
            self._server = ServerProcess(
                "tests.support.dot",
                environ={
                    "DOT_DATABASE": str(Path(self._directory.name) / "dot.sqlite3"),
                    "DOT_ACCESS_TOKEN_SECONDS": str(access_token_seconds),
                    "DOT_PKCE_REQUIRED": "1" if pkce_required else "0",
                },
            )
        except BaseException:
            self._directory.cleanup()
            raise
        self.base_url = self._server.base_url
        self.issuer = f"{self.base_url}/o"
        self.authorize_url = f"{self.base_url}/o/authorize/"
        self.token_url = f"{self.base_url}/o/token/"
        self.revoke_url = f"{self.base_url}/o/revoke_token/"
        self.protected_url = f"{self.base_url}/protected"

    def __enter__(self) -> DotProvider:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.stop()
        self._directory.cleanup()

    def create_application(
        self,
        grant: Grant = "authorization-code",
        *,
        redirect_uri: str = "",
        confidential: bool = True,
        pkce_required: bool | None = None,
        access_token_seconds: int | None = None,
    ) -> tuple[str, str]:
        """Client id and client secret of a new application; None leaves a term as the server has it."""
        created = self._server.post(
            "/control/applications",
            {
                "grant": grant,
                "redirect_uri": redirect_uri,
                "confidential": confidential,
                "pkce_required": pkce_required,
                "access_token_seconds": access_token_seconds,
            },
        )
        return created["client_id"], created["client_secret"]

    def set_redirect_uri(self, client_id: str, redirect_uri: str) -> None:
        """Register the redirect URI, which is often known only after the client id was used; replaces the old one."""
        changed = self._server.post("/control/redirect-uris", {"client_id": client_id, "redirect_uri": redirect_uri})[
            "changed"
        ]
        if not changed:
            raise LookupError(f"No application {client_id}")

    def create_user(self, username: str, password: str) -> None:
        self._server.post("/control/users", {"username": username, "password": password})

    def is_live(self, access_token: str) -> bool:
        """Whether the protected resource lets this token in."""
        request = Request(self.protected_url, headers={"Authorization": f"Bearer {access_token}"})
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=10):
                return True
        except HTTPError as err:
            with err:
                if err.code != HTTPStatus.UNAUTHORIZED:
                    raise
            return False

    def issued(self, client_id: str | None = None) -> int:
        """How many access tokens a client, or all of them, were ever given: one per generation."""
        return self._tokens(client_id)["issued"]

    def access_tokens(self, client_id: str | None = None) -> int:
        """How many access tokens the server keeps now; a refresh replaces one, and expired ones stay."""
        return self._tokens(client_id)["stored"]

    def revoke_refresh_tokens(self, client_id: str | None = None) -> int:
        """End the grants of a client, or of all, with their access tokens; returns how many there were."""
        return self._server.post("/control/revocations", {"client_id": client_id})["revoked"]

    def _tokens(self, client_id: str | None) -> dict[str, int]:
        query = "" if client_id is None else "?" + urlencode({"client_id": client_id})
        return self._server.get(f"/control/tokens{query}")
