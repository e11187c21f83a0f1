"""Secrets, keys and the audit record in the admin. No value anywhere: what is sealed is not even read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from knoxcall.clock import iso
from secrets_app import audit
from secrets_app.crypto.fields import presence_of
from secrets_app.models import ApiKey, AuditEvent, Certificate, Collection, Secret

# From when on a certificate should be replaced.
EXPIRES_SOON = timedelta(days=30)


def moment(at: datetime | None) -> SafeString | None:
    """How far away ``at`` is: `in 52 min`, `3 h ago`. The exact time is in the element's title, in UTC."""
    if at is None:
        return None
    seconds = round((at - timezone.now()).total_seconds())
    size = abs(seconds)
    steps = ((1, "s", 120), (60, "min", 7200), (3600, "h", 172_800), (86_400, "days", float("inf")))
    distance = next(f"{size // unit} {name}" for unit, name, below in steps if size < below)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        iso(at) or "",
        at.strftime("%Y-%m-%d %H:%M:%S UTC"),
        f"in {distance}" if seconds > 0 else f"{distance} ago",
    )


def moment_column(field: str, description: str, *, empty: str = "–") -> Callable[[Any, Any], SafeString | None]:
    """A column of a list: the time in ``field``, as ``moment`` shows it."""

    @admin.display(description=description, ordering=field, empty_value=empty)
    def column(self: Any, row: Any) -> SafeString | None:
        return moment(getattr(row, field))

    return column


def badge(modifier: str, text: str) -> SafeString:
    """A state in its colour. The text says it; the colour only helps to find it."""
    return format_html('<span class="kc-badge kc-badge--{}">{}</span>', modifier, text)


def actor_of(request: HttpRequest) -> audit.Actor:
    """The operator who is logged in."""
    return audit.Actor(request.user.get_username(), request.META.get("REMOTE_ADDR") or None)


class ReadOnlyAdmin(admin.ModelAdmin):
    """Looking, not touching: what the API and the workers write is changed through them."""

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        title = {"title": capfirst(self.opts.verbose_name_plural)}
        return super().changelist_view(request, {**title, **(extra_context or {})})

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Secret)
class SecretAdmin(ReadOnlyAdmin):
    list_display = (
        "name",
        "secret_type",
        "account",
        "mode",
        "base_environment",
        "collection",
        "expires",
        "created",
    )
    list_filter = ("secret_type", "mode")
    search_fields = ("name", "id", "account__slug")
    search_help_text = "By name, id or account."
    list_select_related = ("account", "base_environment", "collection")
    fields = (
        "id",
        "name",
        "account",
        "mode",
        "secret_type",
        "base_environment",
        "collection",
        "description",
        "expires_at",
        "strict_expiry_enforcement",
        "created_at",
        "updated_at",
    )
    created = moment_column("created_at", "created")
    expires = moment_column("expires_at", "expires", empty="never")


@admin.register(Collection)
class CollectionAdmin(ReadOnlyAdmin):
    list_display = ("name", "account", "mode", "description", "created")
    list_filter = ("mode",)
    search_fields = ("name", "account__slug")
    search_help_text = "By name or account."
    list_select_related = ("account",)
    ordering = ("name",)
    created = moment_column("created_at", "created")


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    list_display = ("key_id", "name", "state", "account", "mode", "role", "last_used", "expires", "created")
    list_filter = ("mode", "role")
    search_fields = ("key_id", "name", "account__slug")
    search_help_text = "By the first 20 characters of the key, name or account."
    list_select_related = ("account",)
    fields = ("key_id", "name", "state", "account", "mode", "role", "created_at", "last_used_at", "expires_at")
    actions = ("revoke",)
    created = moment_column("created_at", "created")
    last_used = moment_column("last_used_at", "last used", empty="never")
    expires = moment_column("expires_at", "expires", empty="never")

    @admin.display(description="state")
    def state(self, key: ApiKey) -> SafeString:
        if key.revoked_at is not None:
            return format_html("{} {}", badge("disconnected", "Revoked"), moment(key.revoked_at) or "")
        if key.expires_at is not None and key.expires_at <= timezone.now():
            return badge("not_connected", "Expired")
        return badge("connected", "Active")

    @admin.action(description="Revoke the selected keys", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        """Revoke at once; a revoked key never opens anything again."""
        actor = actor_of(request)
        revoked = 0
        for key in queryset.filter(revoked_at=None):
            with transaction.atomic():
                if not ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=timezone.now()):
                    # Somebody else revoked it since.
                    continue
                audit.record(
                    audit.Action.API_KEY_REVOKED,
                    account_id=key.account_id,
                    mode=key.mode,
                    resource_type="api_key",
                    resource_id=key.pk,
                    actor=actor,
                    details={"key_id": key.key_id},
                )
            revoked += 1
        self.message_user(request, f"{revoked} keys were revoked.")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("secrets_app.change_apikey")


