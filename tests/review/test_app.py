"""The page over HTTP: whom it lets in, what it shows of the list, and what it refuses."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from routedk.review.app import make_app
from routedk.review.desk import Desk, View
from routedk.rules import BundleRules
from routedk.types import Answer, Bundle, Item, Session
from tests.running import running

from .conftest import CAMERA, SESSIONS, TABLET

ACCEPT = {"session": "s0", "base": 0, "do": "accept"}


Client = Callable[..., httpx.Client]


@pytest.fixture
def client() -> Iterator[Client]:
    """Serves a desk, and gives a client that asks for it by a host's name."""
    with ExitStack() as stack:

        def serve(desk: Desk, *, host: str = "127.0.0.1:8001", **settings: Any) -> httpx.Client:
            url = stack.enter_context(running(make_app(desk, "ann", **settings)))
            return stack.enter_context(httpx.Client(base_url=url, headers={"Host": host}))

        yield serve


@pytest.fixture
def page(client: Client, desk: Desk) -> httpx.Client:
    return client(desk)


@pytest.mark.parametrize(
    ("view", "found"),
    [
        ({}, ["s1", "s2", "s0"]),
        ({"order": "file"}, ["s0", "s1", "s2"]),
        ({"kind": "complements"}, ["s1", "s0"]),
        ({"kind": "alternatives"}, ["s0"]),
        ({"kind": "mixed"}, []),
        ({"kind": "none"}, ["s2"]),
        ({"intent": " Tablet"}, ["s0"]),
        ({"show": "accepted"}, []),
    ],
)
def test_the_list_is_filtered(desk: Desk, view: dict[str, Any], found: list[str]) -> None:
    page = desk.page(View(**view))
    assert [row.session_id for row in page.rows] == found
    assert (page.current.session_id if page.current else None) == (found[0] if found else None)


def test_the_next_session_is_the_next_one_to_do(desk: Desk, page: httpx.Client) -> None:
    assert page.post("/", json={**ACCEPT, "session": "s2"}).status_code == 200
    shown = desk.page(View(session="s2"))
    assert (shown.before, shown.after, shown.accepted, shown.found) == ("s1", "s0", 1, 2)
    assert [row.session_id for row in desk.page(View(show="accepted")).rows] == ["s2"]


def test_of_a_long_list_a_part_is_shown(output: Path) -> None:
    many = [Session(f"s{number}", SESSIONS[0].items) for number in range(250)]
    desk = Desk(many, [], output)
    for name, first in (("s0", 0), ("s120", 70), ("s249", 150)):
        page = desk.page(View(session=name, order="file"))
        assert [row.session_id for row in page.rows] == [f"s{first + n}" for n in range(100)]
        assert page.found == 250


def test_who_and_when(desk: Desk, page: httpx.Client) -> None:
    assert page.post("/", json=ACCEPT).status_code == 200
    assert desk.page(View(session="s0", show="all")).current.reviewed_by == "ann"  # type: ignore[union-attr]
    undo = {**ACCEPT, "base": 1, "do": "undo", "user": " bo\x1b "}
    text = page.post("/?session=s0", json=undo).text
    assert "saved by <bdi>bo</bdi>" in text


