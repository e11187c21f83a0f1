"""Providers of books, shops and payments."""

from __future__ import annotations

from oauth_app.providers.provider import (
    DAY,
    Provider,
    ReplayPolicy,
    Revocation,
    RevocationStyle,
    TokenAuthMethod,
    Variable,
)

QUICKBOOKS = Provider(
    name="quickbooks",
    label="QuickBooks",
    source="developer.intuit.com/app/developer/qbo/docs/develop/authentication-and-authorization/oauth-2.0",
    auth_url="https://appcenter.intuit.com/connect/oauth2",
    token_url="https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer",
    revocation=Revocation(
        url="https://developer.api.intuit.com/v2/oauth2/tokens/revoke", style=RevocationStyle.JSON_TOKEN
    ),
    note="Sandbox companies have a client id and secret of their own. The company is realmId among the facts.",
    default_scopes=("com.intuit.quickbooks.accounting",),
    # Not among what the document lists.
    pkce=False,
    token_auth_method=TokenAuthMethod.BASIC,
    # It changes about once a day, and then the one before is refused; nothing is revoked.
    replay_policy=ReplayPolicy.ONE_TRY,
    refresh_token_idle=100 * DAY,
    refresh_token_lifetime=5 * 365 * DAY,
    # The token answer says nothing of the company.
    callback_facts=("realmId",),
    connected_as=("realmId",),
    subject="realmId",
)

XERO = Provider(
    name="xero",
    label="Xero",
    source="developer.xero.com/documentation/guides/oauth2/auth-flow",
    auth_url="https://login.xero.com/identity/connect/authorize",
    token_url="https://identity.xero.com/connect/token",
    # Removes every organisation that the person connected to the app.
    revocation=Revocation(url="https://identity.xero.com/connect/revocation", ends_grant=True),
    issuer="https://identity.xero.com",
    grants=("authorization_code", "client_credentials"),
    note="The organisations of a token are listed at api.xero.com/connections. Apps made since March 2026 have the granular "
    "scopes only. client_credentials is for a custom connection.",
    default_scopes=("openid", "profile", "email", "accounting.settings.read", "offline_access"),
    offline_scopes=("offline_access",),
    token_auth_method=TokenAuthMethod.BASIC,
    # For 30 minutes after a refresh the old refresh token still works.
    replay_policy=ReplayPolicy.SAFE,
    refresh_token_idle=60 * DAY,
)

SHOPIFY = Provider(
    name="shopify",
    label="Shopify",
    source="shopify.dev/docs/apps/build/authentication-authorization/access-tokens/offline-access-tokens",
    auth_url="https://{shop}.myshopify.com/admin/oauth/authorize",
    token_url="https://{shop}.myshopify.com/admin/oauth/access_token",
    variables=(
        Variable(
            name="shop",
            pattern=r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?",
            meaning="the shop's own name, the part before .myshopify.com",
        ),
    ),
    grants=("authorization_code", "client_credentials"),
    note="There is no way to revoke a token from outside; the merchant uninstalls the app. A newer token of the same app and "
    "shop ends the older one, so connect a shop once. client_credentials is for shops of the app's own organisation.",
    default_scopes=("read_products",),
    scope_separator=",",
    # Not among what the document lists.
    pkce=False,
    # Without it the token never expires, which public apps may no longer use.
    token_params={"expiring": "1"},
    # The old refresh token works until the new one is first used.
    replay_policy=ReplayPolicy.SAFE,
    refresh_token_idle=90 * DAY,
    # Its code is invalid_request, as if the request were malformed.
    error_words={"this request requires an active refresh_token": "invalid_grant"},
    callback_facts=("shop",),
    connected_as=("shop",),
    subject="shop",
)

STRIPE = Provider(
    name="stripe",
    label="Stripe",
    source="docs.stripe.com/connect/oauth-reference",
    auth_url="https://connect.stripe.com/oauth/authorize",
    token_url="https://connect.stripe.com/oauth/token",
    revocation=Revocation(
        url="https://connect.stripe.com/oauth/deauthorize",
        style=RevocationStyle.STRIPE,
        ends_grant=True,
        # `invalid_client` says so too, but no less of a wrong key.
        gone=(),
    ),
    note="The client id is that of Connect (ca_…), the client secret the platform's secret API key of the same mode. Tokens "
    "do not expire. An account that another platform controls cannot be connected with read_write.",
    default_scopes=("read_write",),
    # Not among what the document lists.
    pkce=False,
    # The access token lives on, so nothing is lost by waiting.
    replay_policy=ReplayPolicy.ONE_TRY,
    facts=("stripe_user_id",),
    connected_as=("stripe_user_id",),
    subject="stripe_user_id",
)
