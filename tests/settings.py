"""The settings that tests run under: the project's own, with a database, keys and a spool of the run's own."""

import os
import tempfile
from pathlib import Path

SCRATCH = Path(os.environ.setdefault("KNOXCALL_TEST_SCRATCH", tempfile.mkdtemp(prefix="kc-test-")))
os.environ["KNOXCALL_DATA_DIR"] = str(SCRATCH / "data")
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
