"""The settings that tests run under: the project's own, with a database, keys and a spool of the run's own.

Workers of pytest-xdist share nothing but the services' processes: each has a directory, and a database on every service.
"""

import os
import tempfile
from pathlib import Path

from tests.support.workers import WORKER, own_redis_databases, with_redis_database

if "KNOXCALL_TEST_SCRATCH" not in os.environ:
    os.environ["KNOXCALL_TEST_SCRATCH"] = tempfile.mkdtemp(prefix="kc-test-")
# The workers' directories lie in that of the run, which ends last.
SCRATCH = Path(os.environ["KNOXCALL_TEST_SCRATCH"]) / WORKER
os.environ["KNOXCALL_DATA_DIR"] = str(SCRATCH / "data")
if os.environ.get("REDIS_URL"):
    os.environ["REDIS_URL"] = with_redis_database(os.environ["REDIS_URL"], own_redis_databases()[0])
os.environ.setdefault("KNOXCALL_OUTBOUND_ALLOW", "127.0.0.0/8,::1/128")
os.environ.pop("KNOXCALL_BASE_URL", None)

if os.environ.get("DATABASE_URL"):
    os.environ.setdefault("KNOXCALL_MASTER_KEYS", "test:" + "a2V5IGZvciB0ZXN0cyBvbmx5LCAzMiBieXRlcyBsb24=")
    os.environ.setdefault("SECRET_KEY", "for tests only, " * 4)

from knoxcall.settings import *  # noqa: E402, F403
from knoxcall.settings import DATABASES, EMBEDDED  # noqa: E402

if EMBEDDED:
    # A file, not memory: threads and processes race on it as they do in real life.
    DATABASES["default"]["TEST"] = {"NAME": str(SCRATCH / "test.sqlite3")}
    DATABASES["default"]["OPTIONS"]["init_command"] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"
# Otherwise every test client walks through all static files before its first request.
WHITENOISE_AUTOREFRESH = True
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
