"""`BundleRules`: what a catalogue demands of every bundle, and what of it a bundle breaks."""

from collections.abc import Collection, Iterable
from functools import cached_property
from itertools import combinations
from math import fsum
from pathlib import Path
from typing import Annotated, NamedTuple, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, Strict, TypeAdapter, model_validator

from routedk.data.validation import Id, checked
from routedk.files import read_toml
from routedk.types import Item, Kind, NotEmpty, Session

Pair: TypeAlias = tuple[Id, Id]
_Price = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]


class Breach(NamedTuple):
    """A rule that a bundle breaks.

    Args:
        reason: Which one, and how.
        items: Ids of the items that it is about; empty where it is about the bundle as a whole.
    """

    reason: str
    items: frozenset[str] = frozenset()


class BundleRules(BaseModel):
    """The rules of a catalogue, which hold for every bundle.

    The price of a bundle is the sum of its items' prices. Where there is a rule about it, an item
    without a price is in no bundle. Categories are compared without regard to case; an item has all
    categories of its path.

    Args:
        out_of_stock: Ids of items that are in no bundle.
        price_from: Least price of a bundle.
        price_to: Highest price of a bundle.
        max_items: Most items of a bundle, at least 2.
        kinds: The only kinds that bundles are of, e.g. complements; empty for all.
        apart: Pairs of categories that never meet in a bundle: no two of its items have one each.
        pinned: Pairs of ids of items that are always in one bundle where a session has both.
        excluded: Pairs of ids of items that are never in one bundle.

    Raises:
        ValidationError: A value is not allowed, or two rules contradict each other. It is a
            ``ValueError``.

    Example:
        >>> from routedk import BundleRules
        >>> rules = BundleRules(max_items=3, apart=[("Food", "Garden")])
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    out_of_stock: tuple[Id, ...] = ()
    price_from: _Price | None = None
    price_to: _Price | None = None
    max_items: Annotated[int, Strict(), Field(ge=2)] | None = None
    kinds: tuple[Kind, ...] = ()
    apart: tuple[tuple[NotEmpty, NotEmpty], ...] = ()
    pinned: tuple[Pair, ...] = ()
    excluded: tuple[Pair, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse rules that no bundle can satisfy together, naming the two."""
        for name in ("pinned", "excluded"):
            for one, other in getattr(self, name):
                if one == other:
                    raise ValueError(f"{name}: a pair names {one!r} twice")
        clash = None
        if None not in (self.price_from, self.price_to) and self.price_from > self.price_to:  # type: ignore[operator]
            clash = f"price_from={self.price_from:g}", f"price_to={self.price_to:g}"
        for group in self.groups({one for pair in self.pinned for one in pair}):
            pins = f"pinned {[list(pair) for pair in self.pinned if pair[0] in group][:3]}"
            if gone := sorted(group & self._gone):
                clash = pins, f"out_of_stock {gone}"
            if self.max_items is not None and len(group) > self.max_items:
                clash = pins, f"max_items={self.max_items}"
            for pair in self.excluded:
                if group.issuperset(pair):
                    clash = pins, f"excluded {list(pair)}"
        if clash:
            raise ValueError(f"{clash[0]} and {clash[1]} contradict each other: change one of them")
        return self

    @cached_property
    def _gone(self) -> frozenset[str]:
        return frozenset(self.out_of_stock)

    @cached_property
    def _excluded(self) -> frozenset[frozenset[str]]:
        return frozenset(map(frozenset, self.excluded))

    @cached_property
    def _apart(self) -> list[tuple[str, str]]:
        return [(one.casefold(), other.casefold()) for one, other in self.apart]

    @cached_property
    def _partners(self) -> dict[str, set[str]]:
        """The items that each pinned item is pinned to."""
        found: dict[str, set[str]] = {}
        for one, other in self.pinned:
            found.setdefault(one, set()).add(other)
            found.setdefault(other, set()).add(one)
        return found

    def groups(self, ids: Collection[str]) -> list[frozenset[str]]:
        """The sets of items, among these, that pinned pairs tie together."""
        found: list[frozenset[str]] = []
        for start in ids:
            group, new = frozenset[str](), {start} & self._partners.keys()
            while new:
                group |= new
                new = {two for one in new for two in self._partners[one] if two in ids} - group
            if len(group) > 1 and group not in found:
                found.append(group)
        return found

    def bar(self, item: Item) -> str:
        """Why an item is in no bundle at all; empty where nothing speaks against it."""
        if item.id in self._gone:
            return f"{item.id!r} is out of stock"
        priced = self.price_from is not None or self.price_to is not None
        return f"{item.id!r} has no price" if priced and item.price is None else ""

    def clash(self, one: Item, other: Item) -> str:
        """Why two items are never in one bundle; empty where nothing speaks against it."""
        if self._excluded and frozenset((one.id, other.id)) in self._excluded:
            return f"{_named(one.id, other.id)} are excluded"
        if self._apart:
            mine, theirs = ({name.casefold() for name in item.categories} for item in (one, other))
            for pair, (a, b) in zip(self.apart, self._apart, strict=True):
                if (a in mine and b in theirs) or (a in theirs and b in mine):
                    return f"{pair[0]!r} and {pair[1]!r} never meet: {_named(one.id, other.id)}"
        return ""

    def broken(
        self, session: Session, item_ids: Iterable[str], kind: Kind | None = None
    ) -> list[Breach]:
        """The rules that a bundle breaks.

        Args:
            session: The session that it is of.
            item_ids: Of its items, at least one.
            kind: Its kind; None leaves the rule about kinds aside.

        Raises:
            DataError: The session has no such item.
        """
        items = [session.item(name) for name in dict.fromkeys(item_ids)]
        outside = {item.id for item in session.items}.difference(item.id for item in items)
        found = [Breach(why, frozenset((i.id,))) for i in items if (why := self.bar(i))]
        for one, other in combinations(items, 2) if self.excluded or self.apart else ():
            if why := self.clash(one, other):
                found.append(Breach(why, frozenset((one.id, other.id))))
        for one in items if self.pinned else ():
            for name in sorted(self._partners.get(one.id, set()) & outside):
                pair = frozenset((one.id, name))
                found.append(Breach(f"{_named(one.id, name)} are pinned", pair))
        # Cents do not add up exactly.
        price = round(fsum(item.price or 0.0 for item in items), 6)
        if self.price_from is not None and price < self.price_from:
            found.append(Breach(f"it would cost {price:g}, price_from={self.price_from:g}"))
        if self.price_to is not None and price > self.price_to:
            found.append(Breach(f"it would cost {price:g}, price_to={self.price_to:g}"))
        if self.max_items is not None and len(items) > self.max_items:
            found.append(Breach(f"it would have {len(items)} items, max_items={self.max_items}"))
        if self.kinds and kind is not None and kind not in self.kinds:
            found.append(Breach(f"its kind would be {kind}, kinds={', '.join(self.kinds)}"))
        return found


def _named(one: str, other: str) -> str:
    return " and ".join(map(repr, sorted((one, other))))


def read_rules(path: str | Path) -> BundleRules:
    """Read rules from a TOML file.

    Example file::

        out_of_stock = ["B00A", "B00B"]
        price_to = 100
        max_items = 4
        kinds = ["complements"]
        apart = [["Food", "Garden"]]
        pinned = [["B001", "B002"]]

    Raises:
        DataError: The file cannot be read, is not TOML, has a key or a value that is not allowed,
            or two rules contradict each other; the message names both.
    """
    return rules_of(read_toml(path), path=path)


def rules_of(record: object, *, path: str | Path | None = None) -> BundleRules:
    """Make rules of a record, e.g. of a request.

    Args:
        record: From the names of rules to their values.
        path: File named in errors.

    Raises:
        DataError: As `read_rules`.
    """
    hint = f"rules are {', '.join(BundleRules.model_fields)}"
    return checked(TypeAdapter(BundleRules), record, path=path, about="rules", hint=hint)
