"""What README.md and docs/ say, done: every `curl` is run and answers as printed, every path and link leads somewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oauth_app.fake_provider import FakeProvider
from tests.support.browser import Browser
from tests.support.certificates import issue
from tests.support.house import BASE_DIR
from tests.support.vaults import Vault

PRINTED_BASE = "http://localhost:8000"
PRINTED_PROVIDER = "http://127.0.0.1:9000"
PAGES = [BASE_DIR / "README.md", *sorted((BASE_DIR / "docs").glob("*.md"))]
# Different every time. Where the page prints null, the answer must be null, too.
VOLATILE = {
    *("id", "created_at", "updated_at", "request_id", "redirect_uri", "access_token", "expires_at", "expires_in"),
    *("authorize_url", "connected_at", "token_expires_at", "last_refresh_at", "next_refresh_at"),
    *("fingerprint_sha256", "serial_number", "revocation"),
}

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


class Shell:
    """A newcomer's shell: pastes what a page prints, and keeps the id of the secret that was made last."""

    def __init__(self, vault: Vault, provider: FakeProvider) -> None:
        self.vault = vault
        self.provider = provider
        self.secret: dict[str, Any] = {}
        self.link = ""
        self.directory = BASE_DIR

    def paste(self, command: str) -> Any:
        command = command.replace(PRINTED_BASE, self.vault.base_url)
        command = command.replace(PRINTED_PROVIDER, self.provider.base_url)
        ran = subprocess.run(
            ["sh", "-c", command.replace("curl ", "curl --silent --show-error ", 1)],
            env={
                "PATH": os.environ["PATH"],
                "KEY": self.vault.api_key,
                "SECRET_ID": self.secret.get("id", ""),
                "NO_PROXY": "*",
            },
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stderr
        answer = json.loads(ran.stdout)
        data = answer.get("data", {})
        if "redirect_uri" in data:
            self.secret = data
        self.link = data.get("authorize_url", self.link)
        return answer

    def consent(self) -> None:
        """Open the redirect URI of the last secret, as a person would; the provider says yes at once."""
        page = Browser().open(self.secret["redirect_uri"])
        assert page.status == 200, page.text

    def follow_link(self) -> None:
        """Open the last consent link, as the person would that it was sent to."""
        page = Browser().open(self.link)
        assert page.status == 200, page.text

    def make_certificate(self) -> None:
        """What the page has openssl do: a certificate that its own key has signed, as two files."""
        issued = issue("the-client")
        (self.directory / "client.crt").write_text(issued.pem)
        (self.directory / "client.key").write_text(issued.key_pem())


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """The provider that the pages speak of: its client, its person, and tokens of eight hours."""
    with FakeProvider(
        client_id="the-client", client_secret="its-secret", username="ada", password="her-password", expires_in=28_800
    ) as fake:
        yield fake


@pytest.fixture
def shell(vault: Vault, provider: FakeProvider) -> Shell:
    return Shell(vault, provider)


def calls_of(page: Path) -> list[tuple[str, Any]]:
    """Every `curl` on ``page``, with the answer printed after it."""
    blocks = BLOCK.findall(page.read_text())
    calls = []
    for number, (language, text) in enumerate(blocks):
        if language == "sh" and text.startswith("curl "):
            following, answer = blocks[number + 1] if number + 1 < len(blocks) else ("", "")
            assert following == "json", f"no answer is printed after:\n{text}"
            calls.append((text, json.loads(answer)))
    return calls


def assert_alike(printed: Any, got: Any, at: str = "") -> None:
    """The same keys at every level, and the same values but for the volatile ones."""
    if isinstance(printed, dict):
        assert isinstance(got, dict), at
        assert list(printed) == list(got), at
        for name, value in printed.items():
            if name in VOLATILE:
                assert type(value) is type(got[name]), f"{at}.{name}"
            else:
                assert_alike(value, got[name], f"{at}.{name}")
    else:
        assert printed == got, at


def run_through(page: Path, shell: Shell, meanwhile: dict[int, Callable[[], None]]) -> int:
    """Paste the calls of ``page`` one after the other; before call number n do ``meanwhile[n]``. Returns how many ran."""
    calls = calls_of(page)
    for number, (command, printed) in enumerate(calls, start=1):
        meanwhile.get(number, lambda: None)()
        got = shell.paste(command)
        assert_alike(printed, got, page.name)
        if "redirect_uri" in printed.get("data", {}):
            for base, secret in ((PRINTED_BASE, printed["data"]), (shell.vault.base_url, got["data"])):
                assert secret["redirect_uri"] == f"{base}/auth/oauth2/callback/{secret['id']}"
    return len(calls)


def test_the_readme_answers_as_printed(shell: Shell) -> None:
    def connect_at_a_provider_that_is_not_github() -> None:
        provider = shell.provider
        shell.secret = shell.vault.create_oauth2(
            name="as on the readme",
            provider="custom",
            client_id=provider.client_id,
            client_secret=provider.client_secret,
            auth_url=provider.authorize_url,
            token_url=provider.token_url,
            scopes=["read:user", "user:email"],
        )
        shell.consent()

    assert run_through(BASE_DIR / "README.md", shell, {2: connect_at_a_provider_that_is_not_github}) == 2


def test_the_grants_answer_as_printed(shell: Shell, tmp_path: Path) -> None:
    shell.directory = tmp_path
    meanwhile = {3: shell.consent, 10: shell.make_certificate}
    assert run_through(BASE_DIR / "docs" / "grants.md", shell, meanwhile) == 10


def test_a_connections_life_is_as_printed(shell: Shell) -> None:
    assert run_through(BASE_DIR / "docs" / "connections.md", shell, {3: shell.follow_link}) == 7


def test_the_two_commands_exist() -> None:
    commands = re.findall(r"^    make (\w+)", (BASE_DIR / "README.md").read_text(), re.MULTILINE)
    assert commands == ["run", "test"]
    targets = re.findall(r"^(\w+):", (BASE_DIR / "Makefile").read_text(), re.MULTILINE)
    assert set(commands) <= set(targets)


def test_every_path_of_the_map_exists() -> None:
    maps = [text for language, text in BLOCK.findall((BASE_DIR / "README.md").read_text()) if language == "text"]
    paths = [line.split()[0] for line in "".join(maps).splitlines()]
    assert "oauth_app/" in paths
    for path in paths:
        assert (BASE_DIR / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    for name in re.findall(r"`((?:tests|knoxcall|billing_app|secrets_app|oauth_app|docs)/[\w/.]+)`", page.read_text()):
        assert (BASE_DIR / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_is_named_exists(page: Path) -> None:
    """A test is named behind a link to the file that it is in."""
    text = page.read_text()
    found = re.findall(r"\]\(([\w/.]+\.py)\):((?:[\s,]+`test_\w+`)+)", text)
    assert sum(names.count("`test_") for _, names in found) == len(re.findall(r"`test_\w+`", text))
    for path, names in found:
        source = (page.parent / path).read_text()
        for name in re.findall(r"test_\w+", names):
            assert f"def {name}(" in source, f"{path}: {name}"


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
