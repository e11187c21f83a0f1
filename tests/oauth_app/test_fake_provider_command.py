"""`manage.py fake_provider`: its options, what it prints, and docs/fake_provider.md, done."""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shlex
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.core.management import CommandError, call_command

from oauth_app import fake_provider
from oauth_app.fake_provider import FakeProvider
from oauth_app.fake_provider.behaviour import SWITCHES
from oauth_app.fake_provider.guide import catalogue, on_start
from oauth_app.fake_provider.options import add_options, switches
from oauth_app.fake_provider.shapes import SHAPES
from oauth_app.management.certificates import find_certificates, make_certificates
from tests.support.house import BASE_DIR

PAGE = BASE_DIR / "docs" / "fake_provider.md"
PRINTED_PROVIDER = "http://127.0.0.1:9000"


def said(*options: str) -> str:
    out = StringIO()
    call_command("fake_provider", *options, stdout=out)
    return out.getvalue()


def meant_by(*options: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_options(parser, port=0)
    return switches(vars(parser.parse_args(options)))


# Options.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {}),
        (("--expires-in", "8", "--milliseconds"), {"expires_in": 8, "lifetimes_in_milliseconds": True}),
        (("--no-expiry",), {"omit": ["expires_in"]}),
        (("--rotate", "--reuse-grace", "2.5"), {"refresh_tokens": "rotated", "reuse_grace": 2.5}),
        (("--no-rotate", "--delay", "3"), {"refresh_tokens": "kept", "delay": 3}),
        (("--require-client-certificate",), {"requires_client_certificate": True}),
        # Text is text where text is taken, and JSON elsewhere.
        (("--set", "client_secret=123", "--set", "expires_in=123"), {"client_secret": "123", "expires_in": 123}),
        (("--set", "client_secret=null", "--set", "token_type=MAC"), {"client_secret": None, "token_type": "MAC"}),
        # The nearer to the operator, the stronger.
        (("--shape", "google"), dict(SHAPES["google"].switches)),
        (("--delay", "3", "--set", "delay=4"), {"delay": 4}),
    ],
)
def test_options_mean_switches(options: tuple[str, ...], expected: dict[str, Any]) -> None:
    assert meant_by(*options) == expected


def test_an_option_is_stronger_than_the_shape() -> None:
    chosen = meant_by("--shape", "salesforce", "--expires-in", "60", "--no-rotate")
    assert (chosen["expires_in"], chosen["omit"], chosen["refresh_tokens"]) == (60, [], "kept")


@pytest.mark.parametrize(
    ("options", "status", "headers", "held"),
    [
        (("--status", "429", "--retry-after", "30"), 429, {"Retry-After": "30"}, False),
        (("--html-502",), 502, {}, False),
        (("--hang",), None, {}, True),
    ],
)
def test_a_fault_can_stand_from_the_start(
    options: tuple[str, ...], status: int | None, headers: dict[str, str], held: bool
) -> None:
    answer = meant_by(*options)["answer"]
    assert (answer.status, answer.headers, answer.held) == (status, headers, held)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--set", "speed=3"), "No such switch: speed."),
        (("--set", "delay"), "--set takes NAME=VALUE"),
        (("--set", "delay=soon"), "delay must be a number of seconds, 0 or more."),
        (("--retry-after", "30"), "--retry-after goes with --status"),
        (("--tls-key", "key.pem"), "--tls-key and --client-ca need --tls-cert."),
        (("--require-client-certificate", "--tls-cert", "x.pem"), "--require-client-certificate needs"),
        (("--certificates", "x", "--tls-cert", "x.pem"), "give one of them"),
        (("--tls-cert", "/nonexistent.pem"), "The certificates cannot be used: No such file"),
        (("--tls-cert", "manage.py"), "The certificates cannot be used: "),
        (("--host", "192.0.2.1"), "cannot listen on 192.0.2.1 port 0: "),
        (("--port", "70000"), "port must be 0-65535"),
    ],
)
def test_what_cannot_be_done_is_said(options: tuple[str, ...], expected: str) -> None:
    with pytest.raises(CommandError, match=re.escape(expected)):
        said("--port", "0", *options)


