"""The Procfile's lines, started as a person would start them by hand: each by a shell, with the environment set."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.house import BASE_DIR, PATIENCE, environment, is_healthy
from tests.support.services import free_port, process


@dataclass(frozen=True)
class Vault:
    """A vault of separate processes. ``env`` is what they run with, for a `manage.py` command beside them."""

    base_url: str
    env: dict[str, str]
    logs: Path

    @property
    def output(self) -> str:
        return "\n".join(f"--- {log.name}\n{log.read_text()}" for log in sorted(self.logs.glob("*.log")))


def lines() -> dict[str, str]:
    """The Procfile's commands by process name."""
    named = (line.partition(": ") for line in (BASE_DIR / "Procfile").read_text().splitlines())
    return {name: command for name, _, command in named}


@contextlib.contextmanager
def running_procfile(directory: Path, env: Mapping[str, str]) -> Iterator[Vault]:
    """Run `release` to its end, then `web`, `worker` and `beat` beside the block, from when `/healthz` answers.

    ``env`` is that of a production machine: `DATABASE_URL`, `REDIS_URL`, the keys. Logs and data go to ``directory``.
    """
    port = int(env.get("PORT") or free_port())
    variables = environment(directory / "data", port, env)
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
    vault = Vault(f"http://localhost:{port}", variables, directory)
    commands = lines()
    released = _run(commands.pop("release"), variables, directory / "release.log")
    assert released == 0, vault.output
    with contextlib.ExitStack() as running:
        for name, command in commands.items():
            log = running.enter_context(open(directory / f"{name}.log", "wb"))
            shell = ["sh", "-c", command]
            running.enter_context(process(shell, cwd=BASE_DIR, env=variables, stdout=log, stderr=log))
        deadline = time.monotonic() + PATIENCE
        while not is_healthy(port):
            assert time.monotonic() < deadline, vault.output
            time.sleep(0.05)
        yield vault


def _run(command: str, env: Mapping[str, str], log: Path) -> int:
    with open(log, "wb") as output:
        return subprocess.run(
            ["sh", "-c", command], cwd=BASE_DIR, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        ).returncode