def test_an_edit_of_an_older_version_is_told(page: httpx.Client) -> None:
    reject = {**ACCEPT, "do": "reject", "bundle": 1}
    assert page.post("/?session=s0", json=reject).status_code == 200
    answer = page.post("/?session=s0", json={**reject, "bundle": 2, "user": "bo"})
    assert answer.status_code == 409
    assert "Someone else saved first" in answer.text
    assert 'data-base="1"' in answer.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do": "move", "items": ["9"], "to": 1}, "the session has no item '9'"),
        ({"do": "reject", "bundle": 3}, "there is no bundle 3"),
        ({"do": "undo"}, "there is nothing to undo"),
        ({"session": "s9"}, "there is no session 's9'"),
        ({"base": 5}, "there is no version 5: load the page again"),
        ({"do": "drop"}, "Input should be"),
        ({"do": "rename", "bundle": 1, "intent": "x" * 201}, "at most 200 characters"),
        ({"do": "rename", "bundle": 1, "kind": "all"}, "kind: Input should be"),
        ({"do": "rename", "bundle": 1, "intent": "half \ud800"}, "intent: "),
        ({"user": "half \ud800"}, "user: "),
        ({"session": "half \ud800"}, "session"),
        ({"do": "move", "items": ["\ud800"]}, "item"),
        ({"do": "move", "items": ["1"], "to": float("inf")}, "to: Input should be"),
    ],
)
def test_what_is_refused(page: httpx.Client, change: dict[str, Any], message: str) -> None:
    # As a browser does not write it, but anyone can.
    body = json.dumps({**ACCEPT, **change}).replace("Infinity", "1e400")
    answer = page.post("/", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert message in answer.text
    assert page.get("/?session=s9").status_code == 422
    assert page.get("/?show=other").status_code == 422


def test_names_that_lead_here_are_not_let_in(client: Client, desk: Desk) -> None:
    page = client(desk)
    for host in ("127.0.0.1:8001", "localhost", "[::1]:8001"):
        assert page.get("/", headers={"Host": host}).status_code == 200
    for host in ("evil.example:8001", "127.0.0.1.evil.example"):
        assert page.get("/", headers={"Host": host}).status_code == 421
        assert page.post("/", json=ACCEPT, headers={"Host": host}).status_code == 421


def test_pages_of_other_origins_cannot_edit(desk: Desk, page: httpx.Client) -> None:
    for origin in ("http://evil.example", "http://127.0.0.1:9999", "null", "http://[", ""):
        refused = page.post("/", json=ACCEPT, headers={"Origin": origin})
        assert refused.status_code == 403
    plain = page.post("/", content='{"session": "s0"}', headers={"Content-Type": "text/plain"})
    assert plain.status_code == 422
    assert desk.page(View()).accepted == 0
    own = {"Origin": "http://127.0.0.1:8001"}
    assert page.post("/", json=ACCEPT, headers=own).status_code == 200


def test_a_token_is_the_password(client: Client, desk: Desk) -> None:
    page = client(desk, host="reviews.shop.example", token="secret")
    for auth in (None, ("bo", "wrong"), ("bo", "")):
        for answer in (page.get("/", auth=auth), page.post("/", json=ACCEPT, auth=auth)):
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert page.post("/", json=ACCEPT, auth=("bo", "secret")).status_code == 200
    assert page.post("/", json={**ACCEPT, "base": 1, "do": "undo"}, auth=("", "secret")).is_success
    page.post("/", json={**ACCEPT, "base": 2}, auth=("Jörg", "secret"))
    text = page.get("/?session=s0&show=all", auth=("bo", "secret")).text
    assert "saved by <bdi>Jörg</bdi>" in text
    for given in (b"Basic a", b"Basic", "Basic Jörg".encode(), b"Basic \xff", b"Basic YQ==="):
        assert page.get("/", headers={"Authorization": given}).status_code == 401


def test_of_the_files_only_what_a_browser_needs_is_served(page: httpx.Client) -> None:
    for name, kind in (("review.css", "text/css"), ("review.js", "javascript")):
        assert kind in page.get(f"/page/{name}").headers["Content-Type"]
    for name in ("page.html", "", "../app.py", "..%2Fapp.py"):
        assert page.get(f"/page/{name}").status_code == 404


def test_a_history_that_is_deleted_is_told(page: httpx.Client, output: Path) -> None:
    assert page.post("/", json=ACCEPT).is_success
    output.with_name("gold.jsonl.history").unlink()
    for answer in (page.get("/"), page.post("/", json={**ACCEPT, "base": 1, "do": "undo"})):
        assert answer.status_code == 422
        assert "was cut or replaced" in answer.text


def test_pictures_come_from_their_hosts_alone(client: Client, output: Path) -> None:
    images = ("https://b.example/1.jpg", "https://a.example:80/x;y?z", "https://b.example/2", None)
    items = tuple(Item(str(n), "item", image=image) for n, image in enumerate(images))
    desk = Desk([Session("s", items)], [Answer("s", (Bundle(("0", "1")),))], output)
    answer = client(desk).get("/")
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert policy[-1] == "img-src 'self' https://a.example:80 https://b.example"
    assert policy[:3] == ["default-src 'none'", "script-src 'self'", "style-src 'self'"]
    assert answer.text.count("<img ") == 3


def test_a_bundle_says_which_rules_it_breaks(client: Client, output: Path) -> None:
    rules = BundleRules(out_of_stock=("3",), price_to=50)
    desk = Desk(SESSIONS, [Answer("s0", (CAMERA, TABLET))], output, rules)
    text = client(desk).get("/?session=s0").text
    assert text.count("Breaks a rule: ") == 3
    assert "Breaks a rule: &#39;3&#39; is out of stock" in text
    move = {"session": "s0", "base": 0, "do": "move", "items": ["3"], "to": 0}
    text = client(desk).post("/?session=s0", json=move).text
    assert text.count("Breaks a rule: ") == 1
    assert "Breaks a rule: it would cost" in text
