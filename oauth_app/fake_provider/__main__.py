"""The provider as a process: prints its base URL, serves until it is told to stop."""

import argparse
import contextlib
import json
import signal
import sys

from . import control
from .provider import FakeProvider


def _switch(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        type=_switch,
        action="append",
        default=[],
        help="a switch, in JSON or as text",
    )
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="end with the process that started this one, however it ends"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with FakeProvider(host=options.host, port=options.port) as provider, contextlib.suppress(KeyboardInterrupt):
        control.switch(provider, dict(options.set))
        print(provider.base_url, flush=True)
        if options.until_stdin_closes:
            sys.stdin.read()
        else:
            signal.pause()


if __name__ == "__main__":
    main()
