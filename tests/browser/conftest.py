"""Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.conftest import require_tool

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
    "--disable-component-update",
]


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is; without it the test is skipped, but never in CI."""
    return require_tool(shutil.which("chromium"), "Debian's chromium", "apt-get install chromium")


@pytest.fixture
def browser(chromium: str) -> Iterator[Browser]:
    """Start a fresh browser.

    One per test: while Playwright's synchronous interface is open it keeps an event loop running
    in this thread, and tests elsewhere need to start their own.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()
