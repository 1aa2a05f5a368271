"""The page in a browser: Debian's chromium, driven by Playwright."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from routedk import load_sessions
from routedk.types import Bundle

from .chromium import NEEDS_CHROMIUM, Open, browser, bundles, open_page, press, saved, url

__all__ = ["browser", "open_page", "url"]

pytestmark = NEEDS_CHROMIUM


def test_a_session_is_corrected_with_the_mouse(open_page: Open, output: Path) -> None:
    page = open_page()
    card = page.get_by_role("option", name="Garden hose")
    card.drag_to(page.get_by_label("Bundle 2", exact=True))
    saved(page, 1)
    page.get_by_role("option", name="Camera case").drag_to(page.get_by_label("In no bundle").first)
    saved(page, 2)
    page.get_by_role("option", name="Tablet cover").drag_to(page.get_by_label("New bundle"))
    saved(page, 3)
    rest = ["Tablet", "Garden hose"]
    assert bundles(page) == [["Camera", "Memory card"], rest, ["Tablet cover"], ["Camera case"]]
    # The intent is left by a click on a button: both count.
    page.get_by_label("Intent of bundle 3").fill("covers")
    page.locator("[data-bundle='3'] button").click()
    saved(page, 5)
    page.get_by_label("Kind of bundle 2").select_option("mixed")
    saved(page, 6)
    page.get_by_role("option", name="Tablet cover").click()
    page.get_by_role("option", name="Camera case").click()
    page.get_by_role("toolbar").get_by_role("button", name="New bundle").click()
    saved(page, 7)
    page.get_by_label("Merge bundle 3 into another").select_option("1")
    saved(page, 8)
    page.get_by_role("button", name="Undo").click()
    saved(page, 9)
    page.locator("[data-bundle='2'] .number").drag_to(page.get_by_label("Bundle 1", exact=True))
    saved(page, 10)
    page.get_by_role("button", name="Accept").click()
    expect(page.locator(".state")).to_have_text("✓ Accepted")
    corrected = bundles(page)
    assert corrected == [
        ["Camera", "Memory card", *rest],
        ["Camera case", "Tablet cover"],
        [],
    ]
    page.reload()
    assert bundles(page) == corrected
    (gold,) = load_sessions(output)
    assert gold.bundles == (
        Bundle(("1", "2", "4", "6"), "camera kit", "complements"),
        Bundle(("3", "5")),
    )


def test_a_session_is_corrected_with_the_keyboard(open_page: Open, output: Path) -> None:
    page = open_page()
    focused = page.locator(".card:focus")
    expect(focused).to_contain_text("Camera")
    page.keyboard.press("ArrowDown")
    expect(focused).to_contain_text("Tablet")
    page.keyboard.press("ArrowRight")
    press(page, "1", 1)
    expect(focused).to_contain_text("Tablet cover")  # It went along.
    press(page, "0", 2)
    press(page, "u", 3)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    press(page, "n", 4)
    assert bundles(page)[:3] == [
        ["Camera", "Tablet cover"],
        ["Tablet"],
        ["Memory card", "Camera case"],
    ]
    page.keyboard.press("r")
    page.keyboard.type("cards")
    press(page, "Enter", 5)
    expect(page.get_by_label("Intent of bundle 3")).to_have_value("cards")
    page.keyboard.press("a")
    expect(page.get_by_role("alert")).to_have_text(
        "bundle 2 has one item: add another, or reject it"
    )
    page.locator("[data-bundle='2'] .card").focus()
    press(page, "x", 6)
    page.locator(".card").first.focus()
    page.keyboard.press("m")
    press(page, "2", 7)
    press(page, "u", 8)
    press(page, "a", 9)
    expect(page.locator(".state")).to_be_visible()
    for key, session in (("k", "s2"), ("k", "s1"), ("j", "s2")):
        page.keyboard.press(key)
        expect(page.locator("#session")).to_have_attribute("data-session", session)
    (gold,) = load_sessions(output)
    assert gold.gold == [{"1", "5"}, {"2", "3"}]
    assert gold.bundles is not None
    assert gold.bundles[1].intent == "cards"


def test_what_is_dragged_while_an_edit_is_saved_is_not_lost(open_page: Open) -> None:
    page = open_page()
    held: list[Any] = []
    page.route("**/*", lambda route: held.append(route), times=1)
    with page.expect_request("**/*"):
        page.keyboard.press("0")  # The camera is taken out.
    hose, tablet = (page.locator(place) for place in ("#item-6", "[data-bundle='2'] .number"))
    hose.hover()
    page.mouse.down()
    page.mouse.move(500, 500, steps=3)
    with page.expect_response("**/*"):
        held[0].continue_()
    page.wait_for_timeout(500)
    saved(page, 0)  # What is dragged has not gone from under the pointer.
    tablet.hover()
    page.mouse.up()
    saved(page, 2)
    rest = [["Memory card", "Camera case"], ["Tablet", "Tablet cover", "Garden hose"], ["Camera"]]
    assert bundles(page) == rest


def test_what_is_typed_while_an_edit_is_saved_is_not_lost(open_page: Open) -> None:
    page = open_page()
    held: list[Any] = []
    page.route("**/*", lambda route: held.append(route), times=1)
    with page.expect_request("**/*"):
        page.keyboard.press("0")
    intent = page.get_by_label("Intent of bundle 2")
    intent.click()
    page.keyboard.press("End")
    page.keyboard.type(" for")
    held[0].continue_()
    saved(page, 1)
    page.keyboard.type(" travel")
    press(page, "Enter", 2)
    expect(intent).to_have_value("tablet kit for travel")
    intent.fill("given up")
    page.keyboard.press("Escape")
    expect(intent).to_have_value("tablet kit for travel")
    press(page, "u", 3)
    expect(intent).to_have_value("tablet kit")


def test_two_people_on_one_file(open_page: Open, output: Path) -> None:
    ann, bo = open_page(), open_page()
    for page, name in ((ann, "Ann"), (bo, "Bo <b>")):
        page.get_by_label("Name").fill(name)
    ann.get_by_role("button", name="Reject bundle 2").click()
    saved(ann, 1)
    bo.get_by_role("button", name="Reject bundle 1").click()
    expect(bo.locator(".notice")).to_contain_text("Someone else saved first")
    expect(bo.locator(".head")).to_contain_text("saved by Ann")
    assert bundles(bo) == bundles(ann)
    press(bo, "a", 2)
    bo.reload()
    expect(bo.get_by_label("Name")).to_have_value("Bo <b>")
    kept = output.with_name("gold.jsonl.history").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["reviewed_by"] for line in kept] == ["", "Ann", "Bo <b>", "Bo <b>"]
    assert json.loads(output.read_text(encoding="utf-8"))["reviewed_by"] == "Bo <b>"


def hold(page: Page, key: str) -> Any:
    """Press a key, and hold the edit that it makes on its way to the server."""
    held: list[Any] = []
    page.route("**/*", lambda route: held.append(route), times=1)
    with page.expect_request("**/*"):
        page.keyboard.press(key)
    while not held:
        page.wait_for_timeout(10)
    return held[0]


def test_no_key_counts_for_what_was_not_seen(open_page: Open, output: Path) -> None:
    page = open_page("?order=file")
    held = hold(page, "a")
    page.keyboard.press("a")  # Of the session that was seen, not of the next one.
    held.continue_()
    saved(page, 1)
    page.keyboard.press("0")
    saved(page, 2)
    expect(page.locator("#session")).to_have_attribute("data-session", "s0")
    page.get_by_role("link", name="Accepted").click()
    expect(page.locator("main")).to_contain_text("No session passes these filters.")
    other = open_page("?session=s1")
    page.goto(other.url)
    held = hold(page, "0")
    page.keyboard.press("a")
    page.keyboard.press("j")
    press(other, "x", 1)
    held.continue_()
    expect(page.locator(".notice")).to_contain_text("Someone else saved first")
    other.wait_for_timeout(300)
    expect(page.locator(".notice")).to_be_visible()  # Nor was it left behind.
    press(page, "u", 2)
    page.evaluate(REPEATED)
    page.wait_for_timeout(300)
    saved(page, 2)
    assert output.read_text(encoding="utf-8") == ""


REPEATED = """() => document.querySelector(".card").dispatchEvent(
    new KeyboardEvent("keydown", { key: "a", repeat: true, bubbles: true }))"""


@pytest.mark.parametrize("leave", ["j", "a link", "the filter"])
def test_who_moves_on_loses_no_edit(open_page: Open, output: Path, leave: str) -> None:
    page = open_page()
    held = hold(page, "0")
    page.keyboard.press("a")
    if leave == "j":
        page.keyboard.press("k")
    elif leave == "a link":
        page.get_by_role("link", name="s1").click()
    else:
        page.get_by_label("Sessions with this intent").fill("camera")
        page.keyboard.press("Enter")
    held.continue_()
    expect(page.locator("#session")).not_to_have_attribute("data-session", "s0")
    (gold,) = load_sessions(output)
    assert gold.gold == [{"2", "3"}, {"4", "5"}]


def test_what_is_no_item_or_bundle_is_dragged_as_ever(open_page: Open) -> None:
    page = open_page()
    search = page.get_by_label("Sessions with this intent")
    page.get_by_role("link", name="s1").drag_to(search)
    expect(search).to_have_value(re.compile("session=s1"))
    page.get_by_role("option", name="Garden hose").drag_to(page.get_by_label("Name"))
    expect(page.get_by_label("Name")).to_have_value("")
    page.locator(".card").first.focus()
    press(page, "0", 1)


def test_on_a_phone(open_page: Open) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    expect(page.get_by_label("Sessions", exact=True)).to_be_hidden()
    page.get_by_role("option", name="Garden hose").tap()
    page.get_by_role("toolbar").get_by_role("button", name="2 tablet kit").tap()
    saved(page, 1)
    assert bundles(page)[1] == ["Tablet", "Tablet cover", "Garden hose"]
    page.get_by_role("button", name="Sessions").tap()
    page.get_by_role("link", name="s1").tap()
    expect(page.locator("#session")).to_have_attribute("data-session", "s1")


def test_filters(open_page: Open) -> None:
    page = open_page("")
    names = page.locator("#list .id bdi")
    expect(names).to_have_text(["s1", "s2", "s0"])
    page.get_by_role("link", name="Complements").click()
    expect(names).to_have_text(["s1", "s0"])
    page.get_by_label("Sessions with this intent").fill("tablet")
    page.keyboard.press("Enter")
    expect(names).to_have_text(["s0"])
    page.get_by_role("link", name="Mixed").click()
    expect(page.locator("main")).to_contain_text("No session passes these filters.")


def test_a_server_that_is_gone_is_told(open_page: Open) -> None:
    page = open_page()
    page.route("**/*", lambda route: route.abort())
    page.keyboard.press("a")
    expect(page.get_by_role("alert")).to_contain_text("not saved")
