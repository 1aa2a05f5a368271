"""Debian's chromium, driven by Playwright, whose own browsers are not needed."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from routedk.review.app import make_app
from routedk.review.desk import Desk
from tests.running import running

_PATH = shutil.which("chromium")
Open = Callable[..., Page]
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


@pytest.fixture
def url(desk: Desk) -> Iterator[str]:
    with running(make_app(desk, "ann")) as address:
        yield address


@pytest.fixture
def open_page(browser: Browser, url: str) -> Iterator[Open]:
    """Opens the page in a browser of its own, in which nothing from outside and no error is met."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def check(request: Any) -> None:
        if not request.url.startswith(f"{url}/"):
            problems.append(request.url)

    def open_one(query: str = "?session=s0", **settings: Any) -> Page:
        context = browser.new_context(**settings)
        contexts.append(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.on("request", check)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{url}/{query}")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert problems == []


def bundles(page: Page) -> list[list[str]]:
    """The titles of each bundle, those in none last."""
    sections = page.locator("section.bundle").all()
    return [section.locator(".title").all_inner_texts() for section in sections]
