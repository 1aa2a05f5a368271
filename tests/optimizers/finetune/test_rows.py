from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routedk.adapters.student import Student
from routedk.adapters.training.examples import ROLES, AnswerForm, training_rows
from routedk.errors import SettingError
from routedk.optimizers.finetune.lessons import gold_answers, role_lessons, shown_knowledge
from routedk.optimizers.finetune.rows import answered_session, lesson_rows
from routedk.programs.generator import BundleGenerator
from routedk.programs.prompting.layout import build_messages, render_answer, render_items
from routedk.types import Bundle, Item, KnowledgeBase, Session

EXPERTS = ("base", "rule", "thought")
TEA = Session(
    "tea",
    tuple(Item(str(n), title) for n, title in enumerate(["kettle", "tea cup", "usb hub"])),
)


@pytest.fixture
def tokenizer(loaded: Student) -> Any:
    return loaded.tokenizer


@pytest.mark.parametrize("form", ["item-intents", "bundles"])
def test_gold_teaches_what_training_from_sessions_does(
    tokenizer: Any, sessions: list[Session], knowledge: KnowledgeBase, form: AnswerForm
) -> None:
    shown = shown_knowledge(knowledge, sessions)
    gold = gold_answers(sessions, dict(shown.thoughts))
    lessons = role_lessons(BundleGenerator(), gold, shown, EXPERTS, form)
    expected = training_rows(tokenizer, sessions, shown, EXPERTS, form)
    assert lesson_rows(tokenizer, lessons, EXPERTS, form) == expected


def learnt(tokenizer: Any, answer: str, form: AnswerForm, expert: str = "base") -> list[str]:
    """What is written after the session's prompt, one text per completion."""
    prompt = build_messages(TEA)
    messages = [*prompt, {"role": "assistant", "content": answer}]
    lesson = {"messages": messages, "expert": expert}
    # A lesson that can always be learnt, for each of two experts.
    more = [
        {"messages": [*prompt, {"role": "assistant", "content": "1 2 | x"}], "expert": "base"},
        {
            "messages": [*prompt, {"role": "assistant", "content": "Thought: why\n1 2 | x"}],
            "expert": "thought",
        },
    ]
    rows = lesson_rows(tokenizer, [lesson, *more], ("base", "thought"), form)
    if len(rows) == len(more):
        return []
    return [tokenizer.decode(ids).removesuffix("<|im_end|>") for ids, _ in rows[0].lines]


@pytest.mark.parametrize(
    ("answer", "items", "bundles", "thought_first"),
    [
        ("1 2 | tea", ["1 kettle | tea", "2 tea cup | tea", "3 usb hub | none"], "1 2 | tea", None),
        (
            "Thought: 1 brew ~ boil; 2 brew; 3 desk",
            ["1 kettle | brew", "2 tea cup | brew", "3 usb hub | desk"],
            "1 2 | brew",
            "Thought: 1 brew ~ boil; 2 brew; 3 desk\n1 2 | brew",
        ),
        (
            "Thought: both brew\n1 2 | tea",
            ["1 kettle | tea", "2 tea cup | tea", "3 usb hub | none"],
            "1 2 | tea",
            "Thought: both brew\n1 2 | tea",
        ),
        ("- Bundle 1: [1, 2] tea", ["1 kettle | tea", "2 tea cup | tea"], "1 2 | tea", None),
        ("none", None, "none", None),
        ("1 2", None, "1 2", None),
        ("1 2 | tea\n2 3 | tea", None, "1 2 | tea\n2 3 | tea", None),
        ("1 2 | tea (green)", ["1 kettle | tea (green)"], "1 2 | tea (green)", None),
        ("1 9 | tea", None, None, None),
        ("what?", None, None, None),
    ],
)
def test_an_answer_is_learnt_in_the_form_of_the_experts(
    tokenizer: Any,
    answer: str,
    items: Sequence[str] | None,
    bundles: str | None,
    thought_first: str | None,
) -> None:
    found = learnt(tokenizer, answer, "item-intents")
    named = [line for line in items or () if not line.endswith("| none")]
    assert found[: len(named)] == named
    assert bool(found) == bool(named)
    assert learnt(tokenizer, answer, "bundles") == ([bundles] if bundles else [])
    first = learnt(tokenizer, answer, "bundles", "thought")
    assert first == ([thought_first] if thought_first else [])


_WORDS = st.text(st.sampled_from("abz (),.'é|;"), max_size=12)


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(st.lists(_WORDS, min_size=2, max_size=5), st.data())
def test_a_rendered_session_and_answer_are_read_back(
    titles: list[str], data: st.DataObject
) -> None:
    items = tuple(Item(f"i{n}", title) for n, title in enumerate(titles))
    members = st.lists(st.sampled_from(items), min_size=2, unique=True)
    groups = data.draw(st.lists(members, max_size=3, unique_by=frozenset))
    bundles = tuple(Bundle(tuple(item.id for item in mine), data.draw(_WORDS)) for mine in groups)
    session = Session("s", items, bundles)
    lines, answer = render_items(session), render_answer(session, bundles)
    asked = answered_session(lines, answer)
    assert asked is not None
    assert render_items(asked) == lines
    assert render_answer(asked, asked.bundles or ()) == answer


def test_a_prompt_without_a_session_teaches_its_answer(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "tea cup"}]
    (row,) = lesson_rows(tokenizer, [{"messages": messages}], ("base",), "item-intents")
    assert tokenizer.decode(row.lines[0][0]) == "tea cup<|im_end|>"
    assert row.span == (0, len(row.prompt))


def test_what_cannot_be_learnt_is_said(tokenizer: Any) -> None:
    def refused(match: str, *lessons: Any, experts: Any = ("base",), form: Any = "bundles") -> None:
        with pytest.raises(SettingError, match=match):
            lesson_rows(tokenizer, lessons, experts, form)

    prompt = build_messages(TEA)
    good = {"messages": [*prompt, {"role": "assistant", "content": "1 2"}]}
    refused("lesson 1 is not of the form", good, {"prompt": "x"})
    refused("lesson 0 is not of the form", {"messages": prompt})
    refused("lesson 0 is for the expert 'cook'", {**good, "expert": "cook"})
    refused(r"experts \['cook'\]: allowed are base, rule, thought", good, experts=("cook",))
    refused("'verification': such experts judge", good, form="verification")
    refused(
        r"experts \['rule'\] have nothing to learn: none of 1 lessons", good, experts=EXPERTS[:2]
    )
    # Without intents nothing can be said as item intents; what works for one expert of several
    # does not where all are idle.
    refused(
        r"experts \['base'\] have nothing .* in the form 'item-intents'; give knowledge that has",
        good,
        form="item-intents",
    )
    refused(
        r"experts \['thought'\] have .*; leave them out of the settings, or give knowledge "
        r"that has the training sessions' thoughts, and teach gold: RoutedFinetune\(sources=",
        good,
        experts=("base", "thought"),
    )
    assert set(ROLES["bundles"]) == set(EXPERTS)
