"""What a person corrected in the browser is what `train` learns from."""

import json
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import expect

from routedk import distill, load_sessions
from routedk.adapters.train import train
from routedk.review.app import make_app
from routedk.review.desk import Desk
from routedk.types import Answer, Bundle, Item, Session
from tests.adapters.conftest import SMALL, student_folder
from tests.running import running

from .chromium import NEEDS_CHROMIUM, chromium

__all__ = ["student_folder"]

pytestmark = NEEDS_CHROMIUM
TITLES = ("kettle", "tea cup", "usb hub", "usb cable")
SESSIONS = [
    Session(f"s{k}", tuple(Item(str(n), title) for n, title in enumerate(TITLES))) for k in range(4)
]


def test_corrected_sessions_are_trained_on(student_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "gold.jsonl"
    tea = Bundle(("0", "1"), "brewing tea", confidence=0.5)
    desk = Desk(SESSIONS, [Answer(session.id, (tea,)) for session in SESSIONS], output)
    with running(make_app(desk, "ann")) as url, chromium() as browser:
        page = browser.new_page()
        page.goto(f"{url}/?session=s0&show=all")
        hub, cable = (page.get_by_role("option", name=name) for name in ("usb hub", "usb cable"))
        hub.drag_to(page.get_by_label("New bundle"))
        expect(page.locator("#session")).to_have_attribute("data-base", "1")
        cable.drag_to(page.get_by_label("Bundle 2", exact=True))
        page.get_by_label("Intent of bundle 2").fill("desk setup")
        for session in SESSIONS[:3]:
            expect(page.locator("#session")).to_have_attribute("data-session", session.id)
            page.get_by_role("button", name="Accept").click()
            expect(page.locator(".state")).to_have_text("✓ Accepted")
            page.get_by_role("link", name="Next").click()
    gold = load_sessions(output)
    tea = Bundle(("0", "1"), "brewing tea")
    assert [session.bundles for session in gold] == [
        (tea, Bundle(("2", "3"), "desk setup")),
        (tea,),
        (tea,),
    ]
    config = replace(SMALL, student=str(student_folder), epochs=1)
    folder = train(gold, distill(gold, store=tmp_path / "s"), config, store=tmp_path / "s")
    assert json.loads((folder / "routing.json").read_text())["training"]["sessions"] == 3
