from collections.abc import Sequence

import pytest

from routedk.errors import SettingError
from routedk.eval import (
    BASELINES,
    BaselineData,
    TfidfEncoder,
    evaluate_baselines,
    make_baseline,
)
from routedk.eval.baselines import SameCategory
from routedk.eval.clusters import Clusters, tune_clusters
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
ENCODER = TfidfEncoder(item.title for one in SESSIONS for item in one.items)
DATA = BaselineData(catalogue=SESSIONS, validation=SESSIONS, encoder=ENCODER, training=SESSIONS)


class BaselineContract:
    """What every baseline keeps; inherit and name one."""

    name: str

    @pytest.mark.parametrize("number", range(len(SESSIONS)))
    def test_bundles_are_distinct_sets_of_the_sessions_items(self, number: int) -> None:
        answer = make_baseline(self.name, DATA).predict(SESSIONS[number])
        items = {item.id for item in SESSIONS[number].items}
        assert len(set(answer)) == len(answer)
        assert all(len(bundle) > 1 and bundle <= items for bundle in answer)
        assert bool(answer) == (len(items) > 1)

    def test_gold_is_not_looked_at(self) -> None:
        baseline = make_baseline(self.name, DATA)
        for one in SESSIONS:
            assert baseline.predict(one) == baseline.predict(Session(one.id, one.items))

    def test_the_same_again(self) -> None:
        first, second = make_baseline(self.name, DATA), make_baseline(self.name, DATA)
        assert [first.predict(one) for one in SESSIONS] == [second.predict(one) for one in SESSIONS]


class TestWholeSession(BaselineContract):
    name = "whole-session"


class TestFirstTwo(BaselineContract):
    name = "first-two"


class TestAllPairs(BaselineContract):
    name = "all-pairs"


class TestCategory1(BaselineContract):
    name = "category-1"


class TestCategory2(BaselineContract):
    name = "category-2"


class TestCategory3(BaselineContract):
    name = "category-3"


class TestTitleClusters(BaselineContract):
    name = "title-clusters"


class TestEmbeddingClusters(BaselineContract):
    name = "embedding-clusters"


class TestPairClusters(BaselineContract):
    name = "pair-clusters"


def test_every_baseline_keeps_the_contract() -> None:
    assert {case.name for case in BaselineContract.__subclasses__()} == set(BASELINES)


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(1, ["abce"]), (2, ["ab", "ce"]), (3, ["ce"])],
)
def test_same_category(depth: int, expected: list[str]) -> None:
    paths = [("E", "Cam", "Lens"), ("E", "Cam", "Bag"), ("E", "Pc"), (), ("E", "Pc")]
    one = Session("s", tuple(Item(i, "", path) for i, path in zip("abcde", paths, strict=True)))
    assert SameCategory(depth).predict(one) == [frozenset(word) for word in expected]


def test_no_shared_category_is_the_whole_session() -> None:
    one = Session("s", (Item("a", "", ("X",)), Item("b", "", ("Y",)), Item("c", "")))
    assert SameCategory(1).predict(one) == [frozenset("abc")]
    with pytest.raises(ValueError, match="depth is 0"):
        SameCategory(0)


def test_clusters_fall_back_to_the_whole_session() -> None:
    one = session(["camera", "radio", "lamp"])
    assert Clusters(ENCODER, 0.5).predict(one) == [frozenset("abc")]


def test_threshold_is_the_best_on_validation_and_the_smallest_among_equals() -> None:
    # Titles that share a word are nearer than 0.5, equal ones at 0, all others at 1.
    tuned = tune_clusters(ENCODER, SESSIONS, (0.9, 0.01, 0.5, 1.0))
    assert tuned.threshold == 0.5
    assert tuned.predict(SESSIONS[0]) == [frozenset("ab"), frozenset("cd")]


def test_no_gold_to_tune_on() -> None:
    with pytest.raises(SettingError, match="validation sessions with gold"):
        tune_clusters(ENCODER, [session(["a", "b"])], (0.5,))


def test_unknown_baseline() -> None:
    with pytest.raises(SettingError, match=r"no baseline is called 'magic': choose among whole-"):
        make_baseline("magic", DATA)


def test_systems_say_what_they_were_tuned_on_and_what_leaks() -> None:
    systems = {one.name: one for one in evaluate_baselines(SESSIONS, DATA, seed=0, resamples=50)}
    assert tuple(systems) == tuple(BASELINES)
    assert systems["whole-session"].config == {}
    assert systems["category-2"].config == {"depth": 2, "items_without_category": 7, "leaks": True}
    assert systems["category-2"].leaks
    assert systems["embedding-clusters"].config == {
        "threshold": 0.4,
        "tuned_on": "val",
        "tuned_on_sessions": 2,
    }
    assert systems["embedding-clusters"].result.results["matched"]["f1"].value == 1.0
    assert systems["all-pairs"].result.counts.bundles == 6 + 3
