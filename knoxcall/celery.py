"""The Celery application: it carries ids and never a value, and its beat only says when."""

import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "knoxcall.settings")

app = Celery("knoxcall")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["secrets_app", "oauth_app"])


@setup_logging.connect
def keep_our_logging(**_: Any) -> None:
    """Being connected is enough: Celery then leaves Django's LOGGING alone, which keeps task messages out of the log."""


@worker_init.connect
def refuse_unsafe_worker(**_: Any) -> None:
    """Hold the worker to the same deploy checks as the web process."""
    from knoxcall.checks import refuse_unsafe_settings

    refuse_unsafe_settings()
