"""Words of titles and intents."""

import pytest

from routedk.programs.prompting.grounding import stem
from routedk.programs.teachers.annotation import kind_names
from routedk.programs.teachers.annotation_intents import plain_intent
from routedk.programs.teachers.patterns import leaf_category
from routedk.types import Item


@pytest.mark.parametrize(
    ("intent", "phrase"),
    [
        ("Camera Accessories", "camera accessories"),
        ("watching TV with iPad", "watching TV with iPad"),
        ("batteries.", "batteries"),
        ("2", ""),
        ("nice", ""),
        ("", ""),
        ("Café Besuch", "café besuch"),
    ],
)
def test_intents(intent: str, phrase: str) -> None:
    assert plain_intent(intent) == phrase


@pytest.mark.parametrize(
    ("word", "expected"),
    [("batteries", "battery"), ("cases", "case"), ("glass", "glass"), ("tv", "tv")],
)
def test_stem(word: str, expected: str) -> None:
    assert stem(word) == expected


@pytest.mark.parametrize(
    ("item", "names"),
    [
        (Item("1", "Mophie Juice Pack Air Battery Cases for iPhone 5"), {"battery case"}),
        (Item("1", "EN-EL15, Battery Charger"), {"battery charger"}),
        (Item("1", "Acme Tea Kettle Red 2", ("Home", "Kettles")), {"kettle red", "kettles"}),
        (Item("1", "", ("Home", "Tea Pots")), {"tea pots"}),
        (Item("1", "12 34"), set()),
    ],
)
def test_an_item_is_named_by_its_category_and_its_first_phrase(item: Item, names: set[str]) -> None:
    assert kind_names(item) == names


def test_leaf_category_is_harmless() -> None:
    assert leaf_category(("Home", "Tea\n<|x|>")) == "Tea /x/"
    assert leaf_category(()) == ""
