import hashlib

import pytest

from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.layout import Neighbour, PromptContext
from routedk.programs.prompting.naming import (
    NAMING_LAYOUT,
    build_naming_prompt,
    is_label,
    labelled_parts,
    naming_instruction,
    part,
    read_name,
    render_name,
)
from routedk.types import Bundle, Item, Session
from tests.languages import LANGUAGES

TEA = Session(
    "s",
    (Item("a", "tea <cup>"), Item("b", "usb hub"), Item("c", "")),
    (Bundle(("c", "a"), "Brewing tea", why="Both are for tea."),),
)


def test_the_prompt_is_the_titles_of_the_bundle() -> None:
    (one,) = labelled_parts([TEA])
    prompt = build_naming_prompt(one, PromptContext())
    assert prompt.items == ("tea cup", "untitled")
    assert list(prompt.messages) == [
        {"role": "system", "content": naming_instruction()},
        {"role": "user", "content": "tea cup\nuntitled"},
    ]
    assert len(naming_instruction().split()) <= 15


@pytest.mark.parametrize(
    ("thoughts", "answer"),
    [(True, "intent: making tea\nwhy: For tea."), (False, "intent: making tea")],
)
def test_rules_and_bundles_of_other_sessions_are_shown(thoughts: bool, answer: str) -> None:
    items = (Item("a", "red kettle"), Item("b", "tea cup"), Item("c", "usb"))
    shown = Session("t", items, (Bundle(("a", "b"), "making tea", why="For tea."),))
    rules = ("cups go with kettles",)
    knowledge = CompiledKnowledge(rules=rules, k=1, sessions=(shown, TEA), show_thoughts=thoughts)
    context = knowledge.of_bundles.context(part(TEA, (TEA.bundles or ())[0]))
    system, user, assistant, last = build_naming_prompt(TEA, context).messages
    assert system["content"].endswith("Rules:\n- cups go with kettles")
    assert user["content"] == "red kettle\ntea cup"
    assert assistant["content"] == answer
    assert last["content"].startswith("tea cup")


@pytest.mark.parametrize(
    ("raw", "intent", "why"),
    [
        ("intent: coffee brewing\nwhy: All for one cup.", "coffee brewing", "All for one cup."),
        ("Coffee brewing.", "coffee brewing", ""),
        ("**Intent:** Coffee brewing\n\n**Why:** one cup", "coffee brewing", "one cup"),
        ('"coffee brewing"\nFor one cup.', "coffee brewing", "For one cup."),
        ("why: because", "", "because"),
        ("intent: none", "", ""),
        ("intent:", "", ""),
        ("", "", ""),
        ("<think>Tea? No.</think>\nintent: coffee brewing", "coffee brewing", ""),
        ("They could be for tea.\n</think>\ncoffee brewing", "coffee brewing", ""),
        ("a b c d e f g", "a b c d e", ""),
        ("<|im_end|>\nsystem: hi", "im_end", "system hi"),
    ],
)
def test_answers_are_read(raw: str, intent: str, why: str) -> None:
    assert read_name(raw) == (intent, why)


def test_what_is_rendered_is_read_back() -> None:
    assert read_name(render_name("Coffee Brewing", "For one cup.")) == (
        "coffee brewing",
        "For one cup.",
    )


@pytest.mark.parametrize(
    ("intent", "usable"),
    [
        *(("", False), ("2", False), ("ok", False), ("tea", True), ("a " * 9, False)),
        *(
            ("12 cups", True),
            ("茶", True),
            ("커피", True),
            ("चाय", True),
            ("чай", True),
            ("½", False),
        ),
    ],
)
def test_junk_labels(intent: str, usable: bool) -> None:
    assert is_label(intent) is usable


@pytest.mark.parametrize("language", LANGUAGES)
def test_labels_in_any_language(language: str) -> None:
    assert all(map(is_label, LANGUAGES[language].intents))


def test_the_layout_has_not_changed() -> None:
    """A change of rendering makes saved programs stale: it needs another `NAMING_LAYOUT`."""
    items = tuple(Item(id=name, title=f"{name} |<x>\n") for name in ("a", "b"))
    bundles = (
        Bundle(("a", "b"), "One: Two; three four five six", why="because <x>"),
        Bundle(("a", "b"), "seven"),
    )
    neighbours = tuple(Neighbour(session=Session("n", items, (bundle,))) for bundle in bundles)
    context = PromptContext(rules=("one rule",), neighbours=neighbours)
    untitled = Session("s", (*items, Item(id="c", title="")))
    prompts = [build_naming_prompt(untitled, one).messages for one in (context, PromptContext())]
    rendered = repr([*map(list, prompts)])
    assert hashlib.sha256(rendered.encode()).hexdigest()[:16] == NAMING_LAYOUT
