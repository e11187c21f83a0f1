"""Accounts in the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from billing_app.accounts import plan_changed
from billing_app.models import Account


@admin.register(Account)
class AccountAdmin(admin.ModelAdmin):
    list_display = ("slug", "name", "subscription_plan", "secrets_limit_override", "bare_start_enabled", "created_at")
    list_filter = ("subscription_plan", "bare_start_enabled")
    search_fields = ("slug", "name", "id")
    search_help_text = "By slug, name or id."
    fields = ("id", "slug", "name", "subscription_plan", "secrets_limit_override", "bare_start_enabled", "created_at")
    readonly_fields = ("id", "slug", "created_at")

    def save_model(self, request: HttpRequest, obj: Account, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if "subscription_plan" in form.changed_data:
            plan_changed.send(sender=Account, account=obj, previous=form.initial["subscription_plan"])

    def has_add_permission(self, request: HttpRequest) -> bool:
        # An account without its keys and environments is of no use; `manage.py create_account` makes all of it.
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Deleting an account would leave live grants at its providers with nobody to revoke them.
        return False
