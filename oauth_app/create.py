"""Creating an OAuth2 secret: the client registration, its first connection, and, where no person is needed, its first token."""

from __future__ import annotations

from django.db.models.functions import Now

from billing_app.limits import check_oauth2_allowed
from knoxcall.api.idempotency import Attempt
from oauth_app.models import ClientRegistration, Connection, GrantType
from oauth_app.protocol.client import OAuthClient
from oauth_app.tokens import first_fetch
from secrets_app.models import Secret
from secrets_app.vault import NewSecret, Scope, create_secret


def create_oauth2_secret(scope: Scope, new: NewSecret, client: OAuthClient, *, attempt: Attempt) -> Secret:
    """Create the secret with a connection in its base environment; for repeatable grants fetch the token before returning.

    A fetch that fails leaves the secret and a connection that says why. Raises what ``create_secret`` raises.
    """
    made: list[Connection] = []
    repeatable = GrantType(client.grant_type).is_repeatable

    def furnish(secret: Secret) -> None:
        ClientRegistration.objects.create(
            secret=secret,
            account_id=secret.account_id,
            provider=client.provider,
            grant_type=client.grant_type,
            scopes=list(client.scopes),
            token_host=client.token_host,
            document=client.to_document(),
        )
        connection = Connection.objects.create(
            account_id=secret.account_id,
            secret=secret,
            environment=secret.base_environment,
            # Due at once: should this process die before the fetch, the sweep makes it.
            refresh_due_at=Now() if repeatable else None,
        )
        made.append(connection)

    secret = create_secret(
        scope, new, secret_type=Secret.Type.OAUTH2, furnish=furnish, attempt=attempt, check_account=check_oauth2_allowed
    )
    if repeatable:
        first_fetch(made[0])
    return secret
