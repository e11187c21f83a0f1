"""Accounts and plans as a Django app."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "billing_app"
    verbose_name = "Accounts and plans"
