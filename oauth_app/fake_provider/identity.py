"""Identity tokens: a JSON Web Token in its shortest form (RFC 7519)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any


def signed(claims: Mapping[str, Any], key: str | None) -> str:
    """The claims as a JWT: HS256 under ``key``, and unsigned (`alg` is `none`) without one."""
    header = {"alg": "none" if key is None else "HS256", "typ": "JWT"}
    body = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
    if key is None:
        return f"{body}."
    return f"{body}.{_encoded(hmac.digest(key.encode(), body.encode(), hashlib.sha256))}"


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
