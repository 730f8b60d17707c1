"""The lab in a real browser: headless Chromium, driven by Playwright, against `oneloop lab` in a process of its own.

Tests here are skipped where Chromium or Playwright is missing; with ONELOOP_WEB_TESTS=1, as `make web-test` sets it,
that is a failure instead.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium. For one file only: while it is open this thread has a running event loop, and no test of
    another file could start one."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("Playwright is not installed: pip install playwright")
    if CHROMIUM is None:
        _missing("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


def _missing(reason: str) -> None:
    if os.environ.get("ONELOOP_WEB_TESTS"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def lab() -> Iterator[Callable[..., str]]:
    """`lab(folder, ...)` starts `oneloop lab` on them and returns its address; started once for the same folders."""
    running: dict[tuple[str, ...], tuple[subprocess.Popen[str], str]] = {}

    def start(*runs: Path | str) -> str:
        key = tuple(str(run) for run in runs)
        if key not in running:
            running[key] = _serve(key)
        return running[key][1]

    yield start
    for process, _ in running.values():
        process.terminate()
        process.wait(10)
        process.stdout.close()  # pyright: ignore[reportOptionalMemberAccess]


def _serve(runs: tuple[str, ...]) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "oneloop", "lab", *runs, "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return process, found[0]
    raise AssertionError(f"oneloop lab ended with {process.wait()} and named no address")


@pytest.fixture
def at(lab: Callable[..., str], page: Any) -> Callable[[str], Any]:
    """`at("/learn/clip")` opens a page of a lab without runs."""
    address = lab(Path(__file__).parent)
    return lambda path: page.goto(address + path)


@pytest.fixture
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page of 1280×720. Its test fails on an error in the console, or a request to any host but the lab's.

    `@pytest.mark.parametrize("page", [{"color_scheme": "dark"}], indirect=True)` opens it otherwise, for example
    `{"viewport": {"width": 390, "height": 844}, "has_touch": True}` as a phone.
    """
    options = {"viewport": {"width": 1280, "height": 720}} | getattr(request, "param", {})
    context = browser.new_context(reduced_motion="reduce", **options)
    opened = context.new_page()
    opened.set_default_timeout(10_000)
    wrong: list[str] = []
    opened.on("console", lambda message: message.type == "error" and wrong.append(f"console: {message.text}"))
    opened.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    opened.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    opened.on("request", lambda sent: _foreign(sent.url) and wrong.append(f"request to {sent.url}"))
    opened.expected_errors = wrong  # a test that provokes one clears it
    yield opened
    context.close()
    assert not wrong, wrong


def _foreign(url: str) -> bool:
    return not re.match(r"http://127\.0\.0\.1:\d+/|data:|blob:|about:|file:", url)
