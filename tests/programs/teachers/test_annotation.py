from collections.abc import Callable
from typing import Any

import pytest

from routedk.data import load_sessions
from routedk.data.knowledge_file import sources_of
from routedk.programs.prompting.item_intents import clean_intent, read_item_intents
from routedk.programs.prompting.text import RULE_WORDS
from routedk.programs.teachers.annotation import annotation_knowledge
from routedk.programs.teachers.annotation_intents import GoldIntents
from routedk.programs.teachers.config import DistillConfig
from routedk.types import KnowledgeBase, Session
from tests.languages import LANGUAGES


def distilled(sessions: list[Session], **settings: Any) -> KnowledgeBase:
    return annotation_knowledge(sessions, DistillConfig(**settings))


@pytest.fixture(scope="module")
def demo() -> KnowledgeBase:
    return distilled(load_sessions("demo"))


def test_provenance_is_the_sessions_given() -> None:
    training = load_sessions("demo")[:60]
    knowledge = distilled(training)
    assert sources_of(knowledge) == {session.id for session in training}
    assert all(t.provenance.sessions == (t.session_id,) for t in knowledge.thoughts)
    assert {r.provenance.teacher for r in knowledge.rules} == {"annotation"}


def test_rules_name_what_goes_together(demo: KnowledgeBase) -> None:
    texts = [rule.text for rule in demo.rules]
    assert len(texts) == len(set(texts)) == 18
    assert all(len(text.split()) <= RULE_WORDS for text in texts)
    coffee = next(text for text in texts if "coffee" in text)
    assert coffee.startswith("For ")
    assert "kettle" in coffee


def test_each_theme_has_one_rule_in_the_words_of_thoughts(demo: KnowledgeBase) -> None:
    labels = set(GoldIntents(load_sessions("demo")).wording.values())
    named = [rule.text.split(",")[0].removeprefix("For ") for rule in demo.rules]
    assert sorted(named) == sorted(labels)
    assert len(labels) == 18


@pytest.mark.parametrize("most", [0, 1, 5])
def test_rules_are_bounded(most: int) -> None:
    assert len(distilled(load_sessions("demo")[:80], max_rules=most).rules) == most


def test_rules_from_titles_where_there_are_no_categories(make: Callable[..., Session]) -> None:
    kettle, filters = "Acme Gooseneck Kettle", "Bolt Paper Filter"
    drive, cable = "Acme Hard Drive", "Bolt Data Cable"
    sessions = [
        make(f"s{n}", [f"{one} {n}", f"{other} {n}", f"Sock {n}"], [((1, 2), intent)])
        for n, (one, other, intent) in enumerate(
            [(kettle, filters, "brewing coffee"), (drive, cable, "backing up")] * 3
        )
    ]
    texts = [rule.text for rule in distilled(sessions).rules]
    assert "For brewing coffee, bundle gooseneck kettle with paper filter." in texts


def test_junk_intents_make_no_rule(make: Callable[..., Session]) -> None:
    sessions = [
        make(f"s{n}", ["Red Kettle", "Tea Mug"], [((1, 2), intent)])
        for n, intent in enumerate(["2", "nice", "", "nice", "good items", "2"])
    ]
    assert not distilled(sessions).rules


def test_formats_are_made_as_asked(demo: KnowledgeBase) -> None:
    assert distilled(load_sessions("demo"), formats=("rule",)) == KnowledgeBase(rules=demo.rules)
    assert distilled([]) == KnowledgeBase()


@pytest.mark.parametrize("language", ["chinese", "german", "russian", "arabic"])
def test_other_languages(language: str, make: Callable[..., Session]) -> None:
    """Thoughts and rules name the intents and the titles as they were given."""
    spoken = LANGUAGES[language]
    about = ((spoken.intents[0], spoken.camera), (spoken.intents[1], spoken.coffee))
    sessions = [
        make(f"s{n}{copy}", [*titles, f"{n}{copy}"], [(range(1, len(titles) + 1), intent)])
        for n, (intent, titles) in enumerate(about)
        for copy in range(2)
    ]
    knowledge = distilled(sessions)
    stated = [clean_intent(intent) for intent, _ in about for _ in range(2)]
    for thought, intent, session in zip(knowledge.thoughts, stated, sessions, strict=True):
        bundled = len(session.items) - 1
        assert read_item_intents(thought.text, bundled + 1) == [(intent,)] * bundled + [()]
    assert len(knowledge.rules) == 2
    for rule in knowledge.rules:
        intent, bundled = rule.text.removeprefix("For ").removesuffix(".").split(", bundle ")
        assert intent in stated
        titles = " ".join(dict(about)[spoken.intents[stated.index(intent) // 2]]).lower()
        assert all(
            word in titles for word in bundled.split() if word not in ("with", "several", "and")
        )
