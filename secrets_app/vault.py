"""The vault's use cases: what the API, the admin and the commands call to create, read and delete secrets."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from billing_app.accounts import lock_account
from billing_app.limits import check_secret_limit
from billing_app.models import Account
from knoxcall.api.errors import Conflict, InUse, NotFound, ValidationFailed
from knoxcall.api.idempotency import Attempt
from secrets_app import audit
from secrets_app.crypto.cipher import Plaintext
from secrets_app.environments import get_environment
from secrets_app.models import ApiKey, Collection, Secret, SecretValue


@dataclass(frozen=True, slots=True)
class Scope:
    """On whose behalf: the account and mode, and who acts."""

    account_id: uuid.UUID
    mode: str
    actor: audit.Actor

    @classmethod
    def of_key(cls, api_key: ApiKey, ip_address: str | None) -> Scope:
        """The scope of a request signed with ``api_key``."""
        return cls(api_key.account_id, api_key.mode, audit.Actor(api_key.key_id, ip_address))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSecret:
    """What every kind of secret is created with. ``name`` is the normalised one."""

    name: str
    description: str = ""
    environment: str = "production"
    collection_id: uuid.UUID | None = None
    expires_at: datetime | None = None
    strict_expiry_enforcement: bool = False


# Runs in the transaction that inserts the secret, after it: an upper app adds its own rows there.
Furnish = Callable[[Secret], None]


def normalise_name(name: str) -> str:
    """The name a secret gets: spaces become underscores, nothing else changes.

    Any run of other white space, a control character, or a length outside 1–255 is refused with ``ValueError``.
    """
    normalised = name.replace(" ", "_")
    if not 1 <= len(normalised) <= 255:
        raise ValueError("Must have 1 to 255 characters.")
    if re.search(r"[\s\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]", normalised):
        raise ValueError("Must not contain line breaks, tabs, control characters or invisible characters.")
    return normalised


def create_secret(
    scope: Scope,
    new: NewSecret,
    *,
    secret_type: str,
    furnish: Furnish,
    attempt: Attempt,
    check_account: Callable[[Account], None] = lambda account: None,
) -> Secret:
    """Create a secret: count, check and insert are one transaction under the account's lock.

    ``check_account`` may refuse what the plan does not have; ``furnish`` adds what the type consists of; ``attempt`` is told
    of the new id before the commit. Raises ``PlanLimitReached``, ``Conflict``, ``ValidationFailed``; then nothing is stored.
    """
    with transaction.atomic():
        account = lock_account(scope.account_id)
        check_account(account)
        own = Secret.objects.filter(account_id=scope.account_id, mode=scope.mode)
        if own.filter(name=new.name).exists():
            raise _name_taken(new.name)
        check_secret_limit(account, used=own.count())
        environment = get_environment(account_id=scope.account_id, mode=scope.mode, name=new.environment)
        try:
            with transaction.atomic():
                secret = Secret.objects.create(
                    account=account,
                    mode=scope.mode,
                    name=new.name,
                    secret_type=secret_type,
                    base_environment=environment,
                    collection=_find_collection(scope, new.collection_id),
                    description=new.description,
                    expires_at=new.expires_at,
                    strict_expiry_enforcement=new.strict_expiry_enforcement,
                )
        except IntegrityError:
            # Renames do not take the account's lock.
            raise _name_taken(new.name) from None
        furnish(secret)
        attempt.names(secret.pk)
        record(audit.Action.SECRET_CREATED, scope, secret, details={"name": secret.name, "secret_type": secret_type})
    return secret


def create_string(scope: Scope, new: NewSecret, value: Plaintext, *, attempt: Attempt) -> Secret:
    """Create a string secret with its first value."""

    def furnish(secret: Secret) -> None:
        SecretValue.objects.create(
            account_id=secret.account_id, secret=secret, environment=secret.base_environment, value=value
        )

    return create_secret(scope, new, secret_type=Secret.Type.STRING, furnish=furnish, attempt=attempt)


def get_secret(scope: Scope, secret_id: uuid.UUID) -> Secret:
    """Return a secret of the scope. Another account's, another mode's and none at all are one ``NotFound``."""
    secret = (
        Secret.objects.filter(account_id=scope.account_id, mode=scope.mode, pk=secret_id)
        .select_related("base_environment")
        .first()
    )
    if secret is None:
        raise NotFound
    return secret


def delete_secret(
    scope: Scope,
    secret_id: uuid.UUID,
    *,
    attempt: Attempt,
    dismantle: Callable[[Secret], None] = lambda secret: None,
) -> None:
    """Delete a secret with everything it holds; ``attempt`` is told before the commit. The audit record stays.

    ``dismantle`` runs in the same transaction, before the deletion. Raises ``NotFound``, and ``InUse`` while something of
    another secret refers to this one; then nothing is deleted.
    """
    try:
        with transaction.atomic():
            secret = (
                Secret.objects.select_for_update()
                .filter(account_id=scope.account_id, mode=scope.mode, pk=secret_id)
                .first()
            )
            if secret is None:
                raise NotFound
            dismantle(secret)
            record(audit.Action.SECRET_DELETED, scope, secret, details={"name": secret.name})
            attempt.names(secret.pk)
            secret.delete()
    except ProtectedError as err:
        count = len(err.protected_objects)
        users = "1 other secret uses" if count == 1 else f"{count} other secrets use"
        raise InUse(f"{users} it.") from None
    except IntegrityError:
        # Foreign keys are checked at the commit: somebody began to use it in the moment before.
        raise InUse from None


def record(action: audit.Action, scope: Scope, secret: Secret, *, details: dict[str, object] | None = None) -> None:
    """Write an audit event about ``secret``."""
    audit.record(
        action,
        account_id=scope.account_id,
        mode=scope.mode,
        resource_type="secret",
        resource_id=secret.pk,
        actor=scope.actor,
        details=details,
    )


def _name_taken(name: str) -> Conflict:
    return Conflict(f"A secret named `{name}` exists already.")


def _find_collection(scope: Scope, collection_id: uuid.UUID | None) -> Collection | None:
    if collection_id is None:
        return None
    collection = Collection.objects.filter(account_id=scope.account_id, mode=scope.mode, pk=collection_id).first()
    if collection is None:
        message = "There is no collection with this id."
        raise ValidationFailed(f"collection_id: {message}", fields={"collection_id": [message]})
    return collection
