import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk.programs.prompting.item_intents import (
    LABEL_CHARACTERS,
    LABEL_WORDS,
    NO_INTENT,
    clean_label,
    compose_bundles,
    read_item_intents,
    read_readings,
    render_item_intents,
    render_readings,
    split_labels,
)
from routedk.types import Bundle, Session


def test_readings() -> None:
    readings = [[("tea",), ("tea", "jam")], [(), ("tea",)], [], [("tea",), ("tea",)]]
    thought = "1 tea ~ tea / jam; 2 none ~ tea; 3 none; 4 tea"
    assert render_readings(readings) == thought
    assert read_readings(thought, 5) == [
        [("tea",), ("tea", "jam")],
        [(), ("tea",)],
        [()],
        [("tea",)],
        [],
    ]
    assert read_item_intents(thought, 4) == [("tea",), (), (), ("tea",)]


def test_rendered() -> None:
    labels = [["Tea"], ["tea", "picnic"], [], [NO_INTENT], ["none", "picnic"]]
    assert render_item_intents(labels) == "1 tea; 2 tea / picnic; 3 none; 4 none; 5 picnic"


@pytest.mark.parametrize(
    ("label", "clean"),
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
def test_clean_label(label: str, clean: str) -> None:
    assert clean_label(label) == clean


@given(st.text())
def test_a_clean_label_stays_as_it_is(text: str) -> None:
    label = clean_label(text)
    assert clean_label(label) == label
    assert not set(";/~|<>[]{}\n") & set(label)
    assert 1 <= len(label.split()) <= LABEL_WORDS
    assert len(label) <= LABEL_CHARACTERS
    assert split_labels(label) == (() if label == NO_INTENT else (label,))


@pytest.mark.parametrize(
    ("thought", "labels"),
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
def test_read(thought: str, labels: list[tuple[str, ...]]) -> None:
    assert read_item_intents(thought, 3) == labels


def test_reading_spaces_is_quick() -> None:
    assert read_item_intents("1" + " " * 200_000 + ";2 a", 2) == [(), ("a",)]


def test_composed(make: Callable[..., Session]) -> None:
    session = make("s", list("abcd"))
    labels = [["tea", "cup"], ["tea", "cup"], ["tea", "lone"], []]
    assert compose_bundles(labels, session) == (
        Bundle(("s-1", "s-2", "s-3"), "tea"),
        Bundle(("s-1", "s-2"), "cup"),
    )
    assert compose_bundles([["a", "a"], ["b"], [], []], session) == ()
    same = compose_bundles([["x", "y"], ["y", "x"], [], []], session)
    assert same == (Bundle(("s-1", "s-2"), "x"),)
    with pytest.raises(ValueError, match="shorter"):
        compose_bundles([["a"]], session)


@given(st.lists(st.lists(st.text(max_size=30), max_size=3), min_size=1, max_size=12))
def test_what_is_rendered_is_read_back(labels: list[list[str]]) -> None:
    expected = [
        tuple(dict.fromkeys(c for c in map(clean_label, mine) if c != NO_INTENT)) for mine in labels
    ]
    assert read_item_intents(render_item_intents(labels), len(labels)) == expected


def test_imports_nothing_heavy() -> None:
    code = (
        "import sys, routedk.programs.prompting.item_intents, routedk.programs.prompting.reading\n"
        "sys.exit(bool({'dspy', 'torch', 'transformers', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
