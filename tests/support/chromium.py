"""A real browser: a headless Chromium on a thread of its own, and what it complains of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ConsoleMessage, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-proxy-server",
    # What pytest-socket is to us: this machine, and no other.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1",
)
# More than a page needs on a busy machine; a test that waits this long has failed.
PATIENCE_MS = 20_000
Result = TypeVar("Result")


def find_chromium() -> str | None:
    """The program that `KNOXCALL_TEST_CHROMIUM` names, or else the first Chromium or Chrome of PATH."""
    named = os.environ.get("KNOXCALL_TEST_CHROMIUM")
    return next(filter(None, map(shutil.which, [named] if named else NAMES)), None)


class Chromium:
    """One running browser; a context manager.

    Playwright keeps an event loop running in the thread that calls it, and Django refuses the database to such a thread.
    So the browser has a thread, and whatever touches a page goes through `run`.
    """

    def __init__(self, program: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chromium")
        self._program = program

    def __enter__(self) -> Chromium:
        self.run(self._launch)
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._close)
        self._thread.shutdown()

    def run(self, call: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """What ``call`` returns or raises, called in the browser's thread."""
        __tracebackhide__ = True
        return self._thread.submit(call, *arguments, **named).result()

    def new_tab(self, complaints: Complaints) -> Page:
        """An empty page in a profile of its own: no cookie is there yet. To be called in the browser's thread."""
        profile = self._browser.new_context(locale="en", reduced_motion="reduce")
        profile.set_default_timeout(PATIENCE_MS)
        complaints.listen_to(profile)
        return profile.new_page()

    def _launch(self) -> None:
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=self._program, args=ARGUMENTS)

    def _close(self) -> None:
        self._browser.close()
        self._playwright.stop()


class Complaints:
    """What pages had to say on the console: broken policies, errors of scripts, missing files, or anything else.

    That a document has the status of an error is not counted: tests look at statuses themselves.
    """

    def __init__(self) -> None:
        self._profiles: list[BrowserContext] = []
        self._heard: list[tuple[str, str]] = []
        self._documents: set[str] = set()

    def listen_to(self, profile: BrowserContext) -> None:
        self._profiles.append(profile)
        profile.on("console", self._hear)
        profile.on("weberror", lambda error: self._heard.append((str(error.error), "")))
        profile.on("response", lambda response: self._note(response.url, response.request.is_navigation_request()))

    def _hear(self, message: ConsoleMessage) -> None:
        self._heard.append((message.text, message.location["url"]))

    def _note(self, url: str, is_document: bool) -> None:
        if is_document:
            self._documents.add(url)

    def heard(self) -> list[str]:
        """All of them until now. To be called in the browser's thread."""
        for profile in self._profiles:
            for tab in profile.pages:
                # What was on its way arrives before the answer.
                tab.evaluate("0")
        return [text for text, url in self._heard if not (_is_about_status(text) and url in self._documents)]

    def expect(self, part: str) -> None:
        """Forget those that contain ``part``; there has to be one, soon: a page may ask for its icon after all else."""
        tabs = [tab for profile in self._profiles for tab in profile.pages]
        for _ in range(PATIENCE_MS // 50):
            if any(part in text for text in self.heard()):
                break
            tabs[0].wait_for_timeout(50)
        assert any(part in text for text in self.heard()), f"{part!r} is not among {self.heard()}"
        self._heard = [(text, url) for text, url in self._heard if part not in text]

    def close(self) -> None:
        for profile in self._profiles:
            profile.close()


def _is_about_status(text: str) -> bool:
    return text.startswith("Failed to load resource: the server responded with a status of ")
