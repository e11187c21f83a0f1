"""Providers of what people work in: customers, notes, meetings, issues."""

from __future__ import annotations

from oauth_app.providers.provider import (
    DAY,
    BodyFormat,
    Provider,
    ReplayPolicy,
    Revocation,
    RevocationStyle,
    TokenAuthMethod,
)

HUBSPOT = Provider(
    name="hubspot",
    label="HubSpot",
    source="developers.hubspot.com/docs/api-reference/2026-03/authentication/manage-oauth-tokens",
    auth_url="https://app.hubspot.com/oauth/authorize",
    # The undated endpoints (/oauth/v1) end in February 2027.
    token_url="https://api.hubapi.com/oauth/2026-03/token",
    revocation=Revocation(url="https://api.hubapi.com/oauth/2026-03/token/revoke"),
    grants=("authorization_code", "client_credentials"),
    note="Name exactly the scopes that the app's settings require, or the consent fails. The person who consents must be "
    "a Super Admin or may install apps. client_credentials is for the webhooks journal only.",
    default_scopes=("oauth",),
    scope_field="scopes",
    # The guide's authorization URL knows no challenge.
    pkce=False,
    # The refresh token is not rotated.
    replay_policy=ReplayPolicy.SAFE,
    facts=("hub_id", "user_id"),
    connected_as=("hub_id",),
    subject="user_id",
)

NOTION = Provider(
    name="notion",
    label="Notion",
    source="developers.notion.com/guides/get-started/authorization",
    auth_url="https://api.notion.com/v1/oauth/authorize",
    token_url="https://api.notion.com/v1/oauth/token",
    revocation=Revocation(
        url="https://api.notion.com/v1/oauth/revoke",
        style=RevocationStyle.JSON_TOKEN,
        wants_access_token=True,
        headers={"Notion-Version": "2025-09-03"},
    ),
    note="The connection must be a public one; an internal one has no OAuth. Instead of scopes it has capabilities, and the "
    "person who consents picks the pages. Answers name no lifetime, so tokens are only refreshed when that is asked for.",
    authorize_params={"owner": "user"},
    # Bodies are checked strictly, and a code_verifier is not among their fields.
    pkce=False,
    token_auth_method=TokenAuthMethod.BASIC,
    token_body=BodyFormat.JSON,
    # Every refresh brings a new refresh token; what becomes of the old one is not documented.
    replay_policy=ReplayPolicy.ONE_TRY,
    facts=("workspace_id", "workspace_name", "bot_id"),
    connected_as=("workspace_name", "workspace_id"),
    # One bot stands for one person's consent in one workspace. Who it was is nested too deep to be kept.
    subject="bot_id",
)

ZOOM = Provider(
    name="zoom",
    label="Zoom",
    source="developers.zoom.us/docs/integrations/oauth",
    auth_url="https://zoom.us/oauth/authorize",
    token_url="https://zoom.us/oauth/token",
    revocation=Revocation(url="https://zoom.us/oauth/revoke", wants_access_token=True),
    grants=("authorization_code", "client_credentials"),
    note="A token has the scopes that are chosen in the app; none need be named. client_credentials gives a chat bot's token. "
    "A Server-to-Server app's account_credentials is no standard grant and not offered.",
    token_auth_method=TokenAuthMethod.BASIC,
    # The latest refresh token is the only one that works; nothing is revoked when an older one is tried.
    replay_policy=ReplayPolicy.ONE_TRY,
    refresh_token_idle=90 * DAY,
    facts=("api_url",),
)

LINEAR = Provider(
    name="linear",
    label="Linear",
    source="linear.app/developers/oauth-2-0-authentication",
    auth_url="https://linear.app/oauth/authorize",
    token_url="https://api.linear.app/oauth/token",
    revocation=Revocation(url="https://api.linear.app/oauth/revoke", style=RevocationStyle.TOKEN_ONLY),
    grants=("authorization_code", "client_credentials"),
    note="client_credentials must be switched on in the application; asking for other scopes revokes the tokens it gave "
    "before. `actor=app` among authorize_params acts as the application instead of the person.",
    default_scopes=("read",),
    client_credentials_scopes=("read",),
    scope_separator=",",
    answered_scope_separator=" ",
    # A replay within 30 minutes is answered with the same new refresh token.
    replay_policy=ReplayPolicy.SAFE,
    error_words={"client does not support the client_credentials grant type": "unauthorized_client"},
)

ATLASSIAN = Provider(
    name="atlassian",
    label="Atlassian",
    source="developer.atlassian.com/cloud/oauth/getting-started/refresh-tokens",
    auth_url="https://auth.atlassian.com/authorize",
    token_url="https://auth.atlassian.com/oauth/token",
    grants=("authorization_code", "client_credentials"),
    note="Add the User Identity API to the app for the default scope, and an API for every other. There is no way to revoke "
    "a token; a person can take the access back at id.atlassian.com. client_credentials is for a service account.",
    default_scopes=("read:me", "offline_access"),
    offline_scopes=("offline_access",),
    # Without prompt=consent a person who consented before gets no chance to pick another site.
    authorize_params={"audience": "api.atlassian.com", "prompt": "consent"},
    token_body=BodyFormat.JSON,
    # A refresh token may be used again for ten minutes. Later that counts as a breach, and the grant is revoked.
    replay_policy=ReplayPolicy.SAFE,
    refresh_token_idle=90 * DAY,
    refresh_token_lifetime=365 * DAY,
    # It says so with a 403.
    error_words={"unknown or invalid refresh token": "invalid_grant"},
)