def test_a_port_in_use_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            CommandError, match=rf"cannot listen on 127.0.0.1 port {port}: Address already in use"
        ) as err:
            said("--port", str(port))
    assert err.value.returncode == 1


@pytest.mark.parametrize(("host", "is_warned"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_whoever_opens_it_to_others_is_warned(monkeypatch: pytest.MonkeyPatch, host: str, is_warned: bool) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(signal, "pause", interrupted)
    out, err = StringIO(), StringIO()
    call_command("fake_provider", "--host", host, "--port", "0", stdout=out, stderr=err)
    assert ("Whoever reaches 0.0.0.0 can use this provider." in err.getvalue()) is is_warned
    assert "is listening: http://127.0.0.1:" in out.getvalue()


# What it prints.


def test_every_shape_and_switch_is_listed() -> None:
    listed = said("--list")
    for name, entry in {**SHAPES, **SWITCHES}.items():
        assert f"  {name}" in listed
        assert entry.doc in listed


def test_the_list_is_for_machines_too() -> None:
    listed = json.loads(said("--list", "--json"))
    assert set(listed["shapes"]) == set(SHAPES)
    assert listed["shapes"]["slack"]["switches"]["expires_in"] == 43_200
    assert set(listed["switches"]) == set(SWITCHES)
    delay = listed["switches"]["delay"]
    assert (delay["takes"], delay["default"]) == ("a number of seconds, 0 or more", 0)


def test_what_is_printed_at_the_start_can_be_pasted(http: requests.Session) -> None:
    with FakeProvider(client_secret="it's") as provider:
        text = on_start(provider, None, vault="http://localhost:8000")
        commands = re.findall(r"^    (curl .*?[^\\])$", text, re.MULTILINE | re.DOTALL)
        secret = shlex.split(commands[0])
        assert secret[1] == "http://localhost:8000/v1/secrets/oauth2"
        assert json.loads(secret[-1])["client_secret"] == "it's"
        orders = [shlex.split(command) for command in commands if "/_control" in command]
        assert len(orders) == 3
        for order in orders:
            assert http.post(order[1], order[-1].encode(), timeout=5).json() == {"ok": True}


# Certificates.


def test_certificates_are_made_once_for_one_host_and_for_their_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "certificates"
    assert find_certificates(directory, host="127.0.0.1") is None
    made = make_certificates(directory, host="127.0.0.1")

    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert find_certificates(directory, host="127.0.0.1") == made
    assert find_certificates(directory, host="10.0.0.1") is None

    upload = json.loads(made.upload.read_text())
    certificate = x509.load_pem_x509_certificate(upload["certificate_content"].encode())
    key = load_pem_private_key(upload["private_key"].encode(), None)
    assert key.public_key() == certificate.public_key()
    # Nobody can sign a further one.
    assert "PRIVATE KEY" not in made.authority.read_text()


# The package stands alone.


def test_the_package_uses_the_standard_library_only() -> None:
    for path in Path(fake_provider.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                named.append(node.module or "")
            assert {name.partition(".")[0] for name in named} <= sys.stdlib_module_names, path.name


# As operators run it.


class Rehearsal:
    """A running `manage.py fake_provider`, and the lines that it has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.base_url = self.read_until("is listening").rpartition(" ")[2]
        self.read_until("Ctrl-C")

    def read_until(self, part: str) -> str:
        """The next line that has ``part``."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if part in line:
                return self.lines[-1]
        raise AssertionError(f"{part!r} was never printed:\n" + "\n".join(self.lines))


@contextmanager
def rehearsing(data_dir: Path, *options: str) -> Iterator[Rehearsal]:
    """The command in an environment with nothing configured; at the end it must go in good order."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
    process = subprocess.Popen(
        [sys.executable, "manage.py", "fake_provider", "--port", "0", *options],
        cwd=BASE_DIR,
        env={**kept, "KNOXCALL_DATA_DIR": str(data_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with ExitStack() as stack:
        stack.enter_context(process)
        stack.callback(process.kill)
        yield Rehearsal(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def shell_blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_page_can_be_followed(tmp_path: Path) -> None:
    """Every `sh` block of the page in turn, with what each is said to do."""
    with rehearsing(tmp_path, "--print-requests") as rehearsal:
        assert not list(tmp_path.glob("*.sqlite3"))
        variables = {"PATH": os.environ["PATH"], "NO_PROXY": "*"}

        def paste(command: str) -> str:
            command = command.replace(PRINTED_PROVIDER, rehearsal.base_url)
            ran = subprocess.run(
                ["sh", "-c", command.replace("curl ", "curl --silent --show-error ", 1)],
                env=variables,
                capture_output=True,
                text=True,
                timeout=30,
            )
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        def redirected(out: str) -> None:
            variables["CODE"] = re.search(r"code=(fake-code-[\w-]+)", out)[1]

        def issued(out: str) -> None:
            tokens = json.loads(out)
            assert tokens["expires_in"] == 3600
            variables["REFRESH_TOKEN"] = tokens["refresh_token"]

        def accepted(out: str) -> None:
            assert json.loads(out) == {"ok": True}

        def refused(out: str) -> None:
            assert out.startswith("HTTP/1.1 429")
            assert "\nRetry-After: 30" in out

        def ended(out: str) -> None:
            assert json.loads(out)["error"] == "invalid_grant"

        def logged(out: str) -> None:
            log = json.loads(out)
            assert (log["issued"], log["refreshes"], log["received"]) == (2, 1, 4)

        steps: list[Callable[[str], None]] = [
            redirected, issued, accepted, refused, issued, accepted, ended, logged, accepted
        ]  # fmt: skip
        blocks = shell_blocks()
        assert len(blocks) == len(steps)
        for block, check in zip(blocks, steps, strict=True):
            check(paste(block))
        rehearsal.read_until("invalid_grant")
        printed = "\n".join(rehearsal.lines)
    assert "token refresh_token fake-client replaced, status 429" in printed
    assert "token authorization_code fake-client issued, status 200" in printed
    assert variables["CODE"] not in printed
    assert variables["REFRESH_TOKEN"] not in printed


def test_it_asks_for_the_certificate_that_it_made(tmp_path: Path) -> None:
    directory = tmp_path / "fake_provider"
    with (
        rehearsing(tmp_path, "--require-client-certificate", "--shape", "slack") as rehearsal,
        requests.Session() as http,
    ):
        http.trust_env = False
        assert f"-d @{directory}/client.json" in "\n".join(rehearsal.lines)
        context = ssl.create_default_context(cafile=directory / "ca.pem")
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        port = int(rehearsal.base_url.rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            assert connection.getpeercert()

        form = {"grant_type": "client_credentials", "client_id": "fake-client"}
        call = {"data": form, "verify": str(directory / "ca.pem"), "timeout": 5}
        without = http.post(f"{rehearsal.base_url}/token", **call)
        assert without.json()["error"] == "bad_client_secret"
        http.close()
        answer = http.post(f"{rehearsal.base_url}/token", cert=str(directory / "client.pem"), **call)
        assert answer.json()["ok"] is True


def test_every_shape_switch_and_option_has_its_line_on_the_page() -> None:
    page = PAGE.read_text()
    rows = [f"| `{name}` | {shape.doc} |" for name, shape in SHAPES.items()]
    for name, entry in catalogue()["switches"].items():
        rows.append(f"| `{name}` | {entry['doc']} | `{json.dumps(entry['default'])}` |")
    assert [row for row in rows if row not in page.splitlines()] == []
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser, port=0)
    assert [option for option in parser._option_string_actions if option not in page] == []
