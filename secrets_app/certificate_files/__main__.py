"""The process that reads one file: JSON on standard input, JSON on standard output, nothing on the disk, limits on the rest.

In: the arguments of ``read``. Out: ``{"reading": {…}}``, or ``{"unreadable": [field, message]}``.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import warnings
from dataclasses import asdict

from secrets_app.certificate_files.formats import Unreadable
from secrets_app.certificate_files.reading import read

# A file as people have them takes a hundredth; a key of 8,192 bits, and a million rounds of hashing, still fit.
CPU_SECONDS = 5
MEMORY_BYTES = 1 << 30


def main() -> None:
    """Read one file and say what it holds."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # Behind the requests that are served meanwhile.
    os.nice(5)
    # They would say what is odd about the file, to nobody.
    warnings.simplefilter("ignore")
    asked = json.load(sys.stdin.buffer)
    answer: dict[str, object]
    try:
        answer = {"reading": asdict(read(**asked))}
    except Unreadable as err:
        answer = {"unreadable": [err.field, err.message]}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
