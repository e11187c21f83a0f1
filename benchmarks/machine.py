"""The machine that was measured on, in words: figures without it mean nothing."""

from __future__ import annotations

import os
import platform
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import django
import psycopg


def machine(postgresql_url: str | None) -> dict[str, str]:
    """What a reader has to know, by label. ``postgresql_url`` is a server to ask for its version."""
    database = f"SQLite {sqlite3.sqlite_version}"
    if postgresql_url is not None:
        with psycopg.connect(postgresql_url) as connection:
            database += f", PostgreSQL {connection.info.parameter_status('server_version')}"
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "processor": f"{_processor()}, {_usable_cpus()} CPUs",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_version()}, Django {django.get_version()}",
        "databases": database,
        # Load of others before we begin: above a few tenths the figures are of a busy machine.
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
