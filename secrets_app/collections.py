"""Collections of secrets."""

from __future__ import annotations

from django.db import IntegrityError, transaction

from knoxcall.api.errors import Conflict
from knoxcall.api.idempotency import Attempt
from secrets_app import audit
from secrets_app.models import Collection
from secrets_app.vault import Scope


def create_collection(scope: Scope, *, name: str, description: str = "", attempt: Attempt) -> Collection:
    """Create a collection; ``attempt`` is told of its id before the commit.

    Raises ``Conflict`` where the name is taken in the account and mode.
    """
    try:
        with transaction.atomic():
            collection = Collection.objects.create(
                account_id=scope.account_id, mode=scope.mode, name=name, description=description
            )
            attempt.names(collection.pk)
            audit.record(
                audit.Action.COLLECTION_CREATED,
                account_id=scope.account_id,
                mode=scope.mode,
                resource_type="collection",
                resource_id=collection.pk,
                actor=scope.actor,
                details={"name": name},
            )
    except IntegrityError:
        raise Conflict(f"A collection named `{name}` exists already.") from None
    return collection
