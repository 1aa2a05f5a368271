import pytest

from routedk import Answer, Bundle, DataError, Item, Session

ITEMS = (Item("a", "Kettle\n steel"), Item("b", "Tea"), Item("c", ""))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((), r"a bundle has \[\]: it needs at least two items"),
        (("a",), r"a bundle has \['a'\]: it needs at least two items"),
        (("a", "b", "a"), r"a bundle names an item twice: \['a', 'b', 'a'\]"),
    ],
)
def test_what_is_not_a_bundle(ids: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Bundle(ids)


@pytest.mark.parametrize(
    ("items", "bundles", "message"),
    [
        ((), None, "session 's' has no items"),
        ((ITEMS[0], ITEMS[0]), None, "session 's' has an item id twice"),
        (ITEMS, (Bundle(("a", "z", "y")),), r"a bundle names \['y', 'z'\], not in the session"),
    ],
)
def test_what_is_not_a_session(
    items: tuple[Item, ...], bundles: tuple[Bundle, ...] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Session("s", items, bundles)


def test_a_session_finds_and_numbers_its_items() -> None:
    session = Session("s", ITEMS, (Bundle(("b", "a"), "tea"),))
    assert session.item("b") is ITEMS[1]
    assert session.number("c") == 3
    assert session.gold == [frozenset("ab")]
    assert str(session) == "1 Kettle steel\n2 Tea\n3 "
    with pytest.raises(DataError, match="session 's' has no item 'z'"):
        session.number("z")
    assert Session("s", ITEMS).gold == Session("s", ITEMS, ()).gold == []


def test_an_answer_is_compared_by_item_sets() -> None:
    answer = Answer("s", (Bundle(("b", "a"), "tea"),))
    assert answer.items == [frozenset("ab")]
    assert (answer.error, answer.dropped) == ("", ())
