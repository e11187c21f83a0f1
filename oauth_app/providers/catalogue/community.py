"""The records of places where people meet and publish: Discord, LinkedIn, Reddit, Spotify, Twitch."""

from __future__ import annotations

from oauth_app.providers.provider import Provider, ReplayPolicy, Revocation, TokenAuthMethod

DAY = 86_400

DISCORD = Provider(
    name="discord",
    label="Discord",
    source="discord.com/developers/docs/topics/oauth2",
    auth_url="https://discord.com/oauth2/authorize",
    token_url="https://discord.com/api/oauth2/token",
    revocation=Revocation(url="https://discord.com/api/oauth2/token/revoke", ends_grant=True),
    # discord.com/.well-known/oauth-authorization-server: every callback names it.
    issuer="https://discord.com",
    grants=("authorization_code", "client_credentials", "implicit"),
    note="client_credentials gives a token of the application's owner. The token of a bot is not had by OAuth2.",
    default_scopes=("identify",),
    client_credentials_scopes=("identify",),
    token_auth_method=TokenAuthMethod.BASIC,
    # Each refresh token is good once; the used one answers invalid_grant, and nothing else is revoked.
    replay_policy=ReplayPolicy.ONE_TRY,
    facts=("guild",),
    callback_facts=("guild_id",),
    connected_as=("guild.name", "guild_id"),
)

LINKEDIN = Provider(
    name="linkedin",
    label="LinkedIn",
    source="learn.microsoft.com/en-us/linkedin/shared/authentication/programmatic-refresh-tokens",
    auth_url="https://www.linkedin.com/oauth/v2/authorization",
    token_url="https://www.linkedin.com/oauth/v2/accessToken",
    grants=("authorization_code", "client_credentials"),
    note="The default scopes need the product Sign In with LinkedIn using OpenID Connect. Only approved partners get refresh "
    "tokens; without one a person consents anew every 60 days. client_credentials has to be enabled by LinkedIn. To "
    "disconnect does not revoke the token; a member removes the app in the settings of the account.",
    default_scopes=("openid", "profile", "email"),
    answered_scope_separator=",",
    # Only for native apps, at another address, which LinkedIn enables on request.
    pkce=False,
    # The refresh token stays what it was, and lives a year from the consent however often it is used.
    replay_policy=ReplayPolicy.SAFE,
    refresh_token_lifetime=365 * DAY,
    error_words={
        "the provided authorization grant or refresh token is invalid, expired or revoked": "invalid_grant",
    },
)

REDDIT = Provider(
    name="reddit",
    label="Reddit",
    source="github.com/reddit-archive/reddit/wiki/OAuth2",
    auth_url="https://www.reddit.com/api/v1/authorize",
    token_url="https://www.reddit.com/api/v1/access_token",
    revocation=Revocation(url="https://www.reddit.com/api/v1/revoke_token"),
    grants=("authorization_code", "client_credentials", "password", "implicit"),
    note="A web app offers authorization_code and client_credentials, a script also password (of its developers only), an "
    "installed app implicit. An installed app has no secret: it sends its id with an empty one.",
    default_scopes=("identity",),
    # Without it there is no refresh token.
    authorize_params={"duration": "permanent"},
    # Neither documented nor looked at.
    pkce=False,
    token_auth_method=TokenAuthMethod.BASIC,
    # The refresh token stays what it was, until it is revoked.
    replay_policy=ReplayPolicy.SAFE,
    # A dead refresh token is answered by a bare {"message": "Bad Request", "error": 400}.
    error_words={"bad request": "invalid_grant", "unauthorized": "invalid_client"},
)

SPOTIFY = Provider(
    name="spotify",
    label="Spotify",
    source="developer.spotify.com/documentation/web-api/tutorials/refreshing-tokens",
    auth_url="https://accounts.spotify.com/authorize",
    token_url="https://accounts.spotify.com/api/token",
    grants=("authorization_code", "client_credentials"),
    note="A person consents anew every six months, however much the connection is used. Until Spotify extends the app's "
    "quota, only users who are named in the dashboard can connect. To disconnect does not revoke the token; a user "
    "removes the app at spotify.com/account/apps.",
    default_scopes=("user-read-private", "user-read-email"),
    # Documented for clients without a secret only, and the refresh tokens of those are good once.
    pkce=False,
    token_auth_method=TokenAuthMethod.BASIC,
    # A refresh answer mostly omits the refresh token: keep the old one.
    replay_policy=ReplayPolicy.SAFE,
    refresh_token_lifetime=180 * DAY,
)

TWITCH = Provider(
    name="twitch",
    label="Twitch",
    source="dev.twitch.tv/docs/authentication/refresh-tokens",
    auth_url="https://id.twitch.tv/oauth2/authorize",
    token_url="https://id.twitch.tv/oauth2/token",
    revocation=Revocation(url="https://id.twitch.tv/oauth2/revoke"),
    grants=("authorization_code", "client_credentials", "implicit"),
    note="Register a confidential client: the refresh token of a public one is good once and ends after 30 days. Whoever "
    "uses a token has to validate it every hour at id.twitch.tv/oauth2/validate, and to send the client id with each call.",
    default_scopes=("openid", "user:read:email"),
    # Neither documented nor looked at.
    pkce=False,
    # The refresh token of a confidential client may be used again; it ends with the password or the authorization.
    replay_policy=ReplayPolicy.SAFE,
    # Errors are {"status": 400, "message": "Invalid refresh token"}, some with an `error` such as "Bad Request".
    error_words={
        "invalid refresh token": "invalid_grant",
        "invalid authorization code": "invalid_grant",
        "invalid client": "invalid_client",
        "invalid client secret": "invalid_client",
    },
)
