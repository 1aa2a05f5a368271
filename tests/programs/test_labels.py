"""Labels: gold, a teacher's answers, or both."""

from dataclasses import replace
from typing import Any

import pytest

from routedk import Bundle, DataError, Item, KnowledgeBase, Provenance, Session
from routedk.programs.labels import (
    bundle_places,
    choose_labels,
    compose_sessions,
    telling_items,
)
from routedk.types import TeacherAnswer

ITEMS = tuple(Item(name, f"title {name}") for name in "abcd")
GOLD = (Bundle(("a", "b")),)
STATED = (Bundle(("c", "d")),)
SOURCE = Provenance(teacher="someone")


def answered(name: str, items: tuple[Item, ...] = ()) -> TeacherAnswer:
    return TeacherAnswer(
        session_id=name,
        bundles=STATED,
        item_intents={"a": "tea"},
        items=items,
        provenance=SOURCE,
    )


def test_what_is_hashed_tells_labels_apart_and_not_pictures() -> None:
    def record(items: tuple[Item, ...], gold: tuple[Bundle, ...]) -> dict[str, Any]:
        return choose_labels([Session("s", items, gold)], KnowledgeBase())[0].record

    pictured = tuple(replace(item, image="https://shop.example/a.jpg") for item in ITEMS)
    assert record(pictured, GOLD) == record(ITEMS, GOLD)
    assert record(ITEMS, STATED) != record(ITEMS, GOLD) != record(ITEMS[::-1], GOLD)


def test_labels_are_what_was_asked_for() -> None:
    sessions = [Session("both", ITEMS, GOLD), Session("told", ITEMS), Session("gold", ITEMS, GOLD)]
    knowledge = KnowledgeBase(answers=(answered("both"), answered("told")))
    found = {
        labels: {
            one.session.id: [(b, w) for b, w in one.labels]
            for one in choose_labels(sessions, knowledge, labels, 0.25)  # type: ignore[arg-type]
        }
        for labels in ("gold", "teacher", "both")
    }
    assert found["gold"] == {"both": [(GOLD, 1.0)], "gold": [(GOLD, 1.0)]}
    assert found["teacher"] == {"both": [(STATED, 1.0)], "told": [(STATED, 1.0)]}
    assert found["both"] == {
        "both": [(GOLD, 0.75), (STATED, 0.25)],
        "told": [(STATED, 1.0)],
        "gold": [(GOLD, 1.0)],
    }


def test_a_session_comes_once_with_each_label_and_never_with_others() -> None:
    knowledge = KnowledgeBase(answers=(answered("s"),))
    (one,) = choose_labels([Session("s", ITEMS, GOLD)], knowledge)
    assert one.session.bundles is None
    assert [session.bundles for session in one.sessions] == [GOLD, STATED]
    assert one.item_intents == {"a": "tea"}


def test_a_teachers_own_sessions_are_learned_from() -> None:
    own = replace(answered("composed", ITEMS), bundles=())
    found = choose_labels([Session("s", ITEMS, GOLD)], KnowledgeBase(answers=(own,)))
    assert [(one.session.id, one.labels) for one in found[1:]] == [("composed", [((), 1.0)])]
    assert [
        one.session.id
        for one in choose_labels([Session("s", ITEMS, GOLD)], KnowledgeBase(answers=(own,)), "gold")
    ] == ["s"]


@pytest.mark.parametrize(
    ("labels", "said"),
    [("gold", "has a gold bundle"), ("teacher", "has a bundle of a teacher"), ("both", "a bundle")],
)
def test_without_a_bundle_there_is_nothing_to_learn(labels: str, said: str) -> None:
    with pytest.raises(DataError, match=f"none of 2 training sessions has .*{said.split()[-1]}"):
        choose_labels([Session("s", ITEMS), Session("t", ITEMS, ())], KnowledgeBase(), labels)  # type: ignore[arg-type]


def test_composed_sessions_mix_items_and_hold_nothing() -> None:
    sessions = [
        Session(str(n), tuple(Item(f"{n}-{k}", f"{n} {k}") for k in range(4))) for n in range(9)
    ]
    composed = compose_sessions(sessions, 20, seed=1)
    assert composed == compose_sessions(sessions, 20, seed=1)
    assert len(composed) == 20
    for one in composed:
        origins = [item.id.split("-")[0] for item in one.session.items]
        assert len(set(origins)) == len(origins) >= 2
        assert one.labels == [((), 1.0)]


def test_items_that_tell_nothing_are_left_out() -> None:
    untold = (Item("x", ""), Item("y", "SKU 4711"))
    bundles = (Bundle(("a", "x"), "gone"), Bundle(("a", "b", "y"), "cut"))
    sessions = [
        Session("s", (*ITEMS, *untold), bundles),
        Session("t", (ITEMS[0], *untold), (Bundle(("a", "x")),)),
    ]
    (one,) = telling_items(choose_labels(sessions, KnowledgeBase()))
    assert one.session.items == ITEMS
    lost = Session("u", (*ITEMS, *untold), (Bundle(("a", "x")),))
    assert telling_items(choose_labels([lost], KnowledgeBase())) == []
    assert one.gold == (Bundle(("a", "b"), "cut"),)


def test_places_of_bundles() -> None:
    assert bundle_places(Session("s", ITEMS), [Bundle(("d", "a"))]) == [frozenset({0, 3})]
