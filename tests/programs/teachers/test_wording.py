"""Words of titles and intents."""

from collections.abc import Callable

import pytest

from routedk.programs.teachers.wording import Kinds, leaf_category, plain_intent, stem
from routedk.types import Item, Session


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
    ("item", "name"),
    [
        (Item("1", "Mophie Juice Pack Air Battery Case for iPhone 5"), "battery case"),
        (Item("1", "EN-EL15, Battery Charger"), "battery charger"),
        (Item("1", "", ("Home", "Tea Pots")), "tea pots"),
        (Item("1", ""), "untitled item"),
        (Item("1", "12 34"), "untitled item"),
    ],
)
def test_an_item_of_no_recurring_words(item: Item, name: str) -> None:
    assert Kinds([]).phrase(item) == name


def test_an_item_is_named_by_words_that_recur_and_by_its_category(
    make: Callable[..., Session],
) -> None:
    titles = ["Acme Tea Kettles Red", "Bolt Tea Kettle Deluxe", "Sock"]
    session = make("s", titles, [], [("Home", "Kettles"), (), ()])
    kinds = Kinds([session])
    assert [kinds.phrase(item) for item in session.items] == ["tea kettles", "tea kettle", "sock"]
    named = [kinds.names(item) for item in session.items]
    assert named == [{"kettles", "tea kettle"}, {"tea kettle"}, {"sock"}]


def test_leaf_category_is_harmless() -> None:
    assert leaf_category(("Home", "Tea\n<|x|>")) == "Tea /x/"
    assert leaf_category(()) == ""
