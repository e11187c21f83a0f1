"""Asks for access tokens in a process of its own. Argument: the account's id.

Every line of standard input is the id of a secret; its answer is one line of JSON: what came, and after how many seconds.
"""

import json
import os
import sys
import time
import uuid

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "knoxcall.settings")
django.setup()

from knoxcall.api.errors import ApiError  # noqa: E402
from oauth_app.tokens import get_access_token  # noqa: E402
from secrets_app.audit import Actor  # noqa: E402
from secrets_app.vault import Scope  # noqa: E402

scope = Scope(uuid.UUID(sys.argv[1]), "live", Actor("test"))
print("ready", flush=True)
for line in sys.stdin:
    begun = time.monotonic()
    try:
        answer = {"generation": get_access_token(scope, uuid.UUID(line.strip())).generation}
    except ApiError as err:
        answer = {"error": type(err).__name__}
    print(json.dumps({**answer, "seconds": time.monotonic() - begun}), flush=True)
