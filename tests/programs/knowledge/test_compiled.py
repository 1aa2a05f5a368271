from collections.abc import Callable
from dataclasses import replace

import pytest

from routedk.errors import SettingError
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting import layout
from routedk.types import Pattern, Provenance, Session


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": -1}, "k=-1: it must be at least 0"),
        ({"rules_shown": 0}, "rules_shown=0: it must be at least 1"),
        ({"patterns_shown": 0}, "patterns_shown=0: it must be at least 1"),
        ({"k": 1}, "k=1 without training sessions"),
        (
            {"retriever": "no/such/folder"},
            "retriever 'no/such/folder' is no sentence-transformers model",
        ),
    ],
)
def test_knowledge_is_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        CompiledKnowledge(**settings)  # type: ignore[arg-type]


def test_the_nearest_rules_are_shown(tea: Session, make: Callable[..., Session]) -> None:
    rules = ("usb cable and hub", "tea cup with kettle", "boots")
    knowledge = CompiledKnowledge(rules=rules, rules_shown=2)
    assert knowledge.context(tea).rules == (rules[0], rules[1])
    desk = make("s", ["desk", "usb cable"])
    assert replace(knowledge, rules_shown=1).context(desk).rules == (rules[0],)
    # Those without a word in common keep their order, the first being the nearest.
    assert knowledge.context(make("s", ["sock"])).rules == (rules[1], rules[0])
    wordless = CompiledKnowledge(rules=("?", "the"), rules_shown=1)
    assert wordless.context(tea).rules == ("?",)
    few = CompiledKnowledge(rules=rules, rules_shown=3)
    assert few.context(tea).rules == CompiledKnowledge(rules=rules).context(tea).rules == rules


def test_the_nearest_patterns_are_shown(tea: Session) -> None:
    names = (("USB Hub", "Cable"), ("Tea", "Kettle"), ("Socks", "Boots"))
    patterns = tuple(
        Pattern(
            categories=pair,
            support=0.1,
            confidence=0.5,
            lift=2.0,
            provenance=Provenance(teacher="annotation"),
        )
        for pair in names
    )
    knowledge = CompiledKnowledge(patterns=patterns, patterns_shown=2)
    assert knowledge.context(tea).patterns == (patterns[0], patterns[1])
    assert CompiledKnowledge(patterns=patterns).context(tea).patterns == patterns
    shown = BundleGenerator(knowledge).messages(tea)
    assert shown == [*layout.build_prompt(tea, knowledge.context(tea)).messages]
    assert "Often bundled together:\n- USB Hub + Cable\n- Tea + Kettle" in shown[0]["content"]


def test_neighbours_need_gold(tea: Session) -> None:
    with pytest.raises(SettingError, match="'tea' has no gold"):
        CompiledKnowledge(sessions=(Session(tea.id, tea.items),))
