"""Bundles under a catalogue's rules, by a grouping whose encoder is random."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from routedk.errors import SettingError
from routedk.programs.grouping.decision import fit_decision
from routedk.programs.grouping.encoder import EncoderGrouping
from routedk.programs.grouping.kinds import KINDS, WORD_FEATURES, Kinds
from routedk.programs.grouping.linear import Linear
from routedk.programs.grouping.pair_head import PairHead
from routedk.programs.grouping.titles import Familiarity
from routedk.rules import BundleRules
from routedk.types import Answer, Bundle, Item, Kind, Session

from .test_decision import sessions

DIMENSIONS = 4
NAMES = "abcdefg"
CATEGORIES = ("Food", "Garden", "Toys")
ids = st.sampled_from(NAMES)
pairs = st.lists(st.tuples(ids, ids).filter(lambda pair: pair[0] != pair[1]), max_size=3)
prices = st.floats(0, 60).map(lambda price: round(price, 2))


class RandomEncoder:
    """Gives each title a vector of its own."""

    device = torch.device("cpu")

    def eval(self) -> "RandomEncoder":
        return self

    def preprocess(self, titles: Sequence[str]) -> dict[str, torch.Tensor]:
        rows = [
            np.random.default_rng([*title.encode()]).normal(size=DIMENSIONS) for title in titles
        ]
        return {"rows": torch.tensor(np.array(rows))}

    def __call__(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": features["rows"]}


def made(*, kinds: bool = True) -> EncoderGrouping:
    rng = np.random.default_rng(0)
    shape = (len(KINDS), DIMENSIONS + WORD_FEATURES)
    centers = np.eye(DIMENSIONS)
    return EncoderGrouping(
        RandomEncoder(),
        PairHead(DIMENSIONS),
        fit_decision(sessions(120, empty=30, noise=1.0)),
        Kinds(Linear(rng.normal(size=shape), np.zeros(len(KINDS)))) if kinds else None,
        Familiarity(centers, 0.5),
        None,
        {},
        Path(),
    )


GROUPING = made()


@st.composite
def carts(draw: Any) -> Session:
    seed = draw(st.integers(0, 10_000))
    items = tuple(
        Item(
            name,
            f"thing {name}{seed}",
            tuple(draw(st.lists(st.sampled_from(CATEGORIES), max_size=2))),
            draw(st.none() | prices) if draw(st.booleans()) else 10.0,
        )
        for name in NAMES[: draw(st.integers(2, len(NAMES)))]
    )
    return Session("cart", items)


@st.composite
def rules(draw: Any) -> BundleRules:
    given = {
        "out_of_stock": draw(st.lists(ids, max_size=2)),
        "price_from": draw(st.none() | st.floats(0, 40)),
        "price_to": draw(st.none() | st.floats(10, 150)),
        "max_items": draw(st.none() | st.integers(2, 5)),
        "kinds": draw(st.lists(st.sampled_from(KINDS), max_size=2)),
        "apart": draw(st.lists(st.tuples(*[st.sampled_from(CATEGORIES)] * 2), max_size=1)),
        "pinned": draw(pairs),
        "excluded": draw(pairs),
    }
    # Rarely all of them at once, which leaves few bundles.
    kept = draw(st.sets(st.sampled_from(sorted(given)), min_size=1, max_size=4))
    try:
        return BundleRules(**{name: given[name] for name in kept})
    except ValidationError:
        assume(False)
        raise


def keeps(rules: BundleRules, session: Session, bundle: Iterable[str], kind: Kind | None) -> bool:
    """Whether a bundle keeps every rule, said anew."""
    items = [session.item(name) for name in bundle]
    inside, there = {item.id for item in items}, {item.id for item in session.items}
    cost = sum(item.price or 0 for item in items)
    asked = rules.price_from is not None or rules.price_to is not None
    apart = {frozenset(pair) for pair in rules.apart}
    return (
        not inside & {*rules.out_of_stock}
        and not (asked and any(item.price is None for item in items))
        and (rules.price_from is None or cost > rules.price_from - 1e-5)
        and (rules.price_to is None or cost < rules.price_to + 1e-5)
        and (rules.max_items is None or len(items) <= rules.max_items)
        and (not rules.kinds or kind in rules.kinds)
        and not any({*pair} <= inside for pair in rules.excluded)
        and not any({*pair} <= there and len({*pair} & inside) == 1 for pair in rules.pinned)
        and not any(
            frozenset((a, b)) in apart
            for one, other in combinations(items, 2)
            for a in one.categories
            for b in other.categories
        )
    )


def kind_of(session: Session, names: frozenset[str]) -> Kind | None:
    items = sorted((session.item(name) for name in names), key=lambda item: (item.title, item.id))
    titles = [item.title for item in items]
    assert GROUPING.kinds
    return GROUPING.kinds.of(titles, GROUPING.read(titles)[0])[0]


@settings(max_examples=150, deadline=None)
@given(carts(), rules())
def test_bundles_keep_every_rule_and_say_what_was_changed(
    session: Session, rules: BundleRules
) -> None:
    before, after = GROUPING.answer(session), GROUPING.answer(session, rules)
    assert all(keeps(rules, session, one.item_ids, one.kind) for one in after.bundles)
    placed = [name for one in after.bundles for name in one.item_ids]
    assert len(placed) == len({*placed})
    groups = rules.groups([item.id for item in session.items])
    for group in groups:
        if keeps(rules, session, group, kind_of(session, group)):
            assert any(group <= one.items for one in after.bundles)
    kept = all(keeps(rules, session, one.item_ids, one.kind) for one in before.bundles)
    if kept and all(any(group <= one.items for one in before.bundles) for group in groups):
        assert after == before
    for one in after.bundles:
        assert bool(one.changed) == (one.items not in before.items)
        told = " ".join(one.changed)
        nearest = [old for old in before.items if old & one.items]
        assert not one.changed or any(
            all(repr(name) in told for name in old ^ one.items) for old in nearest or [frozenset()]
        )
    said = " ".join([*after.changed, *(line for one in after.bundles for line in one.changed)])
    assert all(repr(name) in said for one in before.items for name in one - {*placed})
    for old in before.bundles:
        if not any(old.items & one.items for one in after.bundles):
            names = ", ".join(map(repr, old.item_ids))
            assert any(line.startswith(f"no bundle of {names}: ") for line in after.changed)


@settings(max_examples=40, deadline=None)
@given(carts())
def test_without_rules_nothing_changes(session: Session) -> None:
    assert GROUPING.answer(session, BundleRules()) == GROUPING.answer(session)


@settings(max_examples=60, deadline=None)
@given(carts(), st.sets(ids, min_size=1, max_size=3))
def test_what_is_out_of_stock_is_as_if_it_were_not_there(session: Session, gone: set[str]) -> None:
    left = tuple(item for item in session.items if item.id not in gone)
    assume(len(left) > 1 and any(one & gone for one in GROUPING.answer(session).items))
    after = GROUPING.answer(session, BundleRules(out_of_stock=gone))
    assert after.items == GROUPING.answer(Session("cart", left)).items


def cart(*prices: float | None) -> Session:
    """Items that belong together: their titles are equal."""
    named = zip(NAMES, prices, strict=False)
    return Session("cart", tuple(Item(name, "red kettle", ("Kitchen",), p) for name, p in named))


def under(session: Session, **rules: Any) -> Answer:
    return GROUPING.answer(session, BundleRules(**rules))


@pytest.mark.parametrize(
    ("rules", "items", "changed"),
    [
        ({"out_of_stock": ["a"]}, "bcd", "left out 'a': 'a' is out of stock"),
        ({"max_items": 3}, None, "it would have 4 items, max_items=3"),
        ({"price_to": 45}, "bcd", "left out 'a': it would cost 75.00, price_to=45.00"),
        ({"excluded": [("d", "a")]}, None, ": 'a' and 'd' are excluded"),
    ],
)
def test_the_best_part_is_kept(rules: dict[str, Any], items: str | None, changed: str) -> None:
    session = cart(40, 10, 10, 15)
    (whole,) = GROUPING.answer(session).bundles
    assert whole.item_ids == tuple("abcd")
    first = under(session, **rules).bundles[0]
    assert items is None or first.item_ids == tuple(items)
    assert any(changed in line for line in first.changed)


def test_an_item_without_a_price_is_in_no_bundle_that_has_one_as_a_rule() -> None:
    (bundle,) = under(cart(10, None, 10), price_to=50).bundles
    assert bundle.item_ids == ("a", "c")
    assert bundle.changed == ("left out 'b': 'b' has no price",)


def test_cents_add_up() -> None:
    assert under(cart(0.1, 0.2), price_to=0.3).bundles


def test_prices_are_told_to_the_cent() -> None:
    answer = under(cart(123456, 21.9), price_to=123456)
    assert "it would cost 123477.90, price_to=123456.00" in answer.changed[0]


def test_a_session_without_bundles_says_why() -> None:
    answer = under(cart(40, 50), price_to=20)
    assert answer.bundles == ()
    assert answer.changed == ("no bundle of 'a', 'b': it would cost 90.00, price_to=20.00",)
    assert answer.confidence is not None


def test_pinned_items_that_another_rule_keeps_apart() -> None:
    answer = under(cart(1, 2), pinned=[("a", "b")], apart=[("kitchen", "Kitchen")])
    assert answer.bundles == ()
    assert answer.changed == (
        "no bundle of 'a', 'b': 'kitchen' and 'Kitchen' never meet: 'a' and 'b'",
    )


def test_what_is_pinned_is_a_bundle_where_nothing_else_belongs_together() -> None:
    titles = [f"thing {seed}" for seed in range(40)]
    for one, other in combinations(titles, 2):
        session = Session("cart", (Item("a", one), Item("b", other)))
        if not GROUPING.answer(session).bundles:
            (bundle,) = under(session, pinned=[("a", "b")]).bundles
            assert bundle.changed == ("added 'a', 'b': 'a' and 'b' are pinned",)
            return
    pytest.fail("each two titles belong together")


def test_a_grouping_without_kinds_refuses_a_rule_about_them() -> None:
    with pytest.raises(SettingError, match="kinds=complements: this grouping names no kinds"):
        made(kinds=False).answer(cart(1, 2), BundleRules(kinds=("complements",)))


def test_the_rules_that_a_bundle_breaks() -> None:
    rules = BundleRules(pinned=[("a", "b")], kinds=["complements"], max_items=2)
    broken = rules.broken(cart(1, 2, 3, 4), "acd", "mixed")
    assert broken == [
        "'a' and 'b' are pinned",
        "it would have 3 items, max_items=2",
        "its kind would be mixed, kinds=complements",
    ]
    assert rules.broken(cart(1, 2, 3), "ab", "complements") == []
    assert Bundle(("a", "b")).changed == ()
