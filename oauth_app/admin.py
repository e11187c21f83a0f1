"""Connections in the admin: what an operator looks at. Status, last error, next refresh; no token anywhere."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import BooleanField, Case, Count, ExpressionWrapper, Q, QuerySet, When
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from oauth_app.models import Connection, ConnectionEvent
from oauth_app.providers import CUSTOM, PROVIDERS
from secrets_app.admin import ReadOnlyAdmin, badge, moment

Status = Connection.Status
# What needs a person comes first.
BY_URGENCY = (
    Status.REAUTHORIZATION_REQUIRED,
    Status.REFRESH_FAILING,
    Status.NOT_CONNECTED,
    Status.CONNECTED,
    Status.DISCONNECTED,
)
URGENCY = Case(*(When(status=status, then=place) for place, status in enumerate(BY_URGENCY)))


def status_badge_of(status: str) -> SafeString:
    """A connection's status, as a badge."""
    return badge(status, dict(Status.choices).get(status, status))


class ProviderFilter(admin.SimpleListFilter):
    """By the provider of the client registration."""

    title = "provider"
    parameter_name = "provider"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(provider.name, provider.label) for provider in PROVIDERS.values()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(secret__registration__provider=self.value()) if self.value() else queryset


class ConnectionEventInline(admin.TabularInline):
    """The history of a connection: its changes of state."""

    model = ConnectionEvent
    verbose_name_plural = "Changes of state"
    classes = ("kc-events",)
    fields = readonly_fields = ("created_at", "from_status", "to_status", "code", "message")
    extra = 0
    can_delete = False
    show_change_link = False

    @admin.display(description="from")
    def from_status(self, event: ConnectionEvent) -> SafeString:
        return status_badge_of(event.previous_status)

    @admin.display(description="to")
    def to_status(self, event: ConnectionEvent) -> SafeString:
        return status_badge_of(event.status)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


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
    list_filter = (ProviderFilter, "secret__registration__grant_type", "secret__mode")
    search_fields = ("secret__name", "secret__id", "account__slug", "secret__registration__token_host", "failure_code")
    search_help_text = "By secret (name or id), account, token host or error code."
    list_select_related = ("secret__registration", "environment", "account")
    ordering = (URGENCY.asc(), "secret__name")
    inlines = (ConnectionEventInline,)
    fieldsets = (
        (
            None,
            {"fields": ("secret", "environment", "account", "provider", "grant_type", "token_host", "status_badge")},
        ),
        ("Last error", {"fields": ("failure_code", "failure_message", "failure_count", "failed_at")}),
        (
            "Token",
            {"fields": ("generation", "token_type", "scopes", "issued_at", "expires_at", "has_refresh_token", "facts")},
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

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # What is sealed is not even read.
        has_refresh_token = ExpressionWrapper(Q(refresh_token__isnull=False), BooleanField())
        connections: QuerySet[Any] = super().get_queryset(request).select_related(*self.list_select_related)
        connections = connections.annotate(renewable=has_refresh_token)
        return connections.defer("access_token", "refresh_token", "secret__registration__document")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        counted = dict(Connection.objects.values_list("status").annotate(Count("pk")).order_by())
        counts = [(status, status.label, counted.get(status, 0)) for status in BY_URGENCY]
        context = {"status_counts": counts, "status_chosen": request.GET.get("status__exact")}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    @admin.display(description="status", ordering=URGENCY)
    def status_badge(self, connection: Connection) -> SafeString:
        return status_badge_of(connection.status)

    @admin.display(description="provider")
    def provider(self, connection: Connection) -> str:
        return PROVIDERS[connection.secret.registration.provider].label

    @admin.display(description="provider", ordering="secret__registration__token_host")
    def provider_or_host(self, connection: Connection) -> str:
        registration = connection.secret.registration
        # The host is the only name that a provider without a preset has.
        return registration.token_host if registration.provider == CUSTOM else self.provider(connection)

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
