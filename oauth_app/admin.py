"""Connections in the admin: what an operator looks at, and the few things to do about it. No token anywhere."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db import transaction
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString

from oauth_app import operations
from oauth_app.admin_parts import (
    ConnectionEventInline,
    ConsentFilter,
    ProviderFilter,
    RevocationInline,
    status_badge_of,
)
from oauth_app.attention import BY_URGENCY, URGENCY, attention_of
from oauth_app.connections import shown_connections
from oauth_app.models import Connection, Issuer, ReturnOrigin, RevocationJob
from oauth_app.providers import CUSTOM, PROVIDERS
from oauth_app.return_origins import record
from secrets_app import audit
from secrets_app.admin import ReadOnlyAdmin, actor_of, badge, moment, moment_column


@admin.register(Connection)
class ConnectionAdmin(ReadOnlyAdmin):
    list_display = (
        "secret",
        "status_badge",
        "last_error",
        "provider_or_host",
        "token_expires",
        "next_refresh",
        "environment",
        "account",
    )
    # By status: the badges above the list.
    list_filter = (ConsentFilter, ProviderFilter, "secret__registration__grant_type", "secret__mode")
    search_fields = ("secret__name", "secret__id", "account__slug", "secret__registration__token_host", "failure_code")
    search_help_text = "By secret (name or id), account, token host or error code."
    list_select_related = ("secret__registration", "environment", "account")
    ordering = (URGENCY.asc(), "secret__name")
    inlines = (ConnectionEventInline, RevocationInline)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "secret",
                    "environment",
                    "account",
                    "provider",
                    "grant_type",
                    "token_host",
                    "certificate",
                    "status_badge",
                    "attention",
                    "connected_as",
                    "subject",
                )
            },
        ),
        ("Last error", {"fields": ("failure_code", "failure_message", "failure_count", "failed_at")}),
        (
            "Token",
            {
                "fields": (
                    "generation",
                    "token_type",
                    "scopes",
                    "issued_at",
                    "expires_at",
                    "has_refresh_token",
                    "refresh_token_expires_at",
                    "reauthorize_by",
                    "facts",
                )
            },
        ),
        (
            "Schedule",
            {
                "fields": (
                    "refreshed_at",
                    "refresh_due_at",
                    "lease_expires_at",
                    "outcome_unknown_at",
                    "connected_at",
                    "status_changed_at",
                )
            },
        ),
    )

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(
                f"<uuid:connection_id>/{name}/",
                self.admin_site.admin_view(operations.view_of(self, operation)),
                name=f"oauth_app_connection_{name.replace('-', '_')}",
            )
            for name, operation in operations.OPERATIONS.items()
        ]
        return own + list(super().get_urls())

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # What is sealed is not even read.
        return shown_connections(super().get_queryset(request))

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Whether the operator may make links, refresh and disconnect."""
        return request.user.has_perm("oauth_app.change_connection")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"may_operate": self.has_operate_permission(request), **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        counted = dict(Connection.objects.values_list("status").annotate(Count("pk")).order_by())
        counts = [(status, status.label, counted.get(status, 0)) for status in BY_URGENCY]
        context = {"status_counts": counts, "status_chosen": request.GET.get("status__exact")}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    @admin.display(description="status", ordering=URGENCY)
    def status_badge(self, connection: Any) -> SafeString:
        """The status, and below it the codes of what else there is to know."""
        found = attention_of(connection, timezone.now(), renewable=connection.renewable)
        notes = format_html_join("", '<br><span title="{}">{}</span>', ((a.message, a.code) for a in found))
        return status_badge_of(connection.status) + notes

    @admin.display(description="provider")
    def provider(self, connection: Connection) -> str:
        return PROVIDERS[connection.secret.registration.provider].label

    @admin.display(description="provider", ordering="secret__registration__token_host")
    def provider_or_host(self, connection: Connection) -> SafeString:
        """The provider, of which the host is the only name where there is no preset, and below it whose account it is."""
        registration = connection.secret.registration
        name = registration.token_host if registration.provider == CUSTOM else self.provider(connection)
        return format_html("{}<br>{}", name, connection.connected_as) if connection.connected_as else escape(name)

    @admin.display(description="token expires", ordering="expires_at", empty_value="–")
    def token_expires(self, connection: Connection) -> str | None:
        if connection.issued_at is not None and connection.expires_at is None:
            return "never"
        return moment(connection.expires_at)

    @admin.display(description="next refresh", ordering="refresh_due_at", empty_value="–")
    def next_refresh(self, connection: Connection) -> str | None:
        now = timezone.now()
        if connection.is_leased(now):
            return "under way"
        due = connection.refresh_due_at
        return "now" if due is not None and due <= now else moment(due)

    @admin.display(description="last error", ordering="failed_at", empty_value="–")
    def last_error(self, connection: Connection) -> SafeString | None:
        if not connection.failure_code:
            return None
        return format_html(
            '<span title="{}">{}</span><br>{}',
            connection.failure_message,
            connection.failure_code,
            moment(connection.failed_at) or "",
        )

    @admin.display(description="grant")
    def grant_type(self, connection: Connection) -> str:
        return connection.secret.registration.get_grant_type_display()

    @admin.display(description="token host")
    def token_host(self, connection: Connection) -> str:
        return connection.secret.registration.token_host

    @admin.display(description="scopes")
    def scopes(self, connection: Connection) -> str:
        granted = connection.granted_scopes
        asked = connection.secret.registration.scopes
        return " ".join(asked if granted is None else granted) or "–"

    @admin.display(description="refresh token", boolean=True)
    def has_refresh_token(self, connection: Any) -> bool:
        return bool(connection.renewable)

    @admin.display(description="certificate")
    def certificate(self, connection: Connection) -> str:
        certificate = connection.secret.registration.mtls_certificate
        return f"{certificate.subject}, until {certificate.expires_at:%Y-%m-%d}" if certificate else "–"

    @admin.display(description="attention")
    def attention(self, connection: Any) -> SafeString | str:
        found = attention_of(connection, timezone.now(), renewable=connection.renewable)
        rows = ((a.code, moment(a.since) or "", a.message) for a in found)
        return format_html_join("", "<p><b>{}</b> {}<br>{}</p>", rows) or "–"


