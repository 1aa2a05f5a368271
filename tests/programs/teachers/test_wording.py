"""Words of titles and intents."""

from collections.abc import Callable

import pytest

from routedk.programs.teachers.wording import (
    Kinds,
    intent_words,
    leaf_category,
    plain_intent,
    short_title,
    stem,
)
from routedk.types import Item, Session


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


def test_leaf_category_is_harmless() -> None:
    assert leaf_category(("Home", "Tea\n<|x|>")) == "Tea /x/"
    assert leaf_category(()) == ""
