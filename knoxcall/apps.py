"""The ground as a Django app: it brings system checks and static files, and no models."""

from django.apps import AppConfig


class KnoxCallConfig(AppConfig):
    name = "knoxcall"
    verbose_name = "KnoxCall"

    def ready(self) -> None:
        from knoxcall import checks  # noqa: F401  registers itself
