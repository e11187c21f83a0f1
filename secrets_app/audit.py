"""The record of who did what. A closed set of actions; written in the transaction of what it records."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from secrets_app.models import AuditEvent


class Action(StrEnum):
    """Everything that is recorded."""

    SECRET_CREATED = "secret.created"
    SECRET_DELETED = "secret.deleted"
    CERTIFICATE_REPLACED = "certificate.replaced"
    ENVIRONMENT_CREATED = "environment.created"
    COLLECTION_CREATED = "collection.created"
    API_KEY_CREATED = "api_key.created"
    API_KEY_REVOKED = "api_key.revoked"
    CONSENT_LINK_CREATED = "consent.link_created"
    CONSENT_STARTED = "consent.started"
    CONSENT_COMPLETED = "consent.completed"
    CONSENT_FAILED = "consent.failed"
    CONNECTION_ENDED = "connection.ended"
    TOKENS_REVOKED = "connection.revoked"
    CLIENT_CHANGED = "client.changed"
    RETURN_ORIGIN_ALLOWED = "return_origin.allowed"
    RETURN_ORIGIN_REMOVED = "return_origin.removed"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a key's id, an operator's name or `browser`, and the address they came from."""

    name: str
    ip_address: str | None = None


# Whoever runs `manage.py` on the machine.
COMMAND_LINE = Actor("command line")


def record(
    action: Action,
    *,
    account_id: uuid.UUID,
    mode: str,
    resource_type: str,
    resource_id: object,
    actor: Actor,
    details: dict[str, Any] | None = None,
) -> AuditEvent:
    """Write one event. ``details`` holds names and codes, never a value."""
    return AuditEvent.objects.create(
        account_id=account_id,
        mode=mode,
        action=action,
        resource_type=resource_type,
        resource_id=str(resource_id),
        actor=actor.name,
        ip_address=actor.ip_address,
        details=details or {},
    )
