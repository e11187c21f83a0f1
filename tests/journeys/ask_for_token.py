"""Asks for one access token in a process of its own, and prints its generation. Arguments: account id, secret id."""

import os
import sys
import uuid

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "knoxcall.settings")
django.setup()

from oauth_app.tokens import get_access_token  # noqa: E402
from secrets_app.audit import Actor  # noqa: E402
from secrets_app.vault import Scope  # noqa: E402

print("ready", flush=True)
sys.stdin.readline()
scope = Scope(uuid.UUID(sys.argv[1]), "live", Actor("test"))
print(get_access_token(scope, uuid.UUID(sys.argv[2])).generation)
