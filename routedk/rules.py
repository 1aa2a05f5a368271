"""`BundleRules`: a catalogue's rules for every bundle, and which of them a bundle breaks."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import combinations
from math import fsum
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from routedk.data.validation import Id, checked
from routedk.errors import DataError
from routedk.files import read_toml
from routedk.types import Item, Kind, NotEmpty, Session

Pair: TypeAlias = tuple[Id, Id]
_Price = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]


class BundleRules(BaseModel):
    """The rules of a catalogue, which hold for every bundle.

    The price of a bundle is the sum of its items' prices. If a rule limits it, an item without a
    price is in no bundle. Category names are case-insensitive; an item has all categories of its
    path.

    Args:
        out_of_stock: Ids of items that are in no bundle.
        price_from: Lowest price of a bundle.
        price_to: Highest price of a bundle.
        max_items: Maximum number of items in a bundle, at least 2.
        kinds: The kinds that bundles may have, e.g. complements; empty for all.
        apart: Pairs of categories that never meet in a bundle: no two of its items have one each.
        pinned: Pairs of item ids that are always in one bundle if a session has both.
        excluded: Pairs of item ids that are never in one bundle.

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
        """Reject a pair that names one id twice, and rules that contradict each other."""
        for name in ("pinned", "excluded"):
            for one, other in getattr(self, name):
                if one == other:
                    raise ValueError(f"{name}: a pair names {one!r} twice")
        if clash := next(self._contradictions(), None):
            raise ValueError(f"{clash[0]} and {clash[1]} contradict each other: change one of them")
        return self

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        low, high = self.price_from, self.price_to
        if low is not None and high is not None and low > high:
            # Prices as they were given, with all their digits.
            yield f"price_from={self.price_from:.15g}", f"price_to={self.price_to:.15g}"
        groups = self.groups(self._pins)
        group_of = {name: group for group in groups for name in group}

        def pins(group: frozenset[str]) -> str:
            return f"pinned {[list(pair) for pair in self.pinned if pair[0] in group][:3]}"

        for group in groups:
            if gone := sorted(group & self._gone):
                yield pins(group), f"out_of_stock {gone[:3]}"
            if self.max_items is not None and len(group) > self.max_items:
                yield pins(group), f"max_items={self.max_items}"
        for one, other in self.excluded:
            if one in group_of and group_of[one] is group_of.get(other):
                yield pins(group_of[one]), f"excluded {[one, other]}"

    @cached_property
    def _gone(self) -> frozenset[str]:
        return frozenset(self.out_of_stock)

    @cached_property
    def _excluded(self) -> frozenset[frozenset[str]]:
        return frozenset(map(frozenset, self.excluded))

    @cached_property
    def _apart(self) -> dict[str, dict[str, int]]:
        """By category, those it never meets, with the index of the first pair that says so."""
        found: dict[str, dict[str, int]] = {}
        for place, pair in enumerate(self.apart):
            one, other = (name.casefold() for name in pair)
            found.setdefault(one, {}).setdefault(other, place)
            found.setdefault(other, {}).setdefault(one, place)
        return found

    @cached_property
    def _pins(self) -> Any:
        """The graph of the items that are pinned to each other."""
        from networkx import Graph

        return Graph(self.pinned)

    def groups(self, ids: Iterable[str]) -> list[frozenset[str]]:
        """The groups of these items that pinned pairs connect."""
        from networkx import connected_components

        found = map(frozenset, connected_components(self._pins.subgraph(ids)))
        return sorted((group for group in found if len(group) > 1), key=min)

    def bar(self, item: Item) -> str:
        """Why an item cannot be in any bundle; empty if it can."""
        if item.id in self._gone:
            return f"{item.id!r} is out of stock"
        priced = self.price_from is not None or self.price_to is not None
        return f"{item.id!r} has no price" if priced and item.price is None else ""

    def clashes(self, items: Iterable[Item]) -> dict[frozenset[str], str]:
        """Why pairs of these items cannot be in one bundle, by their ids."""
        found: dict[frozenset[str], str] = {}
        if not (self.excluded or self.apart):
            return found
        named = {item.id: {name.casefold() for name in item.categories} for item in items}
        present = set[str]().union(*named.values())
        # What each item's categories never meet, with the index of the first pair that says so.
        barred: dict[str, dict[str, int]] = {}
        for name, categories in named.items():
            mine = barred[name] = {}
            for category in categories & self._apart.keys():
                never = self._apart[category]
                for other in present & never.keys():
                    mine[other] = min(never[other], mine.get(other, never[other]))
        for one, other in combinations(named, 2):
            pair = frozenset((one, other))
            places = [barred[one][category] for category in named[other] & barred[one].keys()]
            if pair in self._excluded:
                found[pair] = f"{_named(one, other)} are excluded"
            elif places:
                first, second = self.apart[min(places)]
                found[pair] = f"{first!r} and {second!r} never meet: {_named(one, other)}"
        return found

    def broken(
        self,
        session: Session,
        item_ids: Iterable[str],
        kind: Kind | None = None,
        clashes: Mapping[frozenset[str], str] | None = None,
    ) -> list[str]:
        """List the rules that a bundle breaks, and how.

        Args:
            session: The session of the bundle.
            item_ids: Ids of its items, at least one.
            kind: Its kind; None skips the rule about kinds.
            clashes: The `clashes` of the session's items, if already computed.

        Raises:
            DataError: The session has no such item.
        """
        items = [session.item(name) for name in dict.fromkeys(item_ids)]
        outside = {item.id for item in session.items}.difference(item.id for item in items)
        found = [why for item in items if (why := self.bar(item))]
        clashes = self.clashes(items) if clashes is None else clashes
        for one, other in combinations(items, 2) if clashes else ():
            if why := clashes.get(frozenset((one.id, other.id)), ""):
                found.append(why)
        for one in items if self.pinned else ():
            for name in sorted(outside.intersection(self._pins.adj.get(one.id, ()))):
                found.append(f"{_named(one.id, name)} are pinned")
        # Cents do not add up exactly.
        price = round(fsum(item.price or 0.0 for item in items), 6)
        if self.price_from is not None and price < self.price_from:
            found.append(f"it would cost {price:.2f}, price_from={self.price_from:.2f}")
        if self.price_to is not None and price > self.price_to:
            found.append(f"it would cost {price:.2f}, price_to={self.price_to:.2f}")
        if self.max_items is not None and len(items) > self.max_items:
            found.append(f"it would have {len(items)} items, max_items={self.max_items}")
        if self.kinds and kind is not None and kind not in self.kinds:
            found.append(f"its kind would be {kind}, kinds={', '.join(self.kinds)}")
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
    """Make rules from a record, e.g. from a request.

    Args:
        record: Maps the names of rules to their values.
        path: File named in errors.

    Raises:
        DataError: As `read_rules`.
    """
    try:
        return BundleRules.model_validate(record)
    except ValidationError as error:
        fault = error.errors()[0]
        if not fault["loc"] and fault["type"] == "value_error":
            # The message names the rules itself: a list of all rules would only hide them.
            raise DataError(f"rules: {fault['ctx']['error']}", path=path) from None
    hint = f"rules are {', '.join(BundleRules.model_fields)}"
    return checked(TypeAdapter(BundleRules), record, path=path, about="rules", hint=hint)
