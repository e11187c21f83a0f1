"""What the pages about connections in the admin are made of: their filters, their history, their badge."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from oauth_app.attention import needs_consent_soon
from oauth_app.models import ClientRegistration, Connection, ConnectionEvent, RevocationJob
from oauth_app.providers import PROVIDERS
from secrets_app.admin import badge


def status_badge_of(status: str) -> SafeString:
    """A connection's status, as a badge."""
    return badge(status, dict(Connection.Status.choices).get(status, status))


class ConsentFilter(admin.SimpleListFilter):
    """Those whose refresh token dies within seven days, so that somebody has to consent before."""

    title = "need of a consent"
    parameter_name = "consent"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("soon", "Needs a consent soon")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(needs_consent_soon()) if self.value() else queryset


class ProviderFilter(admin.SimpleListFilter):
    """By the provider of the client registration."""

    title = "provider"
    parameter_name = "provider"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        # The catalogue is long, and most of it is nobody's here.
        used = set(ClientRegistration.objects.order_by().values_list("provider", flat=True).distinct())
        return [(provider.name, provider.label) for provider in PROVIDERS.values() if provider.name in used]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(secret__registration__provider=self.value()) if self.value() else queryset


class RevocationInline(admin.TabularInline):
    """What became of the tokens that were given up."""

    model = RevocationJob
    verbose_name_plural = "Revocations"
    fields = readonly_fields = ("created_at", "outcome", "failure_code", "attempts", "finished_at")
    extra = 0
    can_delete = False
    show_change_link = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[RevocationJob]:
        return super().get_queryset(request).defer("document")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


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