@admin.register(RevocationJob)
class RevocationJobAdmin(ReadOnlyAdmin):
    """Tokens that were given up; also those of secrets that are gone."""

    list_display = (
        "secret_name",
        "outcome_badge",
        "failure_code",
        "environment_name",
        "account",
        "requested",
        "finished",
    )
    list_filter = ("outcome", "provider")
    search_fields = ("secret_name", "secret_id", "account__slug")
    search_help_text = "By secret (name or id) or account."
    list_select_related = ("account",)
    fields = (
        "secret_name",
        "secret_id",
        "environment_name",
        "account",
        "mode",
        "provider",
        "outcome_badge",
        "failure_code",
        "attempts",
        "created_at",
        "finished_at",
    )
    requested = moment_column("created_at", "requested")
    finished = moment_column("finished_at", "finished")
    colours = {"revoked": "connected", "failed": "reauthorization_required", "pending": "refresh_failing"}

    def get_queryset(self, request: HttpRequest) -> QuerySet[RevocationJob]:
        return super().get_queryset(request).defer("document")

    @admin.display(description="outcome", ordering="outcome")
    def outcome_badge(self, job: RevocationJob) -> SafeString:
        return badge(self.colours.get(job.outcome, "disconnected"), job.get_outcome_display())


@admin.register(Issuer)
class IssuerAdmin(ReadOnlyAdmin):
    """Issuers whose metadata names a client's addresses."""

    list_display = ("url", "fetched", "failed")
    search_fields = ("url",)
    search_help_text = "By address."
    fetched = moment_column("fetched_at", "fetched")
    failed = moment_column("failed_at", "last failure")


@admin.register(ReturnOrigin)
class ReturnOriginAdmin(admin.ModelAdmin):
    """Where browsers may be sent back to after a consent."""

    list_display = ("origin", "account", "created")
    search_fields = ("origin", "account__slug")
    search_help_text = "By origin or account."
    list_select_related = ("account",)
    fields = ("account", "origin")
    created = moment_column("created_at", "created")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Another origin is another row: what was allowed until when stays readable in the audit record.
        return False

    def save_model(self, request: HttpRequest, obj: ReturnOrigin, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        record(audit.Action.RETURN_ORIGIN_ALLOWED, obj, actor_of(request))

    def delete_model(self, request: HttpRequest, obj: ReturnOrigin) -> None:
        record(audit.Action.RETURN_ORIGIN_REMOVED, obj, actor_of(request))
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ReturnOrigin]) -> None:
        # Unlike a single deletion, an action runs in no transaction.
        with transaction.atomic():
            for row in queryset:
                self.delete_model(request, row)