class ExpiryFilter(admin.SimpleListFilter):
    """By how soon a certificate expires."""

    title = parameter_name = "expiry"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("expired", "Expired"), ("soon", f"Within {EXPIRES_SOON.days} days"), ("later", "Later")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Certificate]) -> QuerySet[Certificate]:
        now = timezone.now()
        ranges = {
            "expired": {"expires_at__lte": now},
            "soon": {"expires_at__gt": now, "expires_at__lte": now + EXPIRES_SOON},
            "later": {"expires_at__gt": now + EXPIRES_SOON},
        }
        return queryset.filter(**ranges.get(self.value() or "", {}))


@admin.register(Certificate)
class CertificateAdmin(ReadOnlyAdmin):
    list_display = ("secret", "expiry", "has_key", "subject", "issuer", "account", "mode")
    list_filter = (ExpiryFilter, "secret__mode")
    search_fields = ("secret__name", "secret__id", "subject", "issuer", "fingerprint_sha256", "account__slug")
    search_help_text = "By secret (name or id), subject, issuer, fingerprint or account."
    list_select_related = ("secret", "account")
    ordering = ("expires_at", "secret__name")
    fields = (
        "secret",
        "account",
        "mode",
        "expiry",
        "subject",
        "issuer",
        "serial_number",
        "fingerprint_sha256",
        "not_before",
        "expires_at",
        "certificate_type",
        "has_key",
        "has_own_passphrase",
        "chain",
        "version",
        "updated_at",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # What is sealed is not even read.
        certificates: QuerySet[Any] = super().get_queryset(request).select_related(*self.list_select_related)
        certificates = certificates.annotate(**presence_of("private_key", "passphrase"))
        return certificates.defer("content", "private_key", "passphrase")

    @admin.display(description="mode", ordering="secret__mode")
    def mode(self, certificate: Certificate) -> str:
        return certificate.secret.mode

    @admin.display(description="expires", ordering="expires_at")
    def expiry(self, certificate: Certificate) -> SafeString:
        now = timezone.now()
        if certificate.expires_at <= now:
            state = badge("reauthorization_required", "Expired")
        elif certificate.expires_at <= now + EXPIRES_SOON:
            state = badge("refresh_failing", "Expires soon")
        else:
            state = badge("connected", "Valid")
        return format_html("{} {}", state, moment(certificate.expires_at) or "")

    @admin.display(description="private key", boolean=True)
    def has_key(self, certificate: Any) -> bool:
        return bool(certificate.has_private_key)

    @admin.display(description="passphrase", boolean=True)
    def has_own_passphrase(self, certificate: Any) -> bool:
        return bool(certificate.has_passphrase)


class ActionFilter(admin.SimpleListFilter):
    """By what was done. The set is closed, so the whole table need not be searched for the choices."""

    title = parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(action), str(action)) for action in audit.Action]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        return queryset.filter(action=self.value()) if self.value() else queryset


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ("when", "action", "resource", "said", "actor", "ip_address", "account", "mode")
    list_filter = (ActionFilter, "mode")
    search_fields = ("resource_id", "actor", "account__slug")
    search_help_text = "By the id of what it happened to, by who did it (a key's first 20 characters), or account."
    list_select_related = ("account",)
    date_hierarchy = "created_at"
    fields = ("when", "action", "resource", "said", "actor", "ip_address", "account", "mode")
    shown_models: dict[str, type[Model]] = {"secret": Secret, "api_key": ApiKey, "collection": Collection}

    @admin.display(description="when, UTC", ordering="created_at")
    def when(self, event: AuditEvent) -> str:
        return event.created_at.strftime("%Y-%m-%d %H:%M:%S")

    @admin.display(description="resource", ordering="resource_id")
    def resource(self, event: AuditEvent) -> str:
        name = f"{event.resource_type} {event.details.get('name') or event.resource_id[:8]}"
        model = self.shown_models.get(event.resource_type)
        if model is None or event.action.endswith(".deleted"):
            return name
        return format_html(
            '<a href="{}">{}</a>',
            reverse(f"admin:secrets_app_{model._meta.model_name}_change", args=[event.resource_id]),
            name,
        )

    @admin.display(description="details", empty_value="–")
    def said(self, event: AuditEvent) -> str | None:
        said = {name: value for name, value in event.details.items() if name != "name" and value is not None}
        return ", ".join(f"{name}: {value}" for name, value in said.items()) or None
