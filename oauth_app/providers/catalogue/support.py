"""The records of help desks: Intercom, Zendesk."""

from __future__ import annotations

from oauth_app.providers.provider import Provider, ReplayPolicy, Revocation, RevocationStyle, Variable

DAY = 86_400

INTERCOM = Provider(
    name="intercom",
    label="Intercom",
    source="developers.intercom.com/docs/build-an-integration/learn-more/authentication/setting-up-oauth",
    auth_url="https://{app_host}/oauth",
    token_url="https://api.intercom.io/auth/eagle/token",
    revocation=Revocation(url="https://api.intercom.io/auth/uninstall", style=RevocationStyle.BEARER, ends_grant=True),
    variables=(
        Variable(
            name="app_host",
            pattern=r"app(?:\.eu|\.au)?\.intercom\.com",
            default="app.intercom.com",
            meaning="app.intercom.com, or app.eu.intercom.com or app.au.intercom.com for a workspace in that region",
        ),
    ),
    note="Permissions are ticked in the Developer Hub, not asked for as scopes. Tokens do not expire and there are no "
    "refresh tokens. To disconnect uninstalls the app from the workspace.",
    # Neither documented nor looked at.
    pkce=False,
)

ZENDESK = Provider(
    name="zendesk",
    label="Zendesk",
    source="developer.zendesk.com/api-reference/ticketing/oauth/grant_type_tokens",
    auth_url="https://{subdomain}.zendesk.com/oauth/authorizations/new",
    token_url="https://{subdomain}.zendesk.com/oauth/tokens",
    variables=(
        Variable(
            name="subdomain",
            pattern=r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?",
            meaning="the part before .zendesk.com of the account's address, in lower case",
        ),
    ),
    grants=("authorization_code", "client_credentials"),
    note="client_credentials needs a confidential client and acts as the user who made it. To serve several accounts, a "
    "client has to be made global by Zendesk. To disconnect does not revoke the token; an administrator does that in the "
    "Admin Center.",
    default_scopes=("read",),
    client_credentials_scopes=("read",),
    # A client from before 30 April 2026 gets tokens that expire, and so a refresh token of use, only if it asks.
    token_params={"expires_in": "1800"},
    # A refresh deletes the old access token together with the old refresh token, so waiting to its end would gain nothing.
    replay_policy=ReplayPolicy.SAFE,
    refresh_token_idle=30 * DAY,
)
