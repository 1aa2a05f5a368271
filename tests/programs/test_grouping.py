import numpy as np
import pytest
from numpy.typing import NDArray

from routedk.errors import SettingError
from routedk.programs.grouping import SimilarIntents
from routedk.similarity.pairs import PairModel
from routedk.types import Item, Session

VECTORS = {
    "lens": (1.0, 0.0, 0.0),
    "filter": (0.0, 1.0, 0.0),
    "mug": (0.0, 0.0, 1.0),
    "camera": (1.0, 0.0, 0.0),
    "camera gear": (0.8, 0.6, 0.0),
    "coffee": (0.0, 0.0, 1.0),
}


class TableEncoder:
    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        return np.array([VECTORS[text] for text in texts], dtype=np.float32)


@pytest.fixture
def session() -> Session:
    return Session("s", (Item("a", "lens"), Item("b", "filter"), Item("c", "mug")))


INTENTS = [[("camera",)], [("camera gear",)], [("coffee",)]]


def test_alike_intents_meet_although_their_words_differ(session: Session) -> None:
    grouping = SimilarIntents(weight=1.0, threshold=0.3)
    (bundle,) = grouping.bundles(session, INTENTS, TableEncoder())
    assert bundle.item_ids == ("a", "b")
    assert bundle.intent == "camera"


def test_weight_mixes_intents_and_titles(session: Session) -> None:
    # Titles are at right angles, so the distance of a and b is 1 - 0.5 * 0.8.
    for threshold, bundles in ((0.59, 0), (0.61, 1)):
        grouping = SimilarIntents(weight=0.5, threshold=threshold, fall_back=False)
        assert len(grouping.bundles(session, INTENTS, TableEncoder())) == bundles


def test_without_a_cluster_the_session_is_whole_or_has_none(session: Session) -> None:
    for fall_back, sizes in ((True, [3]), (False, [])):
        grouping = SimilarIntents(weight=1.0, threshold=0.0, fall_back=fall_back)
        found = grouping.bundles(session, INTENTS, TableEncoder())
        assert [len(bundle.item_ids) for bundle in found] == sizes


def test_an_item_without_an_intent_is_compared_by_its_title(session: Session) -> None:
    grouping = SimilarIntents(weight=1.0, threshold=0.1, fall_back=False)
    (bundle,) = grouping.bundles(session, [[("camera",)], [("coffee",)], []], TableEncoder())
    assert bundle.item_ids == ("b", "c")
    assert bundle.intent == "coffee"


def test_less_likely_candidates_count_less(session: Session) -> None:
    """The second candidate of a is that of c; with weight 1/2 its cosine with c is 1 / sqrt(5)."""
    candidates = [[("camera",), ("coffee",)], [], [("coffee",)]]
    for threshold, bundles in ((0.55, 0), (0.56, 1)):
        grouping = SimilarIntents(weight=1.0, threshold=threshold, fall_back=False)
        found = grouping.bundles(session, candidates, TableEncoder())
        assert [(bundle.item_ids, bundle.intent) for bundle in found] == [
            (("a", "c"), "coffee")
        ] * bundles


def test_a_model_of_pairs_takes_the_place_of_the_titles_cosine(session: Session) -> None:
    """It says 1/2 of every pair; with weight 1/2 the distance of a and b is 1 - (0.8 + 0.5) / 2."""
    pairs = PairModel((0.0,) * (3 + 7), 0.0)
    for threshold, bundles in ((0.34, 0), (0.36, 1)):
        grouping = SimilarIntents(weight=0.5, threshold=threshold, fall_back=False, pairs=pairs)
        found = grouping.bundles(session, INTENTS, TableEncoder())
        assert [bundle.item_ids for bundle in found] == [("a", "b")] * bundles


@pytest.mark.parametrize(
    ("weight", "threshold", "message"),
    [(-0.1, 0.5, "weight=-0.1: it must be from 0 to 1"), (0.5, 2.5, "threshold=2.5")],
)
def test_values_out_of_range_are_quoted(weight: float, threshold: float, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        SimilarIntents(weight=weight, threshold=threshold)
