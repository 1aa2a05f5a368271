"""Debian's chromium, driven by Playwright, whose own browsers are not needed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

_PATH = shutil.which("chromium")
NEEDS_CHROMIUM = pytest.mark.skipif(_PATH is None, reason="chromium is not installed")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without windows."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_PATH, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def saved(page: Page, version: int) -> None:
    """Wait until the page shows a version."""
    expect(page.locator("#session")).to_have_attribute("data-base", str(version))


def press(page: Page, key: str, version: int) -> None:
    page.keyboard.press(key)
    saved(page, version)
