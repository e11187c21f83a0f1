"""Requests are UTF-8, whatever charset they name. Django would look the name up, and some codecs are none of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

_CHARSET = re.compile(r";\s*charset\s*=[^;]*", re.IGNORECASE)


def in_utf8(application: Application) -> Application:
    """Take the charset off `Content-Type` before Django sees it: `charset=zlib` breaks it outside of any error handling.

    JSON has one encoding (RFC 8259 §8.1), and our forms are sent in it.
    """

    def named(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if "charset" in environ.get("CONTENT_TYPE", "").lower():
            environ["CONTENT_TYPE"] = _CHARSET.sub("", environ["CONTENT_TYPE"])
        return application(environ, start_response)

    return named
