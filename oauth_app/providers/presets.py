"""The presets: the registry, and the five records that it began with; the others are in `catalogue`.

Each record names the document that it was checked against; nothing here is code.
"""

from __future__ import annotations

from oauth_app.providers.catalogue.code import BITBUCKET, GITLAB
from oauth_app.providers.catalogue.commerce import QUICKBOOKS, SHOPIFY, STRIPE, XERO
from oauth_app.providers.catalogue.community import DISCORD, LINKEDIN, REDDIT, SPOTIFY, TWITCH
from oauth_app.providers.catalogue.files import BOX, DROPBOX
from oauth_app.providers.catalogue.planning import AIRTABLE, ASANA, CALENDLY, DOCUSIGN, FIGMA
from oauth_app.providers.catalogue.support import INTERCOM, ZENDESK
from oauth_app.providers.catalogue.work import ATLASSIAN, HUBSPOT, LINEAR, NOTION, ZOOM
from oauth_app.providers.provider import (
    DAY,
    Provider,
    ReplayPolicy,
    Revocation,
    RevocationStyle,
    TokenAuthMethod,
    Variable,
)

CUSTOM = "custom"

_GOOGLE = Provider(
    name="google",
    label="Google",
    source="developers.google.com/identity/protocols/oauth2/web-server",
    auth_url="https://accounts.google.com/o/oauth2/v2/auth",
    token_url="https://oauth2.googleapis.com/token",
    revocation=Revocation(
        url="https://oauth2.googleapis.com/revoke", style=RevocationStyle.TOKEN_ONLY, ends_grant=True
    ),
    issuer="https://accounts.google.com",
    grants=("authorization_code", "implicit"),
    note="A refresh token ends after six months without use, after seven days while the app is in testing, and when the same "
    "account gives the client its 101st.",
    default_scopes=("openid", "email", "profile"),
    scope_prefix="https://www.googleapis.com/auth/userinfo.",
    # Without both of these Google returns a refresh token on the very first consent only.
    authorize_params={"access_type": "offline", "prompt": "consent"},
    replay_policy=ReplayPolicy.SAFE,
    refresh_token_idle=180 * DAY,
)

_GITHUB = Provider(
    name="github",
    label="GitHub",
    source="docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps",
    auth_url="https://github.com/login/oauth/authorize",
    token_url="https://github.com/login/oauth/access_token",
    revocation=Revocation(
        url="https://api.github.com/applications/{client_id}/token", style=RevocationStyle.GITHUB, gone=()
    ),
    note="Tokens of classic OAuth apps never expire and cannot be refreshed; those of GitHub Apps with expiring tokens can.",
    default_scopes=("read:user", "user:email"),
    answered_scope_separator=",",
    # A refresh kills the old access token too, so waiting to its end would gain nothing.
    replay_policy=ReplayPolicy.SAFE,
    # Answers say 15897600 (`refresh_token_expires_in`).
    refresh_token_idle=184 * DAY,
)

_SALESFORCE = Provider(
    name="salesforce",
    label="Salesforce",
    source="help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_web_server_flow.htm",
    auth_url="https://{login_host}/services/oauth2/authorize",
    token_url="https://{login_host}/services/oauth2/token",
    revocation=Revocation(url="{instance_url}/services/oauth2/revoke", style=RevocationStyle.TOKEN_ONLY),
    variables=(
        Variable(
            name="login_host",
            pattern=r"(?:login|test)\.salesforce\.com|[a-z0-9](?:[a-z0-9-]{0,78}[a-z0-9])?"
            r"(?:\.(?:demo|develop|free|patch|sandbox|scratch|trailblaze))?\.my\.salesforce\.com",
            default="login.salesforce.com",
            client_credentials_pattern=r".+\.my\.salesforce\.com",
            meaning="login.salesforce.com, test.salesforce.com or the org's My Domain",
        ),
    ),
    grants=("authorization_code", "client_credentials", "password", "implicit"),
    note="client_credentials needs the org's My Domain as login_host. password is blocked in new orgs until an administrator "
    "allows it. A refresh token ends after 30 days without use, unless the app says otherwise, and when the same user gives "
    "the app a sixth. Where the org's session time-out is under an hour, set default_expires_in below it.",
    default_scopes=("api", "refresh_token"),
    offline_scopes=("refresh_token", "offline_access"),
    authorize_params={"prompt": "consent"},
    replay_policy=ReplayPolicy.NEVER,
    # Answers carry no expires_in; the org's session time-out is two hours by default.
    default_expires_in=3600,
    refresh_token_idle=30 * DAY,
    facts=("instance_url", "api_instance_url", "sfdc_community_url", "id"),
    connected_as=("id",),
    subject="id",
)

