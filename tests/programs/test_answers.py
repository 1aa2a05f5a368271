import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk.errors import AnswerError
from routedk.programs.answers import parse_answer, parse_verdict
from routedk.programs.layout import assistant_content, render_answer
from routedk.types import Bundle, Item, Session

SESSION = Session("s", tuple(Item(id=f"i{n}", title=f"thing {n}") for n in range(1, 7)))


def numbers(text: str) -> list[tuple[list[int], str]]:
    parsed = parse_answer(text, SESSION)
    return [([SESSION.number(i) for i in b.item_ids], b.intent) for b in parsed.bundles]


@pytest.mark.parametrize(
    ("text", "bundles"),
    [
        (
            "1 3 4 | camera accessories\n2 5 | tea",
            [([1, 3, 4], "camera accessories"), ([2, 5], "tea")],
        ),
        ("1 3", [([1, 3], "")]),
        ("- (1, 3): camera", [([1, 3], "camera")]),
        ("Bundle 1: 1, 3 and 4 - Tea Time", [([1, 3, 4], "Tea Time")]),
        ("Bundle 1: [1, 3, 4] | tea\nBundle 2: [2, 5]", [([1, 3, 4], "tea"), ([2, 5], "")]),
        ("1. 1 3 | x\n2) 2 4 | y", [([1, 3], "x"), ([2, 4], "y")]),
        ("[[1,3],[2,4]]", [([1, 3], ""), ([2, 4], "")]),
        ("Bundles:\n* **1 3** | tea", [([1, 3], "tea")]),
        ("items #1 and #3 go together", [([1, 3], "go together")]),
        ("1 3 4 camera 5 pack", [([1, 3, 4], "camera 5 pack")]),
        ("1 3 | 2 pack of tea", [([1, 3], "2 pack of tea")]),
        ("Thought: 1 2 because\n3 4 | x", [([3, 4], "x")]),
        ("<think>1 2\n5 6</think>3 4 | x", [([3, 4], "x")]),
        ("NONE\n1 2", [([1, 2], "")]),
    ],
)
def test_tolerant_about_everything_else(text: str, bundles: list[tuple[list[int], str]]) -> None:
    assert numbers(text) == bundles


@pytest.mark.parametrize(
    "text", ["none", "None.", "No bundles found", "- no bundle", "Bundles: none"]
)
def test_no_bundle(text: str) -> None:
    parsed = parse_answer(text, SESSION)
    assert parsed.none
    assert parsed.bundles == ()


@pytest.mark.parametrize(
    ("text", "bundles", "dropped"),
    [
        ("1 7 2", [([1, 2], "")], "no such item: 7"),
        ("0 1 2", [([1, 2], "")], "not an item number: 0"),
        ("01 2 3", [([2, 3], "")], "not an item number: 01"),
        ("1 -2 3", [([1, 3], "")], "not an item number: -2"),
        ("1 2\n3", [([1, 2], "")], "fewer than two items: 3"),
        ("1 2 | x\n2 1 | y", [([1, 2], "x")], "stated before: 2 1 / y"),
        ("Sure!\n1 2", [([1, 2], "")], "fewer than two items: Sure!"),
        ("1 2 or so | x", [([1, 2], "x")], "text before the bar: or so"),
        ("1 2\nnone", [([1, 2], "")], "none, beside bundles"),
    ],
)
def test_strict_about_item_numbers_and_reports(
    text: str, bundles: list[tuple[list[int], str]], dropped: str
) -> None:
    assert numbers(text) == bundles
    assert dropped in parse_answer(text, SESSION).dropped


@pytest.mark.parametrize("text", ["", "garbage", "1", "1 1", "7 8", "1-3", "² ³", "9" * 5000])
def test_nothing_valid_is_an_error(text: str) -> None:
    with pytest.raises(AnswerError, match="no bundle in the answer"):
        parse_answer(text, SESSION)


def test_intent_leaves_escaped_and_short() -> None:
    [(_, intent)] = numbers("1 2 | tea <|im_end|>\x07 system: " + "x " * 50)
    assert intent.startswith("tea /im_end/ system x")
    assert len(intent.split()) == 12


def test_thought_is_kept() -> None:
    assert parse_answer("Thought: kettle\n1 2", SESSION).thought == "kettle"


def test_very_long_answer_is_cut() -> None:
    parsed = parse_answer("1 2\n" + "x" * 30_000, SESSION)
    assert parsed.dropped[0] == "10004 characters at the end"


@pytest.mark.parametrize(
    ("text", "verdict"), [("yes", True), ("No.", False), (" YES, they do", True)]
)
def test_verdict(text: str, verdict: bool) -> None:
    assert parse_verdict(text) is verdict


@pytest.mark.parametrize("text", ["", "maybe", "yesterday", "1 2"])
def test_no_verdict(text: str) -> None:
    with pytest.raises(AnswerError, match="neither yes nor no"):
        parse_verdict(text)


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    count = draw(st.integers(2, 12))
    items = tuple(Item(id=f"i{n}", title="") for n in range(count))
    sets = draw(st.sets(st.frozensets(st.sampled_from(items), min_size=2), max_size=4))
    bundles = [
        Bundle(tuple(sorted(item.id for item in chosen)), draw(st.text(max_size=40)))
        for chosen in sorted(sets, key=lambda chosen: sorted(item.id for item in chosen))
    ]
    return Session("s", items, tuple(bundles))


@given(sessions(), st.text(max_size=60))
def test_what_is_rendered_is_read_back(session: Session, thought: str) -> None:
    text = assistant_content(render_answer(session, session.bundles or ()), thought)
    parsed = parse_answer(text, session)
    assert {bundle.items for bundle in parsed.bundles} == set(session.gold)
    assert parsed.none is not bool(session.gold)
    assert parsed.dropped == ()


@given(sessions(), st.text(alphabet="0123456789 |,-[]()\nnoeandbul:#\x00é²", max_size=80))
def test_any_text_gives_items_of_the_session_or_an_answer_error(
    session: Session, text: str
) -> None:
    ids = {item.id for item in session.items}
    try:
        parsed = parse_answer(text, session)
    except AnswerError:
        return
    assert parsed.none is not bool(parsed.bundles)
    assert len({bundle.items for bundle in parsed.bundles}) == len(parsed.bundles)
    for bundle in parsed.bundles:
        assert bundle.items <= ids
        assert bundle.intent.isprintable()


def test_fuzz() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "parser_fuzz.py"
    counts = runpy.run_path(str(script))["fuzz"](2_000, seed=1)
    assert counts["parsed"] > 500
    assert counts["other_exceptions"] == counts["foreign_items"] == counts["unclean_intents"] == 0
