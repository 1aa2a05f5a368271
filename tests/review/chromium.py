"""Debian's chromium, driven by Playwright, whose own browsers are not needed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

_PATH = shutil.which("chromium")
NEEDS_CHROMIUM = pytest.mark.skipif(_PATH is None, reason="chromium is not installed")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without windows."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_PATH, args=["--no-sandbox"])
        yield browser
        browser.close()
