from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routedk.data import load_sessions
from routedk.programs.prompting.item_intents import (
    clean_intent,
    compose_bundles,
    read_item_intents,
)
from routedk.programs.teachers.annotation_intents import GoldIntents
from routedk.types import Bundle, Item, Session
from tests.languages import LANGUAGES


def implied(thought: str, session: Session) -> set[frozenset[str]]:
    named = read_item_intents(thought, len(session.items))
    return {bundle.items for bundle in compose_bundles(named, session)}


@pytest.fixture
def cafe(make: Callable[..., Session]) -> list[Session]:
    """Two intents, one of them worded in two ways."""
    return [
        make("a", ["Gooseneck Kettle", "Paper Filter", "Sock"], [((1, 2), "Brewing coffee")]),
        make("b", ["Paper Filter 100", "Gooseneck Kettle Red"], [((1, 2), "brewing coffee.")]),
        make("c", ["Gooseneck Kettle 1L", "Paper Filter Box"], [((1, 2), "coffee at home")]),
        make("d", ["Hard Drive", "Data Cable", "Paper Filter"], [((1, 2), "backing up")]),
    ]


def test_alike_intents_get_the_most_frequent_wording(cafe: list[Session]) -> None:
    assert GoldIntents(cafe).wording == {
        "brewing coffee": "brewing coffee",
        "coffee at home": "brewing coffee",
        "backing up": "backing up",
    }


@pytest.mark.parametrize("language", [name for name, one in LANGUAGES.items() if not one.latin])
def test_distinct_intents_stay_so_in_any_script(
    language: str, make: Callable[..., Session]
) -> None:
    """Although the titles are the same; equal ones are one, however they are written."""
    spoken = LANGUAGES[language]
    sessions = [
        make(f"{copy}{n}", [f"{title} {n}" for title in spoken.camera], [((1, 2, 3), written)])
        for n, intent in enumerate(spoken.intents)
        for copy, written in enumerate((intent, f" {intent}.", intent.capitalize()))
    ]
    intents = GoldIntents(sessions)
    for n, intent in enumerate(spoken.intents):
        stated = clean_intent(intent)
        for session in sessions[3 * n : 3 * n + 3]:
            assert intents.thought(session) == f"1 {stated}; 2 {stated}; 3 {stated}"


def test_intents_in_latin_letters_are_merged_in_other_languages_too(
    make: Callable[..., Session],
) -> None:
    spoken = LANGUAGES["german"]
    worded = ["Kaffee kochen", "Kaffee kochen", "Kaffee zubereiten"]
    sessions = [make(f"s{n}", spoken.coffee, [((1, 2), intent)]) for n, intent in enumerate(worded)]
    sessions.append(make("t", spoken.camera, [((1, 2, 3), "Kamerazubehör")]))
    assert GoldIntents(sessions).wording == {
        "kaffee kochen": "kaffee kochen",
        "kaffee zubereiten": "kaffee kochen",
        "kamerazubehör": "kamerazubehör",
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_intents_of_one_session_are_not_numbered(
    language: str, make: Callable[..., Session]
) -> None:
    spoken = LANGUAGES[language]
    gold = [((n, n + 1), intent) for n, intent in enumerate(spoken.intents, start=1)]
    session = make("s", [f"{spoken.camera[0]} {n}" for n in range(7)], gold)
    named = read_item_intents(GoldIntents([session]).thought(session), 7)
    stated = [clean_intent(intent) for intent in spoken.intents]
    assert list(dict.fromkeys(intent for mine in named for intent in mine)) == stated


def test_an_item_outside_all_bundles_has_none(
    cafe: list[Session], make: Callable[..., Session]
) -> None:
    intents = GoldIntents(cafe)
    assert intents.thought(cafe[3]) == "1 backing up; 2 backing up; 3 none"
    assert intents.thought(make("e", ["Paper Filter", "Sock"], [])) == "1 none; 2 none"


def test_bundles_of_one_session_stay_apart(make: Callable[..., Session]) -> None:
    intent = "watching wild birds early every morning"
    gold = [((1, 2), intent), ((2, 3), intent), ((3, 4), "2"), ((1, 4), "none")]
    session = make("s", ["Scope", "Tripod", "Hide", "Book"], gold)
    assert GoldIntents([session]).thought(session) == (
        "1 watching wild birds early every / bundle 2; "
        "2 watching wild birds early every / watching wild birds early 2; "
        "3 watching wild birds early 2 / bundle; 4 bundle / bundle 2"
    )


@pytest.mark.parametrize("titles", [("", ""), ("the", "?")])
@pytest.mark.parametrize("intent", ["computer system", "system", "电脑", ""])
def test_sessions_without_words(
    titles: tuple[str, str], intent: str, make: Callable[..., Session]
) -> None:
    sessions = [
        make("s", [*titles, ""], [((1, 2), intent)]),
        make("t", [*titles, ""], [((2, 3), "tea")]),
    ]
    for session in sessions:
        assert implied(GoldIntents(sessions).thought(session), session) == set(session.gold)


def test_every_thought_implies_the_gold_bundles() -> None:
    sessions = load_sessions("demo")
    intents = GoldIntents(sessions)
    for session in sessions:
        assert implied(intents.thought(session), session) == set(session.gold)


@st.composite
def annotated(draw: st.DrawFn) -> Session:
    count = draw(st.integers(2, 6))
    words = st.sampled_from(["kettle", "usb hub", "tea / jam; cup", "a b c d e f", "none", "2", ""])
    items = tuple(Item(f"i{n}", draw(words)) for n in range(count))
    sets = draw(st.lists(st.sets(st.sampled_from(items), min_size=2), max_size=3))
    bundles = tuple(
        Bundle(tuple(sorted(item.id for item in chosen)), draw(words | st.text(max_size=30)))
        for chosen in sets
    )
    return Session(draw(st.uuids()).hex, items, bundles)


@settings(max_examples=60, deadline=None)
@given(st.lists(annotated(), min_size=1, max_size=3))
def test_any_gold_is_implied(sessions: list[Session]) -> None:
    intents = GoldIntents(sessions)
    for session in sessions:
        assert implied(intents.thought(session), session) == set(session.gold)
