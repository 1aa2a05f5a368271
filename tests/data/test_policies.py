from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk import Bundle, Item, Session, SettingError
from routedk.data import DataOptions, minimal_bundles
from routedk.data.load import apply_options
from routedk.data.policies import is_telling
from routedk.data.values import MissingValues
from tests.languages import LANGUAGES


def session(name: str, *bundles: str, titles: str = "abcdef") -> Session:
    """A session of the items a to f; items not in ``titles`` have none."""
    items = tuple(Item(i, i.upper() if i in titles else " ") for i in "abcdef")
    return Session(name, items, tuple(Bundle(tuple(b), f"{n} {b}") for n, b in enumerate(bundles)))


def applied(sessions: list[Session], options: DataOptions) -> list[Any]:
    return [*apply_options(sessions, options, MissingValues())]


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ([], []),
        (["ab"], ["0 ab"]),
        (["ab", "ba"], ["0 ab"]),
        (["abc", "ab"], ["1 ab"]),
        (["ab", "abc", "abcd", "cd"], ["0 ab", "3 cd"]),
        (["ab", "bc"], ["0 ab", "1 bc"]),
        (["abc", "abc", "de"], ["0 abc", "2 de"]),
    ],
)
def test_minimal_bundles(given_: list[str], kept: list[str]) -> None:
    bundles = session("s", *given_).bundles
    assert bundles is not None
    assert [bundle.intent for bundle in minimal_bundles(bundles)] == kept


@given(st.lists(st.sets(st.sampled_from("abcdef"), min_size=2).map(sorted), max_size=6))
def test_minimal_bundles_hold_no_nesting_and_cover_all(sets: list[list[str]]) -> None:
    bundles = [Bundle(tuple(names)) for names in sets]
    kept = [bundle.items for bundle in minimal_bundles(bundles)]
    assert all(not a <= b for a in kept for b in kept if a is not b)
    assert all(any(k <= bundle.items for k in kept) for bundle in bundles)
    assert minimal_bundles(minimal_bundles(bundles)) == minimal_bundles(bundles)


def test_gold_all_keeps_bundles_as_given() -> None:
    given_ = [session("s", "ab", "ba", "abc")]
    assert applied(given_, DataOptions(gold="all")) == given_


def test_untitled_drop_cuts_bundles_and_sessions() -> None:
    options = DataOptions(untitled="drop")
    (cut,) = applied(
        [session("s", "ab", "bcd", "def", titles="cd"), session("t", "ab", titles="a")], options
    )
    assert [item.id for item in cut.items] == ["c", "d"]
    assert [bundle.item_ids for bundle in cut.bundles or ()] == [("c", "d")]
    bare = Session("u", session("u", titles="ab").items)
    assert applied([bare], options)[0].bundles is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gold": "some"}, "gold='some': allowed are minimal, all"),
        ({"untitled": "hide"}, "untitled='hide': allowed are keep, drop"),
        ({"seed": -1}, "seed=-1: it must be at least 0"),
    ],
)
def test_options_quote_the_bad_value(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        DataOptions(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("language", LANGUAGES)
def test_titles_in_any_language_tell_what_an_item_is(language: str) -> None:
    spoken = LANGUAGES[language]
    assert all(map(is_telling, (*spoken.camera, *spoken.coffee, *spoken.intents)))


@pytest.mark.parametrize("title", ["茶", "책", "जूते", "小米手机11", "กล้อง200D", "чай"])
def test_short_titles_and_those_without_spaces_tell_it_too(title: str) -> None:
    assert is_telling(title)


@pytest.mark.parametrize("title", ["", "4711", "B07-11", "sku 12", "N/A", "½", "a", "АБ-123", "™"])
def test_a_number_tells_nothing(title: str) -> None:
    assert not is_telling(title)
