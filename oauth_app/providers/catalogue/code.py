"""Providers that host code."""

from __future__ import annotations

from oauth_app.providers.provider import DAY, Provider, ReplayPolicy, Revocation, TokenAuthMethod

GITLAB = Provider(
    name="gitlab",
    label="GitLab",
    source="docs.gitlab.com/api/oauth2",
    auth_url="https://gitlab.com/oauth/authorize",
    token_url="https://gitlab.com/oauth/token",
    revocation=Revocation(url="https://gitlab.com/oauth/revoke"),
    grants=("authorization_code", "password"),
    note="This is gitlab.com; for an installation of your own take custom. The application must have the scopes that are "
    "asked for. password fails for whoever has two-factor authentication.",
    default_scopes=("read_user",),
    # A refresh kills the old access token too, so waiting to its end would gain nothing.
    replay_policy=ReplayPolicy.SAFE,
)

BITBUCKET = Provider(
    name="bitbucket",
    label="Bitbucket",
    source="developer.atlassian.com/cloud/bitbucket/oauth-2",
    auth_url="https://bitbucket.org/site/oauth2/authorize",
    token_url="https://bitbucket.org/site/oauth2/access_token",
    grants=("authorization_code", "client_credentials", "implicit"),
    note="This is Bitbucket Cloud; its accounts are no Atlassian OAuth apps. A token has the permissions that are chosen in the "
    "consumer; scopes cannot be asked for. There is no way to revoke a token but to remove the consumer or its access.",
    scope_field="scopes",
    # Not among what the document lists.
    pkce=False,
    token_auth_method=TokenAuthMethod.BASIC,
    # A rotated refresh token works for ten minutes more.
    replay_policy=ReplayPolicy.SAFE,
    refresh_token_idle=90 * DAY,
    # Its code is invalid_request, as if the request were malformed.
    error_words={"invalid refresh_token": "invalid_grant"},
)
