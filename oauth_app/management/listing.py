"""Connections as operators read them: lines in columns, or documents with the API's names. Nothing that is sealed is read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.db.models import BooleanField, Case, Count, ExpressionWrapper, F, Max, Q, QuerySet, When
from django.db.models.functions import Length

from knoxcall.clock import database_now, iso
from oauth_app.attention import BY_URGENCY, URGENCY, Attention, attention_of
from oauth_app.models import Connection
from oauth_app.providers import CUSTOM

# Rows that are in memory at once.
CHUNK = 1_000
WIDEST = 40
_MOMENT = len("2026-03-10 15:30:00")
HEADINGS = (
    "NAME",
    "ENVIRONMENT",
    "ACCOUNT",
    "PROVIDER",
    "STATUS",
    "EXPIRES (UTC)",
    "NEXT REFRESH (UTC)",
    "LAST ERROR",
    "ATTENTION",
)
# What is read: to read all that is not sealed would take twice as long.
RELATED = ("secret__registration__mtls_certificate", "environment", "account")
FIELDS = (
    *("secret__name", "secret__mode", "environment__name", "account__slug"),
    *(f"secret__registration__{name}" for name in ("provider", "grant_type", "scopes", "token_host")),
    "secret__registration__previous_client_secret_expires_at",
    "secret__registration__mtls_certificate__expires_at",
    *("status", "status_changed_at", "connected_as", "connected_at", "refreshed_at", "generation", "granted_scopes"),
    *("issued_at", "expires_at", "refresh_due_at", "outcome_unknown_at", "previous_client_secret_used_at"),
    *("refresh_token_expires_at", "refresh_token_rolls", "reauthorize_by"),
    *("failure_code", "failure_message", "failure_reason", "failed_at"),
)


def listed(chosen: QuerySet[Connection], *, limit: int | None = None) -> Iterator[tuple[Any, list[Attention]]]:
    """``chosen`` connections with what there is to know of each, those that need a person first, a chunk in memory at a time."""
    now = database_now()
    has_refresh_token = ExpressionWrapper(Q(refresh_token__isnull=False), BooleanField())
    rows = chosen.select_related(*RELATED).only(*FIELDS).annotate(renewable=has_refresh_token)
    for connection in rows.order_by(URGENCY, "secret__name", "pk")[:limit].iterator(chunk_size=CHUNK):
        yield connection, attention_of(connection, now, renewable=connection.renewable)


def counts_of(chosen: QuerySet[Connection]) -> dict[str, int]:
    """How many of ``chosen`` there are in each status, in one statement."""
    return dict(chosen.order_by().values_list("status").annotate(Count("pk")))


def totals(counts: dict[str, int]) -> str:
    """`12 connections: 1 refresh_failing, 11 connected`"""
    number = sum(counts.values())
    by_status = ", ".join(f"{counts[status]:,} {status.value}" for status in BY_URGENCY if counts.get(status))
    return f"{number:,} connection{'' if number == 1 else 's'}{': ' if by_status else ''}{by_status}"


def widths_of(chosen: QuerySet[Connection]) -> list[int]:
    """How wide each column but the last one has to be for ``chosen``, in one statement."""
    by_host = When(secret__registration__provider=CUSTOM, then=F("secret__registration__token_host"))
    called = Case(by_host, default=F("secret__registration__provider"))
    longest = chosen.aggregate(
        name=Max(Length("secret__name")),
        environment=Max(Length("environment__name")),
        account=Max(Length("account__slug")),
        provider=Max(Length(called)),
        status=Max(Length("status")),
        error=Max(Length("failure_code")),
    )
    texts = [min(WIDEST, longest[name] or 0) for name in ("name", "environment", "account", "provider", "status")]
    widths = [*texts, _MOMENT, _MOMENT, min(WIDEST, longest["error"] or 0)]
    return [max(width, len(heading)) for width, heading in zip(widths, HEADINGS, strict=False)]


def line_of(cells: tuple[str, ...], widths: list[int]) -> str:
    """``cells`` in columns; what is too long for its column is cut."""
    *columns, last = cells
    return "  ".join([*(_fitted(text, width) for text, width in zip(columns, widths, strict=True)), last]).rstrip()


def _fitted(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else f"{text[: width - 1]}…"


def cells_of(connection: Connection, found: list[Attention]) -> tuple[str, ...]:
    """What the list says of ``connection``, under ``HEADINGS``."""
    registration = connection.secret.registration
    never = connection.issued_at is not None and connection.expires_at is None
    return (
        connection.secret.name,
        connection.environment.name,
        connection.account.slug,
        registration.token_host if registration.provider == CUSTOM else registration.provider,
        connection.status,
        "never" if never else _moment(connection.expires_at),
        _moment(connection.refresh_due_at),
        connection.failure_code or "–",
        " ".join(attention.code for attention in found) or "–",
    )


def _moment(at: datetime | None) -> str:
    return "–" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def document_of(connection: Any, found: list[Attention]) -> dict[str, Any]:
    """``connection`` under the names that `GET /v1/secrets/:id/oauth2` answers with; name, account and mode are added."""
    registration = connection.secret.registration
    return {
        "id": str(connection.secret_id),
        "name": connection.secret.name,
        "account": connection.account.slug,
        "mode": connection.secret.mode,
        "environment": connection.environment.name,
        "provider": registration.provider,
        "grant_type": registration.grant_type,
        "connection_status": connection.status,
        "connected_as": connection.connected_as or None,
        "connected_at": iso(connection.connected_at),
        "generation": connection.generation,
        "token_expires_at": iso(connection.expires_at),
        "has_refresh_token": connection.renewable,
        "refresh_token_expires_at": iso(connection.refresh_token_expires_at),
        "reauthorize_by": iso(connection.reauthorize_by),
        "last_refresh_at": iso(connection.refreshed_at),
        "next_refresh_at": iso(connection.refresh_due_at),
        "last_error": _last_error(connection),
        "attention": [_attention(attention) for attention in found],
    }


def _last_error(connection: Connection) -> dict[str, Any] | None:
    if not connection.failure_code:
        return None
    return {
        "code": connection.failure_code,
        "message": connection.failure_message,
        "reason": connection.failure_reason,
        "at": iso(connection.failed_at),
    }


def _attention(attention: Attention) -> dict[str, Any]:
    document = {"code": attention.code, "since": iso(attention.since), "message": attention.message}
    if attention.reauthorize_by is not None:
        document["reauthorize_by"] = iso(attention.reauthorize_by)
    return document
