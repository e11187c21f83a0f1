"""Tests in a real browser: whoever takes a `tab` runs in the browser's thread, and fails when a page complained.

Without a Chromium they are deselected, and the summary says so; with `KNOXCALL_TEST_REQUIRE_BROWSER=1` nothing runs then.
Fixtures stay in the main thread. So only a test, and the functions that it calls, may touch a tab; and the database is for
fixtures only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chromium import Chromium, Complaints, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Page

NOT_RUN = "browser tests not run: no Chromium; install one or name it in KNOXCALL_TEST_CHROMIUM"


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("KNOXCALL_TEST_REQUIRE_BROWSER") == "1" and find_chromium() is None:
        raise pytest.UsageError(NOT_RUN)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if find_chromium() is None:
        without = [item for item in items if _takes("chromium", item)]
        items[:] = [item for item in items if item not in without]
        config.hook.pytest_deselected(items=without)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if find_chromium() is None:
        terminalreporter.write_line(NOT_RUN, yellow=True)


def _takes(fixture: str, item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and fixture in item.fixturenames


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    if _takes("complaints", pyfuncitem):
        chromium, complaints = pyfuncitem.funcargs["chromium"], pyfuncitem.funcargs["complaints"]
        test = pyfuncitem.obj

        def test_without_complaints(**arguments: Any) -> None:
            test(**arguments)
            assert complaints.heard() == []

        pyfuncitem.obj = lambda **arguments: chromium.run(test_without_complaints, **arguments)
    return (yield)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    program = find_chromium()
    assert program is not None
    with Chromium(program) as browser:
        yield browser


@pytest.fixture
def complaints(chromium: Chromium) -> Iterator[Complaints]:
    """What the pages of this test complained of; a test that wants a complaint says `complaints.expect(...)`."""
    heard = Complaints()
    yield heard
    chromium.run(heard.close)


@pytest.fixture
def tab(chromium: Chromium, complaints: Complaints, keep_picture: Callable[..., None]) -> Iterator[Page]:
    """A page in a fresh browser profile."""
    page = chromium.run(chromium.new_tab, complaints)
    yield page
    chromium.run(keep_picture, page)


@pytest.fixture
def strangers_tab(chromium: Chromium, complaints: Complaints) -> Page:
    """A page in another profile: somebody else's browser."""
    return chromium.run(chromium.new_tab, complaints)


@pytest.fixture
def keep_picture(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Takes a screenshot of a tab into the directory `KNOXCALL_SCREENSHOTS`, if that is set, as every test does at its end."""

    def keep(page: Page, *details: object) -> None:
        if directory := os.environ.get("KNOXCALL_SCREENSHOTS"):
            name = re.sub(r"[^\w.-]+", "-", "-".join([request.node.name, *map(str, details)])).strip("-")
            page.screenshot(path=Path(directory, f"{name}.png"), full_page=True)

    return keep
