"""Two thousand titles as an attacker writes them, in the page: shown as text, nothing executed."""

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from routedk import load_sessions
from routedk.eval.predictions import read_predictions
from routedk.review.app import make_app
from routedk.review.desk import Desk, one_visible_line
from tests.hostile import hostile_titles
from tests.running import running

from .chromium import NEEDS_CHROMIUM, browser, press

__all__ = ["browser"]

pytestmark = NEEDS_CHROMIUM
A_SESSION = 40


def hostile_desk(folder: Path, titles: list[str]) -> Desk:
    """Hostile titles, categories, ids and intents, as files bring them."""
    records, made = list[str](), list[str]()
    for start in range(0, len(titles), A_SESSION):
        group = titles[start : start + A_SESSION]
        items: list[dict[str, Any]] = [{"id": f"{n} {t}", "title": t} for n, t in enumerate(group)]
        items[0]["categories"] = group[:1]
        pairs = [[items[n]["id"], items[n + 1]["id"]] for n in (0, 2)]
        bundles = [{"items": pair, "intent": group[0], "why": group[0]} for pair in pairs]
        session = {"session_id": f"{start} {group[-1]}", "items": items}
        records.append(json.dumps(session))
        made.append(json.dumps({"session_id": session["session_id"], "bundles": bundles}))
    data, predictions = folder / "data.jsonl", folder / "made.jsonl"
    data.write_text("\n".join(records), encoding="utf-8")
    predictions.write_text("\n".join(made), encoding="utf-8")
    sessions = load_sessions(data)
    return Desk(sessions, read_predictions(predictions, sessions), folder / "gold.jsonl")


def test_hostile_titles_are_text(browser: Browser, tmp_path: Path) -> None:
    titles = hostile_titles()
    desk = hostile_desk(tmp_path, titles)
    met: list[str] = []
    with running(make_app(desk, titles[0])) as url:
        context = browser.new_context()
        page = context.new_page()
        page.on("dialog", lambda dialog: (met.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda one: one.url.startswith(f"{url}/") or met.append(one.url))
        page.on("popup", lambda popup: met.append("a popup"))
        page.on("pageerror", lambda error: met.append(str(error)))
        page.goto(f"{url}/?order=file")
        seen = 0
        for number, session in enumerate(desk.sessions.values()):
            facts = page.evaluate(FACTS)
            expected = [one_visible_line(item.title) for item in session.items]
            assert facts["titles"] == expected
            assert facts["categories"] == expected[:1]
            assert facts["intents"] == [expected[0]] * 2
            assert all(map(str.isprintable, facts["titles"]))
            assert facts["pwned"] is None
            assert set(facts["tags"]) <= TAGS
            seen += len(expected)
            if number % 10 == 0:  # What was edited is shown as carefully.
                page.locator(".card").first.focus()
                press(page, "0", 1)
                facts = page.evaluate(FACTS)
                assert sorted(facts["titles"]) == sorted(expected)
                assert facts["pwned"] is None
                assert set(facts["tags"]) <= TAGS
            if number + 1 < len(desk.sessions):
                page.goto(f"{url}/{page.locator('#after').get_attribute('href')}")
        context.close()
    assert seen == len(titles) == 2000
    assert met == []


# What the templates are made of: no title brings another element.
TAGS = {
    *("a", "bdi", "button", "div", "form", "h1", "header", "i", "input", "kbd", "label", "li"),
    *("main", "meter", "nav", "ol", "option", "output", "p", "progress", "section", "select"),
    *("span", "strong", "time", "ul"),
}
FACTS = """() => {
  const texts = (query) => [...document.querySelectorAll(query)].map((one) => one.innerText);
  return {
    titles: texts(".title"),
    categories: texts(".category"),
    intents: [...document.querySelectorAll(".intent")].map((one) => one.value),
    pwned: globalThis.pwned ?? null,
    tags: [...new Set([...document.body.querySelectorAll("*")].map((one) => one.localName))].sort(),
  };
}"""
