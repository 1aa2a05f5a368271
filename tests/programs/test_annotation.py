from collections.abc import Callable
from pathlib import Path

import pytest

from routedk.data import DataOptions, demo_sessions, load_sessions, split_sessions
from routedk.data.knowledge_file import sources_of
from routedk.errors import SettingError
from routedk.programs.prompting.text import RULE_WORDS, THOUGHT_WORDS, neutralise
from routedk.programs.prompting.wording import Kinds, intent_words, plain_intent, short_title, stem
from routedk.programs.teachers.annotation import AnnotationTeacher
from routedk.programs.teachers.annotation_intents import ItemIntents
from routedk.types import Item, KnowledgeBase, Session


@pytest.fixture(scope="module")
def demo() -> KnowledgeBase:
    return AnnotationTeacher().distill(demo_sessions())


def test_deterministic_and_independent_of_other_sessions(demo: KnowledgeBase) -> None:
    assert AnnotationTeacher().distill(demo_sessions()) == demo


def test_provenance_is_the_sessions_given() -> None:
    training = demo_sessions()[:60]
    knowledge = AnnotationTeacher().distill(training)
    assert sources_of(knowledge) == {session.id for session in training}
    assert all(t.provenance.sessions == (t.session_id,) for t in knowledge.thoughts)
    assert {r.provenance.teacher for r in knowledge.rules} == {"annotation"}


def test_rules_name_what_goes_together(demo: KnowledgeBase) -> None:
    texts = [rule.text for rule in demo.rules]
    assert len(texts) == len(set(texts)) == 20
    assert all(len(text.split()) <= RULE_WORDS for text in texts)
    coffee = next(text for text in texts if "coffee" in text)
    assert coffee.startswith("For ")
    assert "kettle" in coffee
    assert any("stay out" in text for text in texts)


def test_each_theme_has_one_rule_in_the_words_of_thoughts(demo: KnowledgeBase) -> None:
    labels = set(ItemIntents(demo_sessions()).wording.values())
    named = [r.text.split(",")[0].removeprefix("For ") for r in demo.rules if "For " in r.text]
    assert sorted(named) == sorted(labels)
    assert len(labels) == 18


@pytest.mark.parametrize("most", [0, 1, 5])
def test_rules_are_bounded(most: int) -> None:
    assert len(AnnotationTeacher(max_rules=most).distill(demo_sessions()[:80]).rules) == most
    with pytest.raises(SettingError, match="max_rules=-1: it must be at least 0"):
        AnnotationTeacher(max_rules=-1)


def test_rules_from_titles_where_there_are_no_categories(make: Callable[..., Session]) -> None:
    kettle, filters = "Acme Gooseneck Kettle", "Bolt Paper Filter"
    drive, cable = "Acme Hard Drive", "Bolt Data Cable"
    sessions = [
        make(f"s{n}", [f"{one} {n}", f"{other} {n}", f"Sock {n}"], [((1, 2), intent)])
        for n, (one, other, intent) in enumerate(
            [(kettle, filters, "brewing coffee"), (drive, cable, "backing up")] * 3
        )
    ]
    texts = [rule.text for rule in AnnotationTeacher().distill(sessions).rules]
    assert "For brewing coffee, bundle gooseneck kettle with paper filter." in texts


def test_junk_intents_make_no_rule(make: Callable[..., Session]) -> None:
    sessions = [
        make(f"s{n}", ["Red Kettle", "Tea Mug"], [((1, 2), intent)])
        for n, intent in enumerate(["2", "nice", "", "nice", "good items", "2"])
    ]
    assert not [r for r in AnnotationTeacher().distill(sessions).rules if r.text.startswith("For")]


def test_thoughts_are_whole_and_of_their_session(demo: KnowledgeBase) -> None:
    sessions = {session.id: session for session in demo_sessions()}
    intents = ItemIntents(list(sessions.values()))
    assert set(sessions) == {thought.session_id for thought in demo.thoughts}
    for thought in demo.thoughts:
        assert thought.text == intents.thought(sessions[thought.session_id])
        assert thought.text == neutralise(thought.text, THOUGHT_WORDS)


def test_sessions_nobody_annotated_add_nothing(make: Callable[..., Session]) -> None:
    assert AnnotationTeacher().distill([make("s", ["a", "b"])]) == KnowledgeBase()
    assert AnnotationTeacher().distill([]) == KnowledgeBase()


def test_sense_on_real_data(bundlerec: Path) -> None:
    folder = bundlerec / "electronic"
    options = DataOptions(
        extra_titles=folder / "item_titles_extra.csv", split_file=folder / "split_aicl.json"
    )
    training = split_sessions(load_sessions(folder, options), options)["train"]
    texts = [rule.text for rule in AnnotationTeacher().distill(training).rules]
    assert any("desktop" in text and "motherboards" in text for text in texts)
    assert any("camera" in text for text in texts)
    assert not any("nice" in text for text in texts)


@pytest.mark.parametrize(
    ("intent", "words", "phrase"),
    [
        ("Camera Accessories", ("camera",), "camera accessories"),
        ("watching TV with iPad", ("watching", "tv", "ipad"), "watching TV with iPad"),
        ("batteries.", ("battery",), "batteries"),
        ("2", (), ""),
        ("nice", (), ""),
        ("", (), ""),
        ("Café Besuch", ("café", "besuch"), "café besuch"),
    ],
)
def test_intents(intent: str, words: tuple[str, ...], phrase: str) -> None:
    assert intent_words(intent) == words
    assert plain_intent(intent) == phrase


@pytest.mark.parametrize(
    ("word", "expected"),
    [("batteries", "battery"), ("cases", "case"), ("glass", "glass"), ("tv", "tv")],
)
def test_stem(word: str, expected: str) -> None:
    assert stem(word) == expected


@pytest.mark.parametrize(
    ("item", "name"),
    [
        (Item("1", "Mophie Juice Pack Air Battery Case for iPhone 5"), "battery case"),
        (Item("1", "EN-EL15, Battery Charger"), "battery charger"),
        (Item("1", "", ("Home", "Tea Pots")), "tea pots"),
        (Item("1", ""), "untitled item"),
        (Item("1", "12 34"), "untitled item"),
    ],
)
def test_short_title(item: Item, name: str) -> None:
    assert short_title(item, 2) == name


def test_an_item_without_category_has_no_kind_among_items_with(
    make: Callable[..., Session],
) -> None:
    session = make("s", ["Red Kettle", "Tea Mug", "Sock"], [], [("Tea",), ("Mugs",), ()])
    kinds = Kinds([session])
    assert [kinds.of(item) for item in session.items] == ["tea", "mugs", ""]
