"""The records of tools that teams plan and agree with: Airtable, Asana, Calendly, DocuSign, Figma."""

from __future__ import annotations

from oauth_app.providers.provider import Provider, ReplayPolicy, Revocation, TokenAuthMethod, Variable

DAY = 86_400

AIRTABLE = Provider(
    name="airtable",
    label="Airtable",
    source="airtable.com/developers/web/api/oauth-reference",
    auth_url="https://airtable.com/oauth2/v1/authorize",
    token_url="https://airtable.com/oauth2/v1/token",
    note="Scopes have to be enabled in the integration before they can be asked for, and PKCE cannot be left out. A refresh "
    "ends the old access token at once. To disconnect does not revoke the token; a user does that in the account's "
    "integrations.",
    default_scopes=("data.records:read", "schema.bases:read"),
    token_auth_method=TokenAuthMethod.BASIC,
    # A refresh token that comes a second time makes Airtable revoke the whole integration at that user, by mail.
    replay_policy=ReplayPolicy.NEVER,
    refresh_token_idle=60 * DAY,
)

ASANA = Provider(
    name="asana",
    label="Asana",
    source="developers.asana.com/docs/oauth",
    auth_url="https://app.asana.com/-/oauth_authorize",
    token_url="https://app.asana.com/-/oauth_token",
    # It takes refresh tokens too.
    revocation=Revocation(url="https://app.asana.com/-/oauth_revoke"),
    note="No scopes are asked for unless named, which suits an app with full permissions. For any other app name those that "
    "are ticked in the developer console, such as tasks:read; one that is not is refused.",
    # The refresh token stays what it was; a refresh answer omits it.
    replay_policy=ReplayPolicy.SAFE,
    facts=("data",),
    connected_as=("data.email", "data.name"),
    subject="data.gid",
)

CALENDLY = Provider(
    name="calendly",
    label="Calendly",
    source="developer.calendly.com/creating-an-oauth-app",
    auth_url="https://auth.calendly.com/oauth/authorize",
    token_url="https://auth.calendly.com/oauth/token",
    revocation=Revocation(url="https://auth.calendly.com/oauth/revoke"),
    note="Register a web app. Its scopes are chosen in the developer portal; none are asked for unless named. A user can get "
    "no more than eight tokens a minute.",
    token_auth_method=TokenAuthMethod.BASIC,
    # A refresh token ends when it is used; nothing says that a second use would end more.
    replay_policy=ReplayPolicy.ONE_TRY,
    facts=("owner", "organization"),
    connected_as=("owner", "organization"),
    subject="owner",
)

DOCUSIGN = Provider(
    name="docusign",
    label="DocuSign",
    source="www.docusign.com/blog/developers/authorization-code-grant-refresh-tokens",
    auth_url="https://{account_host}/oauth/auth",
    token_url="https://{account_host}/oauth/token",
    variables=(
        Variable(
            name="account_host",
            pattern=r"account(?:-d)?\.docusign\.com",
            default="account.docusign.com",
            meaning="account.docusign.com, or account-d.docusign.com for the developer environment",
        ),
    ),
    note="An integration key works in the developer environment (account-d.docusign.com) until it is promoted. Where to call "
    "the API is said by oauth/userinfo at the same host. To disconnect does not revoke the token; a user does that in the "
    "profile's connected apps.",
    # Without `extended` the refresh token ends 30 days after the consent, with it 30 days after the last refresh.
    default_scopes=("signature", "extended"),
    offline_scopes=("extended",),
    token_auth_method=TokenAuthMethod.BASIC,
    # Every refresh brings a new refresh token; what becomes of the old one is not documented.
    replay_policy=ReplayPolicy.ONE_TRY,
    refresh_token_idle=30 * DAY,
)

FIGMA = Provider(
    name="figma",
    label="Figma",
    source="developers.figma.com/docs/rest-api/oauth-apps",
    auth_url="https://www.figma.com/oauth",
    token_url="https://api.figma.com/v1/oauth/token",
    refresh_url="https://api.figma.com/v1/oauth/refresh",
    note="Scopes have to be ticked in the app before they can be asked for. Figma keeps one access token per app and user: a "
    "second connection of the same user ends the first one's. To disconnect does not revoke the token; a user does that in "
    "the settings under connected apps.",
    default_scopes=("current_user:read",),
    token_auth_method=TokenAuthMethod.BASIC,
    # The refresh token stays what it was; a refresh answer omits it.
    replay_policy=ReplayPolicy.SAFE,
    facts=("user_id_string",),
    connected_as=("user_id_string",),
    subject="user_id_string",
)
