"""A session's bundles under review, and what a person does to them.

Each edit is a function from one draft to the next. An edited draft is no longer accepted, and a
bundle whose items change loses its confidence, which was about others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from routedk.data.records import BundleRecord, bundle_records
from routedk.errors import DataError
from routedk.types import Bundle, Kind, Session


@dataclass(frozen=True, slots=True)
class Draft:
    """Bundles of a session, numbered from 1 by their place.

    Args:
        items: All items of the session, in its order.
        bundles: Without an item in common. One may have a single item until it is accepted.
        accepted: Whether they are gold.

    Raises:
        DataError: An item is in two bundles, or is not the session's.
    """

    items: tuple[str, ...]
    bundles: tuple[BundleRecord, ...] = ()
    accepted: bool = False

    def __post_init__(self) -> None:
        placed = [*chain(*(bundle.items for bundle in self.bundles))]
        if len(set(placed)) < len(placed) or not set(placed) <= set(self.items):
            raise DataError("an item is in two bundles, or not in the session")

    @property
    def free(self) -> tuple[str, ...]:
        """The items in no bundle."""
        placed = {*chain(*(bundle.items for bundle in self.bundles))}
        return tuple(item for item in self.items if item not in placed)


def draft_of(session: Session, bundles: Iterable[Bundle]) -> Draft:
    """The draft that a review begins with: an item of several bundles stays in the first."""
    found: list[BundleRecord] = []
    free = {item.id for item in session.items}
    for record in bundle_records(bundles):
        left = [item for item in record["items"] if item in free]
        if len(left) > 1:
            found.append(_holding(BundleRecord(**record), left))
            free -= set(left)
    return Draft(tuple(item.id for item in session.items), tuple(found))


def move(draft: Draft, items: Sequence[str], to: int) -> Draft:
    """Move items to a bundle.

    Args:
        draft: Where they are.
        items: Their ids, of one bundle or several.
        to: The bundle; 0 takes them out of theirs, one above the last makes a new one, which is
            how a bundle is split.

    Raises:
        DataError: There is no such item or bundle.
    """
    if foreign := set(items) - set(draft.items):
        raise DataError(f"the session has no item {min(foreign)!r}")
    bundles = [*draft.bundles, BundleRecord(items=[])]
    if not 0 <= to <= len(bundles):
        raise DataError(f"there is no bundle {to}")
    moved = [item for item in draft.items if item in items]
    for number, bundle in enumerate(bundles, start=1):
        left = [item for item in bundle.items if item not in moved or number == to]
        added = [item for item in moved if item not in left] if number == to else []
        bundles[number - 1] = _holding(bundle, left + added)
    return _edited(draft, bundles)


def merge(draft: Draft, bundle: int, to: int) -> Draft:
    """Move all items of one bundle to another, which gets the intent if it has none.

    Raises:
        DataError: There is no such bundle, or they are the same.
    """
    source, target = _bundle(draft, bundle), _bundle(draft, to)
    if bundle == to:
        raise DataError(f"bundle {to} cannot be merged with itself")
    named = rename(draft, to, target.intent or source.intent, target.kind or source.kind)
    return move(named, source.items, to)


def rename(draft: Draft, bundle: int, intent: str, kind: Kind | None) -> Draft:
    """Give a bundle this intent and kind.

    Raises:
        DataError: There is no such bundle.
    """
    old = _bundle(draft, bundle)
    # As it will be read as gold: on one line, entities unescaped.
    new = BundleRecord(**{**dict(old), "intent": " ".join(intent.split()), "kind": kind})
    if kind != old.kind:
        new.kind_confidence = None
    return _edited(draft, [new if one is old else one for one in draft.bundles])


def reject(draft: Draft, bundle: int) -> Draft:
    """Take a bundle apart.

    Raises:
        DataError: There is no such bundle.
    """
    return move(draft, _bundle(draft, bundle).items, 0)


def accept(draft: Draft) -> Draft:
    """Make the bundles gold; none at all says that nothing belongs together.

    Raises:
        DataError: A bundle has a single item.
    """
    for number, bundle in enumerate(draft.bundles, start=1):
        if len(bundle.items) < 2:
            raise DataError(f"bundle {number} has one item: add another, or reject it")
    return replace(draft, accepted=True)


def _bundle(draft: Draft, number: int) -> BundleRecord:
    if not 0 < number <= len(draft.bundles):
        raise DataError(f"there is no bundle {number}")
    return draft.bundles[number - 1]


def _holding(bundle: BundleRecord, items: list[str]) -> BundleRecord:
    """A bundle with these items; where they are others, what was said of the former goes."""
    if set(items) == set(bundle.items):
        return bundle
    return BundleRecord(items=items, intent=bundle.intent, kind=bundle.kind)


def _edited(draft: Draft, bundles: Iterable[BundleRecord]) -> Draft:
    """The draft with other bundles, empty ones gone; itself if nothing changed."""
    kept = tuple(bundle for bundle in bundles if bundle.items)
    return draft if kept == draft.bundles else Draft(draft.items, kept)
