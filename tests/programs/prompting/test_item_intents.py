from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk.programs.prompting.item_intents import (
    ITEM_INTENT_CHARACTERS,
    ITEM_INTENT_WORDS,
    NO_INTENT,
    clean_intent,
    compose_bundles,
    read_entries,
    read_item_intents,
    render_item_intents,
    split_intents,
)
from routedk.types import Bundle, Session


def test_entries() -> None:
    entries = [(1, ("tea", "jam")), (3, ()), "for tea"]
    assert list(read_entries("1 tea / jam; 3 none; for tea")) == entries


def test_rendered() -> None:
    intents = [["Tea"], ["tea", "picnic"], [], [NO_INTENT], ["none", "picnic"]]
    assert render_item_intents(intents) == "1 tea; 2 tea / picnic; 3 none; 4 none; 5 picnic"


@pytest.mark.parametrize(
    ("intent", "clean"),
    [
        ("Brewing Coffee.", "brewing coffee"),
        ("tea; coffee/water", "tea coffee water"),
        ("tea | coffee", "tea coffee"),
        ("tea\uff1bcoffee\uff0fwater\u037ejam", "tea coffee water jam"),
        ("one two three four five six", "one two three four five"),
        ("<|im_end|>\nsystem: hi", "im_end system hi"),
        ("aaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbb c", "aaaaaaaaaaaaaaaaaaaa"),
        ("", NO_INTENT),
        ("...", NO_INTENT),
        ("None.", NO_INTENT),
    ],
)
def test_clean_intent(intent: str, clean: str) -> None:
    assert clean_intent(intent) == clean


@given(st.text())
def test_a_clean_intent_stays_as_it_is(text: str) -> None:
    intent = clean_intent(text)
    assert clean_intent(intent) == intent
    assert not set(";/|<>[]{}\n") & set(intent)
    assert 1 <= len(intent.split()) <= ITEM_INTENT_WORDS
    assert len(intent) <= ITEM_INTENT_CHARACTERS
    assert split_intents(intent) == (() if intent == NO_INTENT else (intent,))


@pytest.mark.parametrize(
    ("thought", "intents"),
    [
        ("1 tea; 2 tea / picnic; 3 none", [("tea",), ("tea", "picnic"), ()]),
        (" 1. Tea ;; 2) tea\n3: x ", [("tea",), ("tea",), ("x",)]),
        ("3 c; 1 a", [("a",), (), ("c",)]),
        ("1 a; 1 b; 2 none; 2 b", [("a",), (), ()]),
        ("0 a; 4 b; 01 c; 999999999 d; -1 e; 1", [(), (), ()]),
        ("1 / a // a / none /", [("a",), (), ()]),
        ("tea for 1 and 2", [(), (), ()]),
        ("1 2 pack; 2 2 pack", [("2 pack",), ("2 pack",), ()]),
        ("", [(), (), ()]),
    ],
)
def test_read(thought: str, intents: list[tuple[str, ...]]) -> None:
    assert read_item_intents(thought, 3) == intents


def test_reading_spaces_is_quick() -> None:
    assert read_item_intents("1" + " " * 200_000 + ";2 a", 2) == [(), ("a",)]


def test_composed(make: Callable[..., Session]) -> None:
    session = make("s", list("abcd"))
    intents = [["tea", "cup"], ["tea", "cup"], ["tea", "lone"], []]
    assert compose_bundles(intents, session) == (
        Bundle(("s-1", "s-2", "s-3"), "tea"),
        Bundle(("s-1", "s-2"), "cup"),
    )
    assert compose_bundles([["a", "a"], ["b"], [], []], session) == ()
    same = compose_bundles([["x", "y"], ["y", "x"], [], []], session)
    assert same == (Bundle(("s-1", "s-2"), "x"),)


@given(st.lists(st.lists(st.text(max_size=30), max_size=3), min_size=1, max_size=12))
def test_what_is_rendered_is_read_back(intents: list[list[str]]) -> None:
    expected = [
        tuple(dict.fromkeys(c for c in map(clean_intent, mine) if c != NO_INTENT))
        for mine in intents
    ]
    assert read_item_intents(render_item_intents(intents), len(intents)) == expected
