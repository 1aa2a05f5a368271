from collections.abc import Callable
from statistics import mean

from routedk import Session
from routedk.data import DataOptions, has_title, load_sessions, split_sessions
from routedk.eval import matched_f1
from routedk.eval.suite import SameCategory

SESSIONS = load_sessions("demo")
ANNOTATED = [session for session in SESSIONS if session.bundles]


def test_the_set_is_the_same_every_time() -> None:
    assert load_sessions("demo") == SESSIONS
    first = SESSIONS[0]
    assert [item.title for item in first.items[:2]] == [
        "Quillon Magnetic Controller Charging Dock",
        "Pixen Surround Gaming Soundbar",
    ]


def test_shape() -> None:
    assert len(SESSIONS) == 300
    assert len({s.items[0].categories[0] for s in SESSIONS}) == 3
    assert {len(session.items) for session in SESSIONS} == {4, 5, 6, 7, 8}
    items = [item for session in SESSIONS for item in session.items]
    assert all(map(has_title, items))
    assert all(item.price and item.price > 0 and len(item.categories) == 3 for item in items)
    assert all(len({item.categories[0] for item in s.items}) == 1 for s in SESSIONS)
    assert all(bundle.intent for session in ANNOTATED for bundle in session.bundles or ())
    assert all(2 <= len(gold) <= 5 for session in ANNOTATED for gold in session.gold)


def test_some_overlap_some_have_none_most_have_distractors() -> None:
    none = sum(session.bundles == () for session in SESSIONS)
    overlapping = sum(len(s.gold) == 2 and bool(s.gold[0] & s.gold[1]) for s in SESSIONS)
    distracted = sum(set().union(*s.gold) < {item.id for item in s.items} for s in ANNOTATED)
    assert 0.06 < none / 300 < 0.14
    assert 0.08 < overlapping / 300 < 0.18
    assert distracted / len(ANNOTATED) > 0.9


def test_categories_do_not_solve_it() -> None:
    def f1(predict: Callable[[Session], list[frozenset[str]]]) -> float:
        return mean(matched_f1(session.gold, predict(session)) for session in ANNOTATED)

    whole = f1(lambda session: [frozenset(item.id for item in session.items)])
    assert 0.4 < whole < 0.6
    assert f1(SameCategory(2)) < whole
    assert f1(SameCategory(3)) < whole


def test_minimal_rule_changes_nothing() -> None:
    assert load_sessions("demo", DataOptions(gold="all")) == SESSIONS


def test_what_the_test_split_asks_was_taught() -> None:
    parts = split_sessions(SESSIONS)
    intents = {
        part: {bundle.intent for session in parts[part] for bundle in session.bundles or ()}
        for part in ("train", "test")
    }
    assert intents["test"] <= intents["train"]
