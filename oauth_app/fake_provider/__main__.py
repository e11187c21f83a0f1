"""The provider as a process: prints its base URL, serves until it is told to stop."""

import argparse
import signal
import sys

from .options import add_options, ssl_context, switches
from .provider import FakeProvider


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, port=0)
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="end with the process that started this one, however it ends"
    )
    options = vars(parser.parse_args())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell without job control starts what it puts in the background with this one ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        provider = FakeProvider(
            host=options["host"], port=options["port"], ssl_context=ssl_context(options), **switches(options)
        )
    except (ValueError, OSError) as err:
        parser.error(str(err))
    try:
        with provider:
            print(provider.base_url, flush=True)
            if options["until_stdin_closes"]:
                sys.stdin.read()
            else:
                signal.pause()
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
