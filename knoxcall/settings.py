"""One settings file for every way to run the vault. Everything comes from the environment; `.env.example` lists it all.

With nothing configured this is the embedded default: SQLite in `KNOXCALL_DATA_DIR`, a Valkey on a socket there, keys made on
the first start. A `DATABASE_URL` that is not SQLite makes it production: there is no other switch.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import secrets
import tempfile
from pathlib import Path
from urllib.parse import quote, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from knoxcall.embedded import new_master_keys, read_or_create_key_file

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
if (BASE_DIR / ".env").exists():
    env.read_env(BASE_DIR / ".env")

# --- Where it lives ------------------------------------------------------------------------------------------------------

PORT: int = env.int("PORT", default=8000)
DATA_DIR = Path(env.str("KNOXCALL_DATA_DIR", default="var"))
if not DATA_DIR.is_absolute():
    DATA_DIR = BASE_DIR / DATA_DIR
SPOOL_DIR = DATA_DIR / "spool"

# The public origin. Redirect URIs are built from it, so it must be what browsers and providers see: in lower case, and without
# the usual port.
KNOXCALL_BASE_URL: str = env.str("KNOXCALL_BASE_URL", default=f"http://localhost:{PORT}").rstrip("/").lower()
_base = urlsplit(KNOXCALL_BASE_URL)
if (
    _base.scheme not in ("http", "https")
    or not _base.hostname
    or _base.path
    or _base.query
    or _base.fragment
    or "@" in _base.netloc
):
    raise ImproperlyConfigured("KNOXCALL_BASE_URL must be an origin such as https://vault.example.com")
KNOXCALL_BASE_URL = KNOXCALL_BASE_URL.removesuffix({"http": ":80", "https": ":443"}[_base.scheme])
# Plain http is for trying things out on one machine; anywhere else the deploy check refuses it.
PLAIN_HTTP = _base.scheme == "http"

# --- Database ------------------------------------------------------------------------------------------------------------

DATABASE_URL: str = env.str("DATABASE_URL", default="") or f"sqlite:///{quote(str(DATA_DIR / 'knoxcall.sqlite3'))}"
EMBEDDED = DATABASE_URL.startswith("sqlite:")
_database = env.db_url_config(DATABASE_URL)
if EMBEDDED:
    if _database["NAME"] != ":memory:":
        Path(_database["NAME"]).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _database["OPTIONS"] = {
        # Deferred transactions fail at once when two of them read and then write; an immediate one waits its turn.
        "transaction_mode": "IMMEDIATE",
        "timeout": 10,
        # FULL survives a power cut: a rotated refresh token exists nowhere else.
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-16384;",
    }
    _database["CONN_MAX_AGE"] = None
else:
    _database["CONN_HEALTH_CHECKS"] = True
    _database["OPTIONS"] = {
        **_database.get("OPTIONS", {}),
        # Waiting callers hold no connection, so a small pool serves many threads. 3 s, because a request may last 25 s. After
        # 2 s the pool gives up a connection that cannot be made, and begins anew with whoever asks next; left to itself it
        # tries ever less often, and notices a database that is back up to a minute too late.
        "pool": {
            "min_size": 1,
            "max_size": env.int("KNOXCALL_DB_POOL_SIZE", default=10),
            "timeout": 3,
            "reconnect_timeout": 2,
        },
        "connect_timeout": 3,
        # Milliseconds: a database that vanished from the network, or a lock that somebody sits on, is an error in time.
        "tcp_user_timeout": 10_000,
        "options": "-c lock_timeout=10000",
    }
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Broker and shared counters ------------------------------------------------------------------------------------------


def _valkey_socket() -> Path:
    """Where the Valkey of `make run` listens: in the data directory, if that leaves room for the name of a socket."""
    path = DATA_DIR / "run" / "valkey.sock"
    # The kernel's limit: 108 bytes on Linux, 104 on macOS, with the zero at the end.
    if len(os.fsencode(path)) < 104:
        return path
    name = hashlib.sha256(os.fsencode(DATA_DIR)).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"knoxcall-{os.getuid()}-{name}", "valkey.sock")


REDIS_URL: str = env.str("REDIS_URL", default="")
# None when a broker is given: then `make run` starts none of its own.
VALKEY_SOCKET = None if REDIS_URL else _valkey_socket()
if VALKEY_SOCKET:
    REDIS_URL = f"unix://{quote(str(VALKEY_SOCKET))}"

# --- Keys ----------------------------------------------------------------------------------------------------------------


def _master_keys() -> str:
    if given := env.str("KNOXCALL_MASTER_KEYS", default=""):
        return str(given)
    if named := env.str("KNOXCALL_MASTER_KEYS_FILE", default=""):
        try:
            return Path(named).read_text()
        except OSError as err:
            raise ImproperlyConfigured(f"KNOXCALL_MASTER_KEYS_FILE cannot be read: {err.strerror}") from None
    if EMBEDDED:
        database = Path(str(_database["NAME"]))
        return read_or_create_key_file(DATA_DIR / "keys" / "master_keys", content=new_master_keys(), guards=database)
    raise ImproperlyConfigured(
        "KNOXCALL_MASTER_KEYS (or KNOXCALL_MASTER_KEYS_FILE) is required with this DATABASE_URL. "
        "Make one: python -c 'import base64,secrets; print(\"k1:\" + base64.b64encode(secrets.token_bytes(32)).decode())'"
    )


def _secret_key() -> str:
    if given := env.str("SECRET_KEY", default=""):
        return str(given)
    if EMBEDDED:
        # Protects sessions only, so losing it is no loss: nothing guards it.
        return read_or_create_key_file(
            DATA_DIR / "keys" / "secret_key", content=secrets.token_urlsafe(64), guards=Path("/nonexistent")
        )
    raise ImproperlyConfigured("SECRET_KEY is required with this DATABASE_URL: 50 random characters or more.")


# Root keys, `id:base64` pairs, newest first. Only secrets_app.crypto reads this.
KNOXCALL_MASTER_KEYS = _master_keys()
SECRET_KEY = _secret_key()

# --- The outside ---------------------------------------------------------------------------------------------------------


def _networks(name: str, default: list[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    try:
        return [ipaddress.ip_network(value.strip()) for value in env.list(name, default=default) if value.strip()]
    except ValueError as err:
        raise ImproperlyConfigured(
            f"{name}: {err}. It takes networks separated by commas, such as 10.20.0.0/16."
        ) from None


# Networks exempt from the outbound address filter, where plain http is allowed too.
KNOXCALL_OUTBOUND_ALLOW = _networks("KNOXCALL_OUTBOUND_ALLOW", [])
# A PEM file of further CAs, for providers with a private one.
KNOXCALL_OUTBOUND_CA_BUNDLE: str = env.str("KNOXCALL_OUTBOUND_CA_BUNDLE", default="")
# Where plain http may go is decided by the outbound client; oauthlib knows no exempt networks and would refuse them all.
if KNOXCALL_OUTBOUND_ALLOW:
    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
# Calls that may be under way at one token host, from all workers and web processes together.
KNOXCALL_HOST_CALLS: int = env.int("KNOXCALL_HOST_CALLS", default=128)
if KNOXCALL_HOST_CALLS < 1:
    raise ImproperlyConfigured("KNOXCALL_HOST_CALLS must be at least 1.")
# Reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.
KNOXCALL_TRUSTED_PROXIES = _networks("KNOXCALL_TRUSTED_PROXIES", ["127.0.0.0/8", "::1/128"])

# --- Web -----------------------------------------------------------------------------------------------------------------

DEBUG = False
ALLOWED_HOSTS = [_base.hostname]
if PLAIN_HTTP:
    ALLOWED_HOSTS += ["localhost", "127.0.0.1", "[::1]"]
ROOT_URLCONF = "knoxcall.urls"
WSGI_APPLICATION = "knoxcall.wsgi.application"
# A slash redirect would turn a POST into a GET; an address that is wrong is a 404.
APPEND_SLASH = False

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "knoxcall",
    "billing_app",
    "secrets_app",
    "oauth_app",
]
MIDDLEWARE = [
    "knoxcall.middleware.RequestContextMiddleware",
    "knoxcall.health.HealthMiddleware",
    "knoxcall.middleware.TrustedProxyMiddleware",
    "knoxcall.middleware.ApiMiddleware",
    "knoxcall.middleware.FormMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "knoxcall.middleware.ContentSecurityPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
WHITENOISE_MAX_AGE = 3600

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
LANGUAGE_CODE = "en-us"
USE_I18N = False
FORMAT_MODULE_PATH = "knoxcall.formats"
USE_TZ = True
TIME_ZONE = "UTC"

SECURE_SSL_REDIRECT = not PLAIN_HTTP
# Never a redirect under /v1: a client that followed one would have sent its key in the clear already.
SECURE_REDIRECT_EXEMPT = [r"^v1(/|$)"]
SECURE_HSTS_SECONDS = 0 if PLAIN_HTTP else 31_536_000
SECURE_HSTS_INCLUDE_SUBDOMAINS = False
# Whoever owns the domain above the vault decides about its siblings, and about preloading.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
if PLAIN_HTTP:
    # knoxcall.E001 lets plain http through on this machine's own addresses, and nowhere else.
    SILENCED_SYSTEM_CHECKS += ["security.W004", "security.W008", "security.W012", "security.W016"]
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not PLAIN_HTTP
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 12 * 3600
SESSION_EXPIRE_AT_BROWSER_CLOSE = True
X_FRAME_OPTIONS = "DENY"
CSRF_TRUSTED_ORIGINS = [KNOXCALL_BASE_URL]

# Request bodies, in bytes; the middleware answers a larger one with 413 before anything reads it.
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 2000

# --- REST ----------------------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["secrets_app.api.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["knoxcall.api.permissions.HasPermission"],
    "DEFAULT_PARSER_CLASSES": ["knoxcall.api.parsing.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "knoxcall.api.parsing.AlwaysJSON",
    "EXCEPTION_HANDLER": "knoxcall.api.errors.handle_exception",
    "DEFAULT_SCHEMA_CLASS": "knoxcall.api.schema.VaultSchema",
    "DEFAULT_METADATA_CLASS": None,
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "KnoxCall token vault",
    "DESCRIPTION": "Secrets, and OAuth2 access tokens that are always live.",
    "VERSION": "2026-08-05",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/v1",
    "PREPROCESSING_HOOKS": ["knoxcall.api.schema.without_closing_slash"],
    "COMPONENT_SPLIT_REQUEST": True,
}
# Upward wiring, by dotted name: the ground imports no app.
KNOXCALL_IDEMPOTENCY = "secrets_app.idempotency.Ledger"
KNOXCALL_WEB_STARTS = "oauth_app.storing.adopt_in_background"

# --- Celery --------------------------------------------------------------------------------------------------------------

CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1)
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# After a worker is killed its messages come back within seconds instead of an hour.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 60,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = {
    # A message lives as long as its interval, so a dead worker leaves no heap of them.
    "sweep": {"task": "oauth_app.tasks.sweep", "schedule": 1.0, "options": {"expires": 1.0}},
    "revoke": {"task": "oauth_app.tasks.revoke", "schedule": 2.0, "options": {"expires": 2.0}},
    "prune-vault": {"task": "secrets_app.tasks.prune", "schedule": 3600.0, "options": {"expires": 3600.0}},
    "prune-consents": {"task": "oauth_app.tasks.prune", "schedule": 600.0, "options": {"expires": 600.0}},
    "refetch-issuers": {"task": "oauth_app.tasks.refetch_issuers", "schedule": 3600.0, "options": {"expires": 3600.0}},
}

# --- Logging -------------------------------------------------------------------------------------------------------------

LOG_LEVEL: str = env.str("KNOXCALL_LOG_LEVEL", default="INFO").upper()
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "knoxcall.logging.LineFormatter"}},
    "filters": {"has_traceback": {"()": "knoxcall.logging.HasTraceback"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    # These write requests, tokens or message bodies at DEBUG. Their warnings are welcome.
    "loggers": {
        **{
            name: {"level": "WARNING"}
            for name in (
                "requests_oauthlib",
                "oauthlib",
                "urllib3",
                "asyncio",
                "celery.beat",
                "celery.app.trace",
                "celery.worker.strategy",
                "kombu",
                "redis",
                "psycopg",
                "django.db.backends",
                "django.template",
            )
        },
        # It tells of every connection that an outage costs. The outage itself has its lines.
        "psycopg.pool": {"level": "ERROR"},
        # Anyone can send a wrong Host; the answer is a 400 with its own line.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        "django.server": {"handlers": [], "propagate": True},
        # A refused request has its line already; what is left is a traceback.
        "django.request": {"filters": ["has_traceback"], "handlers": [], "propagate": True},
        "django": {"handlers": [], "propagate": True},
    },
}
