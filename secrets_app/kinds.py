"""The kinds of secret there are, and what each adds to the common calls. Upper apps register theirs when they start.

The common calls (`/v1/secrets`) know names and dates; what a kind holds, how it is created and what its rows say is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from django.db.models import Prefetch, QuerySet

from knoxcall.api.errors import invalid
from knoxcall.api.idempotency import Attempt
from knoxcall.clock import iso
from secrets_app.models import Secret, SecretValue
from secrets_app.vault import Scope


class SecretKind:
    """What one kind of secret adds. Subclasses override what is different about theirs."""

    name: ClassVar[str]
    # Further spellings that a create call may use.
    aliases: ClassVar[tuple[str, ...]] = ()
    # Query parameters of the list that this kind understands: each narrows the queryset, or raises ``ValidationFailed``.
    filters: ClassVar[Mapping[str, Callable[[QuerySet, str], QuerySet]]] = {}

    def create(self, scope: Scope, data: Mapping[str, Any], attempt: Attempt) -> Secret:
        """Create a secret from validated ``data``."""
        raise TypeError(f"{self.name} secrets are not created here")

    def answer(self, secret: Secret) -> dict[str, Any]:
        """What the create call answers beyond the row."""
        return {}

    def prepare(self, queryset: QuerySet) -> QuerySet:
        """Load what ``row`` and ``environments`` need, in a number of statements that does not grow with the page."""
        return queryset

    def row(self, secret: Secret) -> dict[str, Any]:
        """What the kind adds to a row."""
        return {}

    def environments(self, secret: Secret) -> list[dict[str, Any]]:
        """One entry per environment that the secret has something for, sorted by name."""
        return []

    def dismantle(self, secret: Secret, scope: Scope) -> None:
        """Undo what the kind did elsewhere; runs in the transaction that deletes the secret, before it."""


class StringKind(SecretKind):
    """A plain value per environment."""

    name = Secret.Type.STRING
    aliases = ("api_key", "basic_auth", "custom")

    def prepare(self, queryset: QuerySet) -> QuerySet:
        values = SecretValue.objects.select_related("environment").defer("value")
        return queryset.prefetch_related(Prefetch("values", values))

    def environments(self, secret: Secret) -> list[dict[str, Any]]:
        return sorted(
            (
                {
                    "environment_name": value.environment.name,
                    "value_version": value.value_version,
                    "updated_at": iso(value.updated_at),
                    "expires_at_override": iso(value.expires_at_override),
                }
                for value in secret.values.all()
            ),
            key=lambda entry: str(entry["environment_name"]),
        )


KINDS: dict[str, SecretKind] = {}
_SPELLINGS: dict[str, str] = {}


def register(kind: SecretKind) -> None:
    """Make ``kind`` known under its name and its further spellings."""
    KINDS[kind.name] = kind
    for spelling in (kind.name, *kind.aliases):
        _SPELLINGS[spelling] = kind.name


def kind_named(spelling: object) -> SecretKind:
    """The kind that a create call means. Raises ``ValidationFailed`` naming the known spellings."""
    name = _SPELLINGS.get(spelling) if isinstance(spelling, str) else None
    if name is not None:
        return KINDS[name]
    raise invalid("secret_type", f"Must be one of: {', '.join(_SPELLINGS)}.")


def kind_of(secret: Secret) -> SecretKind:
    """The kind that ``secret`` is of."""
    return KINDS[secret.secret_type]
