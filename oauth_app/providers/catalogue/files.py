"""Providers that keep files."""

from __future__ import annotations

from oauth_app.providers.provider import DAY, Provider, ReplayPolicy, Revocation, RevocationStyle

DROPBOX = Provider(
    name="dropbox",
    label="Dropbox",
    source="www.dropbox.com/developers/documentation/http/documentation#authorization",
    auth_url="https://www.dropbox.com/oauth2/authorize",
    token_url="https://api.dropboxapi.com/oauth2/token",
    # Ends the refresh token that the access token came from, and its other access tokens.
    revocation=Revocation(
        url="https://api.dropboxapi.com/2/auth/token/revoke",
        style=RevocationStyle.BEARER,
        gone=("invalid_access_token",),
    ),
    grants=("authorization_code", "implicit"),
    note="Without scopes a token has all that are ticked in the app's Permissions tab.",
    # Without it there is no refresh token.
    authorize_params={"token_access_type": "offline"},
    # The refresh token neither rotates nor expires.
    replay_policy=ReplayPolicy.SAFE,
    facts=("account_id", "team_id", "uid"),
    connected_as=("account_id", "team_id"),
    subject="account_id",
)

BOX = Provider(
    name="box",
    label="Box",
    source="developer.box.com/guides/authentication/tokens/refresh",
    auth_url="https://account.box.com/api/oauth2/authorize",
    token_url="https://api.box.com/oauth2/token",
    revocation=Revocation(url="https://api.box.com/oauth2/revoke"),
    grants=("authorization_code", "client_credentials"),
    note="A token has the scopes that are chosen in the app; none need be named. client_credentials needs an app with "
    "server authentication, and box_subject_type and box_subject_id among token_params.",
    # A challenge is accepted and then not checked.
    pkce=False,
    # A refresh token works once; no revocation on its second use is documented.
    replay_policy=ReplayPolicy.ONE_TRY,
    refresh_token_idle=60 * DAY,
)
