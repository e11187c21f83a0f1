"""The browser that tests use: it hears what pages complain of, opens this machine only, and is missed where it is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model

from tests.support.chromium import find_chromium
from tests.support.processes import ROOT

HERE = "http://page.test"


def show(tab, body: str, *, policy: str = "") -> None:
    headers = {"Content-Type": "text/html", **({"Content-Security-Policy": policy} if policy else {})}
    tab.route(f"{HERE}/", lambda route: route.fulfill(body=body, headers=headers))
    tab.route(f"{HERE}/missing.png", lambda route: route.fulfill(status=404))
    tab.goto(f"{HERE}/")


def test_a_page_without_fault_is_not_complained_of(tab, complaints):
    show(tab, "<p>hello</p>")
    assert complaints.heard() == []


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("<script>document.title = 'ran'</script>", "Content Security Policy"),
        ("<p style='color: red'>", "Content Security Policy"),
        ("<script src='http://page.test/'></script>", "Content Security Policy"),
        ("<img src='/missing.png'>", "404"),
    ],
)
def test_a_page_that_breaks_its_policy_or_lacks_a_file_is_complained_of(tab, complaints, body, complaint):
    show(tab, body, policy="default-src 'none'; img-src 'self'")
    complaints.expect(complaint)


def test_an_error_in_a_script_is_complained_of(tab, complaints):
    show(tab, "<script>throw new Error('broken')</script>")
    complaints.expect("broken")


def test_a_complaint_that_nobody_expects_fails_the_test(tab, complaints):
    show(tab, "<script>console.log('unexpected')</script>")
    assert complaints.heard() == ["unexpected"]
    complaints.expect("unexpected")
    assert complaints.heard() == []
    with pytest.raises(AssertionError):
        complaints.expect("unexpected")


def test_the_browser_reaches_no_other_machine(tab, complaints):
    from playwright.sync_api import Error

    for url in ("http://example.com/", "http://192.0.2.1/"):
        with pytest.raises(Error, match="ERR_NAME_NOT_RESOLVED"):
            tab.goto(url)


@pytest.fixture
def users(db, chromium) -> int:
    return get_user_model().objects.count()


def test_a_running_browser_keeps_no_fixture_from_the_database(users):
    assert users == 0


SAMPLE = (
    "def test_one(tab):\n    pass\n\ndef test_two():\n    pass\n\ndef test_three(tab):\n    print('unheard', tab)\n"
)


@pytest.fixture
def run(tmp_path):
    """Runs pytest on two tests with a browser and one without."""
    sample = tmp_path / "test_sample.py"
    sample.write_text(SAMPLE)

    def run(**environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-p", "tests.support.chromium_plugin", "-c", os.devnull]
        return subprocess.run(
            [*command, "--rootdir", tmp_path, sample],
            cwd=ROOT,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_without_a_browser_the_rest_runs_and_the_summary_says_so(run):
    ran = run(KNOXCALL_TEST_CHROMIUM="/nonexistent", KNOXCALL_TEST_REQUIRE_BROWSER="")
    assert ran.returncode == 0, ran.stdout
    assert "1 passed, 2 deselected" in ran.stdout
    assert "browser tests not run: no Chromium" in ran.stdout


def test_a_browser_that_is_required_and_missing_fails_the_run(run):
    ran = run(KNOXCALL_TEST_CHROMIUM="/nonexistent", KNOXCALL_TEST_REQUIRE_BROWSER="1")
    assert ran.returncode == pytest.ExitCode.USAGE_ERROR
    assert "browser tests not run: no Chromium" in ran.stderr


def test_the_browser_that_is_named_is_taken(monkeypatch, tmp_path):
    program = tmp_path / "browser"
    program.touch(mode=0o700)
    monkeypatch.setenv("KNOXCALL_TEST_CHROMIUM", str(program))
    assert find_chromium() == str(program)
    monkeypatch.setenv("KNOXCALL_TEST_CHROMIUM", str(Path(tmp_path, "another")))
    assert find_chromium() is None
