"""Rules in TOML and Python, and which contradict each other."""

from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from routedk import BundleRules
from routedk.errors import DataError
from routedk.rules import read_rules, rules_of
from routedk.types import Item

EXAMPLE = """\
out_of_stock = ["B00A", 7]
price_from = 10
price_to = 99.5
max_items = 4
kinds = ["complements"]
apart = [["Food", "Garden"]]
pinned = [["B001", "B002"]]
excluded = [["B003", "B004"]]
"""


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(EXAMPLE)
    assert read_rules(path) == BundleRules(
        out_of_stock=("B00A", "7"),
        price_from=10,
        price_to=99.5,
        max_items=4,
        kinds=("complements",),
        apart=(("Food", "Garden"),),
        pinned=(("B001", "B002"),),
        excluded=(("B003", "B004"),),
    )


@pytest.mark.parametrize(
    ("rules", "one", "other"),
    [
        ({"price_from": 50, "price_to": 20}, "price_from=50", "price_to=20"),
        ({"price_from": 123456.9, "price_to": 123456.8}, "from=123456.9", "to=123456.8"),
        (
            {"pinned": [["a", "b"], ["x", "y"], ["c", "b"]], "excluded": [["c", "a"]]},
            "pinned [['a', 'b'], ['c', 'b']]",
            "excluded ['c', 'a']",
        ),
        ({"pinned": [["a", "b"]], "out_of_stock": ["b"]}, "pinned [['a', 'b']]", "out_of_stock"),
        ({"pinned": [["a", "b"], ["b", "c"]], "max_items": 2}, "pinned", "max_items=2"),
    ],
)
def test_contradictions_are_refused_with_the_two_that_clash(
    rules: dict[str, Any], one: str, other: str
) -> None:
    for made in (rules_of, lambda values: BundleRules(**values)):
        with pytest.raises(ValueError, match="contradict each other") as caught:
            made(rules)
        message = str(caught.value)
        assert one in message
        assert other in message
    # Either alone is allowed.
    for name, value in rules.items():
        assert rules_of({name: value})


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"max_items": 1}, "rules: max_items: Input should be greater than or equal to 2, found 1"),
        ({"price_to": -1}, "price_to: Input should be greater than or equal to 0, found -1"),
        ({"price_to": "5"}, "price_to: Input should be a valid number, found '5'"),
        ({"kinds": ["twins"]}, "kinds.1: Input should be 'complements', 'alternatives' or 'mixed'"),
        ({"excluded": [["a"]]}, "excluded.1.2: Field required"),
        ({"apart": [["Food", ""]]}, "apart.1.2: String should have at least 1 character"),
        ({"max_item": 3}, "rules: max_item: Extra inputs are not permitted"),
        (["max_items"], "rules: Input should be a valid dictionary"),
    ],
)
def test_what_is_no_rule_is_refused(rules: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        rules_of(rules)
    assert message in str(caught.value)
    assert "rules are out_of_stock, price_from" in str(caught.value)


def test_a_contradiction_is_told_in_words_of_the_file_only() -> None:
    given = {"pinned": [["a", "b"]], "out_of_stock": ["b"], "max_items": 4}
    with pytest.raises(DataError) as caught:
        rules_of(given)
    assert str(caught.value) == (
        "rules: pinned [['a', 'b']] and out_of_stock ['b'] contradict each other: "
        "change one of them"
    )
    with pytest.raises(DataError, match=r"^rules: pinned: a pair names 'a' twice$"):
        rules_of({"pinned": [["a", "a"]]})


class Counted(str):
    """An id or category that counts how often it is compared, hashed or casefolded."""

    work = 0

    def __hash__(self) -> int:
        Counted.work += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        Counted.work += 1
        return super().__eq__(other)

    def casefold(self) -> str:
        Counted.work += 1
        return Counted(super().casefold())


def chains(size: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """One long chain of pinned items, many short ones, and excluded pairs between them."""
    names = [Counted(f"n{k}") for k in range(4 * size)]
    long = [(one, other) for one, other in pairwise(names[:size])]
    short = [(names[k], names[k + 1]) for k in range(size, 4 * size, 2)]
    return [*long, *short], [(one, short[0][0]) for one, _ in long]


def test_work_grows_with_the_number_of_pairs() -> None:
    def work(size: int) -> int:
        pinned, excluded = chains(size)
        # As validated, but with ids that count.
        rules = BundleRules.model_construct(
            pinned=tuple(pinned), excluded=tuple(excluded), out_of_stock=(Counted("gone"),)
        )
        Counted.work = 0
        assert not list(rules._contradictions())
        return Counted.work

    small = work(100)
    assert 0 < small < work(400) < 5 * small


def test_work_on_categories_does_not_grow_with_pairs_that_no_item_has() -> None:
    items = [Item(f"i{k}", "cup", (Counted("Food"), Counted(f"c{k}"))) for k in range(20)]

    def work(size: int) -> int:
        pairs = [(Counted("food"), Counted(f"other {k}")) for k in range(size)]
        rules = BundleRules.model_construct(apart=(*pairs, (Counted("c1"), Counted("C2"))))
        assert rules.clashes(items[:2]) == {}
        Counted.work = 0
        assert list(rules.clashes(items)) == [frozenset(("i1", "i2"))]
        return Counted.work

    assert 0 < work(5000) == work(500)


names = st.sampled_from("abcdefgh")
pairs = st.lists(st.tuples(names, names).filter(lambda pair: pair[0] != pair[1]), max_size=6)
categories = st.sampled_from(["Food", "FOOD", "Toys", "toys", "Garden"])


@given(pairs, st.sets(names))
def test_groups_are_what_pinned_pairs_tie(pinned: list[tuple[str, str]], ids: set[str]) -> None:
    """As merging sets pair by pair finds them."""
    sets = [{name} for name in ids]
    for pair in pinned:
        if ids.issuperset(pair):
            merged = [one for one in sets if one & {*pair}]
            sets = [one for one in sets if one not in merged] + [set().union(*merged)]
    groups = BundleRules(pinned=pinned).groups(ids)
    assert {*groups} == {frozenset(one) for one in sets if len(one) > 1}
    assert len(groups) == len({*groups})


@given(pairs, pairs, st.sets(names, max_size=2), st.none() | st.integers(2, 4))
def test_rules_contradict_each_other_where_no_bundle_has_what_is_pinned(
    pinned: list[tuple[str, str]],
    excluded: list[tuple[str, str]],
    gone: set[str],
    most: int | None,
) -> None:
    groups = BundleRules(pinned=pinned).groups("abcdefgh")
    clash = any(
        group & gone
        or (most is not None and len(group) > most)
        or any(group.issuperset(pair) for pair in excluded)
        for group in groups
    )
    given = {"pinned": pinned, "excluded": excluded, "out_of_stock": gone, "max_items": most}
    try:
        BundleRules(**given)
    except ValidationError:
        assert clash
    else:
        assert not clash


@given(
    st.lists(st.lists(categories, max_size=2), min_size=2, max_size=4),
    st.lists(st.tuples(categories, categories), max_size=3),
    pairs,
)
def test_clashes_are_those_of_each_pair_alone(
    held: list[list[str]], apart: list[tuple[str, str]], excluded: list[tuple[str, str]]
) -> None:
    """The first pair of categories that speaks against two items is the reason."""
    items = [Item(name, "cup", tuple(own)) for name, own in zip("abcd", held, strict=False)]
    wanted = {}
    for one, other in combinations(items, 2):
        both = frozenset((one.id, other.id))
        mine, theirs = ({name.casefold() for name in item.categories} for item in (one, other))
        named = f"{one.id!r} and {other.id!r}"
        for a, b in reversed(apart):
            x, y = a.casefold(), b.casefold()
            if (x in mine and y in theirs) or (y in mine and x in theirs):
                wanted[both] = f"{a!r} and {b!r} never meet: {named}"
        if both in {*map(frozenset, excluded)}:
            wanted[both] = f"{named} are excluded"
    assert BundleRules(apart=apart, excluded=excluded).clashes(items) == wanted


def test_an_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("price_from = 5\nprice_to = 4\n")
    with pytest.raises(DataError, match=r"rules\.toml: rules: price_from=5 and price_to=4"):
        read_rules(path)


def test_rules_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        BundleRules().max_items = 3  # type: ignore[misc]
