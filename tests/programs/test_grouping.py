import numpy as np
import pytest
from numpy.typing import NDArray

from routedk.errors import SettingError
from routedk.programs.grouping.similar_intents import SimilarIntents
from routedk.similarity import default_encoder
from routedk.types import Item, Session
from tests.languages import LANGUAGES

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


INTENTS = [("camera",), ("camera gear",), ("coffee",)]


def test_alike_intents_meet_although_their_words_differ(session: Session) -> None:
    grouping = SimilarIntents(weight=1.0, threshold=0.3)
    (bundle,) = grouping.bundles(session, INTENTS, TableEncoder())
    assert bundle.item_ids == ("a", "b")
    assert bundle.intent == "camera"


def test_weight_mixes_intents_and_titles(session: Session) -> None:
    # Titles are at right angles, so the distance of a and b is 1 - 0.5 * 0.8.
    for threshold, bundles in ((0.59, 0), (0.61, 1)):
        grouping = SimilarIntents(weight=0.5, threshold=threshold)
        assert len(grouping.bundles(session, INTENTS, TableEncoder())) == bundles


def test_where_nothing_is_alike_there_is_no_bundle(session: Session) -> None:
    grouping = SimilarIntents(weight=1.0, threshold=0.0)
    assert grouping.bundles(session, INTENTS, TableEncoder()) == ()


def test_an_item_without_an_intent_is_compared_by_its_title(session: Session) -> None:
    grouping = SimilarIntents(weight=1.0, threshold=0.1)
    (bundle,) = grouping.bundles(session, [("camera",), ("coffee",), ()], TableEncoder())
    assert bundle.item_ids == ("b", "c")
    assert bundle.intent == "coffee"


def test_several_intents_of_an_item_are_their_mean(session: Session) -> None:
    """The mean of two intents at right angles has cosine 1 / sqrt(2) with either."""
    intents = [("camera", "coffee"), (), ("coffee",)]
    for threshold, bundles in ((0.29, 0), (0.30, 1)):
        grouping = SimilarIntents(weight=1.0, threshold=threshold)
        found = grouping.bundles(session, intents, TableEncoder())
        assert [(bundle.item_ids, bundle.intent) for bundle in found] == [
            (("a", "c"), "coffee")
        ] * bundles


@pytest.mark.parametrize(
    ("weight", "threshold", "message"),
    [(-0.1, 0.5, "weight=-0.1: it must be from 0 to 1"), (0.5, 2.5, "threshold=2.5")],
)
def test_values_out_of_range_are_quoted(weight: float, threshold: float, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        SimilarIntents(weight=weight, threshold=threshold)


@pytest.mark.parametrize("language", [name for name, one in LANGUAGES.items() if not one.latin])
def test_in_a_script_that_is_not_known_equal_intents_meet_and_others_do_not(language: str) -> None:
    spoken = LANGUAGES[language]
    named = [*spoken.intents, *spoken.intents]
    items = tuple(Item(str(k), f"{spoken.camera[0]} {k}") for k in range(len(named)))
    grouping = SimilarIntents(weight=0.9, threshold=0.5)
    bundles = grouping.bundles(Session("s", items), [(one,) for one in named], default_encoder())
    assert [bundle.intent for bundle in bundles] == [*spoken.intents]
    assert [bundle.item_ids for bundle in bundles] == [(str(k), str(k + 6)) for k in range(6)]
