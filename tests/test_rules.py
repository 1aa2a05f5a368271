"""Rules in TOML and Python, and which contradict each other."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from routedk import BundleRules
from routedk.errors import DataError
from routedk.rules import read_rules, rules_of

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
        ({"pinned": [["a", "a"]]}, "pinned: a pair names 'a' twice"),
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


def test_an_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("price_from = 5\nprice_to = 4\n")
    with pytest.raises(DataError, match=r"rules\.toml: rules: price_from=5 and price_to=4"):
        read_rules(path)


def test_rules_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        BundleRules().max_items = 3  # type: ignore[misc]