_MICROSOFT = Provider(
    name="microsoft",
    label="Microsoft",
    source="learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-auth-code-flow",
    auth_url="https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
    token_url="https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
    variables=(
        Variable(
            name="tenant",
            pattern=r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?",
            default="common",
            client_credentials_pattern=r"(?!(?:common|organizations|consumers)$).+",
            meaning="a directory's id or domain, or common, organizations, consumers",
        ),
    ),
    issuer="https://login.microsoftonline.com/{tenant}/v2.0",
    # A tenant that is given by its domain, or as `common`, answers with its id.
    issuer_pattern=r"https://login\.microsoftonline\.com/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/v2\.0",
    grants=("authorization_code", "client_credentials", "password", "implicit"),
    note="client_credentials and password need a tenant other than common. password fails for accounts with a second factor, "
    "implicit has to be ticked in the registration. There is no way to revoke a token at Microsoft; a user can take the "
    "access back at myapps.microsoft.com.",
    default_scopes=("openid", "profile", "email", "offline_access", "User.Read"),
    offline_scopes=("offline_access",),
    client_credentials_scopes=("https://graph.microsoft.com/.default",),
    scope_prefix="https://graph.microsoft.com/",
    scope_on_refresh=True,
    authorize_params={"response_mode": "query"},
    replay_policy=ReplayPolicy.SAFE,
    refresh_token_idle=90 * DAY,
)

_SLACK = Provider(
    name="slack",
    label="Slack",
    source="docs.slack.dev/authentication/installing-with-oauth",
    auth_url="https://slack.com/oauth/v2/authorize",
    token_url="https://slack.com/api/oauth.v2.access",
    revocation=Revocation(
        url="https://slack.com/api/auth.revoke",
        style=RevocationStyle.BEARER,
        gone=("token_revoked", "token_expired", "invalid_auth", "account_inactive"),
    ),
    note="Tokens expire only where token rotation is on in the app, which cannot be undone. For a user's token instead of the "
    "bot's, give an empty list of scopes and put them into authorize_params as user_scope.",
    default_scopes=("chat:write",),
    scope_separator=",",
    # Sending a challenge once makes a Slack app public for good.
    pkce=False,
    token_auth_method=TokenAuthMethod.BASIC,
    replay_policy=ReplayPolicy.ONE_TRY,
    nested_token="authed_user",
    facts=("team", "enterprise", "app_id", "bot_user_id"),
    connected_as=("team.name", "enterprise.name", "team.id"),
)

PROVIDERS: dict[str, Provider] = {
    "google": _GOOGLE,
    "github": _GITHUB,
    "salesforce": _SALESFORCE,
    "microsoft": _MICROSOFT,
    "slack": _SLACK,
    "airtable": AIRTABLE,
    "asana": ASANA,
    "atlassian": ATLASSIAN,
    "bitbucket": BITBUCKET,
    "box": BOX,
    "calendly": CALENDLY,
    "discord": DISCORD,
    "docusign": DOCUSIGN,
    "dropbox": DROPBOX,
    "figma": FIGMA,
    "gitlab": GITLAB,
    "hubspot": HUBSPOT,
    "intercom": INTERCOM,
    "linear": LINEAR,
    "linkedin": LINKEDIN,
    "notion": NOTION,
    "quickbooks": QUICKBOOKS,
    "reddit": REDDIT,
    "shopify": SHOPIFY,
    "spotify": SPOTIFY,
    "stripe": STRIPE,
    "twitch": TWITCH,
    "xero": XERO,
    "zendesk": ZENDESK,
    "zoom": ZOOM,
    # What `custom` starts from; the request says the rest.
    CUSTOM: Provider(
        name=CUSTOM,
        label="Custom",
        source="RFC 6749, RFC 7636, RFC 9700",
        auth_url="",
        token_url="",
        grants=("authorization_code", "client_credentials", "password", "implicit"),
        token_auth_method=TokenAuthMethod.BASIC,
        replay_policy=ReplayPolicy.ONE_TRY,
    ),
}
