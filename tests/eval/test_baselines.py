from collections.abc import Sequence

import pytest

from routedk.errors import SettingError
from routedk.eval import BASELINES, EvaluateConfig, System, evaluate
from routedk.eval.clusters import Clusters, tune_clusters
from routedk.eval.suite import SameCategory, make_baselines
from routedk.similarity import TfidfEncoder
from routedk.types import Bundle, Item, Session


def session(titles: Sequence[str], *gold: str, name: str = "s") -> Session:
    """Items a, b, c, ... with these titles; gold bundles as words of their ids."""
    items = tuple(Item(chr(97 + n), title) for n, title in enumerate(titles))
    return Session(name, items, tuple(Bundle(tuple(word)) for word in gold))


SESSIONS = [
    session(["camera lens", "lens camera", "usb cable", "usb cable hub"], "ab", "cd", name="1"),
    session(["desk lamp", "lamp", "radio"], "ab", name="2"),
    session(["tablet"], name="3"),
    session(["", " ", "the"], name="4"),
]
OTHERS = [Session(f"t{one.id}", one.items, one.bundles) for one in SESSIONS[:2]]
ENCODER = TfidfEncoder(item.title for one in SESSIONS for item in one.items)
MADE, AGAIN = (make_baselines(SESSIONS, SESSIONS, SESSIONS, ENCODER) for _ in range(2))


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_keeps_the_contract(name: str) -> None:
    baseline, again = MADE[name], AGAIN[name]
    for one in SESSIONS:
        bundles = baseline(one)
        items = {item.id for item in one.items}
        assert len(set(bundles)) == len(bundles)
        assert all(len(bundle) > 1 and bundle <= items for bundle in bundles)
        # Clusters bundle items with a title only; of session 4 it is one.
        assert bool(bundles) == (len(items) > 1 and not (one.id == "4" and "clusters" in name))
        # Gold is not looked at, and the same session gives the same bundles.
        assert bundles == again(Session(one.id, one.items))


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(1, ["abce"]), (2, ["ab", "ce"]), (3, ["ce"])],
)
def test_same_category(depth: int, expected: list[str]) -> None:
    paths = [("E", "Cam", "Lens"), ("E", "Cam", "Bag"), ("E", "Pc"), (), ("E", "Pc")]
    one = Session("s", tuple(Item(i, "", path) for i, path in zip("abcde", paths, strict=True)))
    assert SameCategory(depth)(one) == [frozenset(word) for word in expected]


def test_no_shared_category_is_the_whole_session() -> None:
    one = Session("s", (Item("a", "", ("X",)), Item("b", "", ("Y",)), Item("c", "")))
    assert SameCategory(1)(one) == [frozenset("abc")]


def test_clusters_fall_back_to_the_whole_session() -> None:
    one = session(["camera", "radio", "lamp"])
    assert Clusters(ENCODER, 0.5)(one) == [frozenset("abc")]


def test_an_item_without_a_title_is_in_no_cluster() -> None:
    one = session(["camera lens", "", "lens camera", " "])
    assert Clusters(ENCODER, 0.5)(one) == [frozenset("ac")]
    assert Clusters(ENCODER, 0.5)(session(["camera", "", "radio"])) == [frozenset("ac")]
    assert Clusters(ENCODER, 0.5)(session(["", "", "radio"])) == []


def test_the_curve_of_clusters_has_no_fall_back() -> None:
    sessions = [*SESSIONS[:2], session(["camera", "radio", "desk lamp"], name="5")]
    rows = {row.threshold: row for row in Clusters(ENCODER, 0.98).curve(sessions)}
    assert 0.98 in rows
    assert (rows[0.6].left_empty, rows[0.6].f1) == (1.0, 1.0)
    # Cut far below, nothing is bundled anywhere.
    assert (rows[0.05].left_empty, rows[0.05].f1) == (1.0, pytest.approx(0.5 * 2 / 3))


def test_threshold_is_the_best_on_validation_and_the_smallest_among_equals() -> None:
    # Titles that share a word are nearer than 0.5, equal ones at 0, all others at 1.
    tuned = tune_clusters(ENCODER, SESSIONS, (0.9, 0.01, 0.5, 1.0))
    assert tuned.threshold == 0.5
    assert tuned(SESSIONS[0]) == [frozenset("ab"), frozenset("cd")]


def test_no_gold_to_learn_from() -> None:
    with pytest.raises(SettingError, match="validation sessions with gold"):
        tune_clusters(ENCODER, [session(["a", "b"])], (0.5,))
    assert "pair-clusters" not in make_baselines(SESSIONS, SESSIONS, (), ENCODER)


def baselines(
    training: list[Session], validation: list[Session], scored: Sequence[Session] = SESSIONS
) -> dict[str, System]:
    report = evaluate(
        scored,
        config=EvaluateConfig(baselines=True, resamples=50),
        training=training,
        validation=validation,
        encoder=ENCODER,
    )
    return {system.name: system for system in report.baselines}


def test_systems_say_what_they_were_tuned_on_and_what_leaks() -> None:
    systems = baselines(OTHERS, SESSIONS)
    assert tuple(systems) == BASELINES
    assert systems["whole-session"].config == {}
    assert systems["category-2"].config == {"depth": 2, "items_without_category": 7, "leaks": True}
    assert systems["category-2"].leaks
    assert systems["embedding-clusters"].config == {
        "threshold": 0.4,
        "tuned_on": "val",
        "tuned_on_sessions": 2,
    }
    assert systems["pair-clusters"].config["learnt_from_sessions"] == 2
    assert systems["embedding-clusters"].f1.value == 1.0
    assert systems["all-pairs"].counts.bundles == 6 + 3
    # Sessions 3 and 4 are annotated as empty: one item; one title. Two items are a bundle at once.
    assert [left_empty(systems[name]) for name in ("first-two", "title-clusters")] == [0.5, 1.0]
    assert systems["title-clusters"].empties_curve
    assert not systems["first-two"].empties_curve


def test_clusters_that_meet_untitled_items_are_flagged() -> None:
    bare = session(["desk lamp", "lamp", ""], "ab", name="5")
    systems = baselines(OTHERS, SESSIONS, [*SESSIONS, bare])
    assert systems["title-clusters"].config["items_without_title"] == 1
    assert systems["title-clusters"].leaks
    assert not systems["whole-session"].leaks


def left_empty(system: System) -> float:
    assert system.empties is not None
    return system.empties.left_empty.value


def test_training_sessions_choose_thresholds_where_no_validation_session_can() -> None:
    systems = baselines([*OTHERS, SESSIONS[0]], [])
    assert "pair-clusters" not in systems
    tuned_on = systems["title-clusters"].config
    assert (tuned_on["tuned_on"], tuned_on["tuned_on_sessions"]) == ("train", 2)
