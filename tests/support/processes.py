"""Servers that run in a process of their own."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 20
STOP_SECONDS = 5

# The environment's proxies are not for loopback.
_opener = build_opener(ProxyHandler({}))


class ServerProcess:
    """A Python module run as a server on a free port of 127.0.0.1.

    The module prints its base URL, and nothing else, on standard output, and ends when standard input closes: so it
    ends with the process that started it, however that one ends.
    """

    def __init__(self, module: str, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        # Warnings are errors in our tests, not in a server that stands for somebody else's.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**inherited, **(environ or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        try:
            self.base_url = self._first_line()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def get(self, path: str) -> Any:
        with _opener.open(self.base_url + path, timeout=START_SECONDS) as response:
            return json.load(response)

    def post(self, path: str, document: Any) -> Any:
        body = json.dumps(document).encode()
        request = Request(self.base_url + path, body, {"Content-Type": "application/json"})
        with _opener.open(request, timeout=START_SECONDS) as response:
            return json.load(response)

    def stop(self) -> None:
        """End the server; a second call does nothing."""
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _first_line(self) -> str:
        ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        line = self._process.stdout.readline().decode().strip() if ready else ""
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"The server did not start:\n{self._errors.read().decode()}")
        return line
