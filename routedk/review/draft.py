"""A session's bundles under review, and the edits to them.

Each edit is a function from one version to the next. An edited version is no longer accepted, and a
bundle whose items change loses its confidence, which was about other items.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Self

from pydantic import BaseModel, Field, model_validator

from routedk.data.records import BundleRecord, bundle_records, session_to_record
from routedk.data.validation import Id
from routedk.errors import DataError
from routedk.types import Bundle, Kind, Session


class _Item(BaseModel, extra="allow"):
    id: Id


class Version(BaseModel):
    """A session as it was proposed or saved: a line of the history.

    Args:
        session_id: The session.
        items: Its items, as in a native record.
        bundles: Its bundles, numbered from 1 in order, with no item in common. A bundle may have a
            single item until it is accepted.
        accepted: Whether they are gold.
        version: Number of the version; version 0 is what was proposed to the reviewers.
        change: The edit that made it, e.g. ``move``.
        reviewed_by: Who made it; empty for what was proposed.
        reviewed_at: When, as ISO 8601 in UTC.
    """

    session_id: Id
    items: list[_Item]
    bundles: list[BundleRecord]
    accepted: bool = False
    version: int = Field(0, ge=0)
    change: str = "proposed"
    reviewed_by: str = ""
    reviewed_at: str = ""

    @model_validator(mode="after")
    def _parted(self) -> Self:
        if len(self._placed) > len(set(self._placed)) or not {*self._placed} <= {*self.ids}:
            raise ValueError("an item is in two bundles, or not in the session")
        return self

    @property
    def _placed(self) -> list[str]:
        return [*chain(*(bundle.items for bundle in self.bundles))]

    @property
    def ids(self) -> list[str]:
        """The items, in the order of the session."""
        return [item.id for item in self.items]

    @property
    def free(self) -> list[str]:
        """The items in no bundle."""
        placed = set(self._placed)
        return [name for name in self.ids if name not in placed]

    def gold(self) -> dict[str, Any]:
        """The native record, with who accepted it and when."""
        keys = {"session_id", "items", "reviewed_by", "reviewed_at"}
        sure = [Bundle(tuple(one.items), one.intent, one.kind, one.why) for one in self.bundles]
        return {**self.model_dump(include=keys), "bundles": bundle_records(sure)}


def proposed(session: Session, bundles: Iterable[Bundle]) -> Version:
    """The version that a review starts with: an item in several bundles stays in the first."""
    found: list[BundleRecord] = []
    free = {item.id for item in session.items}
    for record in bundle_records(bundles):
        left = [item for item in record["items"] if item in free]
        if len(left) > 1:
            found.append(_holding(BundleRecord(**record), left))
            free -= set(left)
    return Version(**session_to_record(session, images=True) | {"bundles": found})


def move(draft: Version, items: Sequence[str], to: int) -> Version:
    """Move items to a bundle.

    Args:
        draft: The version to edit.
        items: Their ids, from one bundle or several.
        to: Number of the bundle; 0 takes them out of theirs, one above the last makes a new one,
            which is how a bundle is split.

    Raises:
        DataError: There is no such item or bundle.
    """
    if foreign := set(items) - set(draft.ids):
        raise DataError(f"the session has no item {min(foreign)!r}")
    bundles = [*draft.bundles, BundleRecord(items=[])]
    if not 0 <= to <= len(bundles):
        raise DataError(f"there is no bundle {to}")
    moved = [item for item in draft.ids if item in items]
    for number, bundle in enumerate(bundles, start=1):
        left = [item for item in bundle.items if item not in moved or number == to]
        added = [item for item in moved if item not in left] if number == to else []
        bundles[number - 1] = _holding(bundle, left + added)
    return _edited(draft, bundles)


def merge(draft: Version, bundle: int, to: int) -> Version:
    """Move all items of one bundle to another, which takes over the intent and kind it lacks.

    Raises:
        DataError: There is no such bundle, or they are the same.
    """
    source, target = _bundle(draft, bundle), _bundle(draft, to)
    if bundle == to:
        raise DataError(f"bundle {to} cannot be merged with itself")
    named = rename(draft, to, target.intent or source.intent, target.kind or source.kind)
    return move(named, source.items, to)


def rename(draft: Version, bundle: int, intent: str, kind: Kind | None) -> Version:
    """Give a bundle this intent and kind.

    Raises:
        DataError: There is no such bundle, or this intent would be read back as empty.
    """
    old = _bundle(draft, bundle)
    # As it will be read as gold: on one line, entities unescaped.
    new = BundleRecord(**{**dict(old), "intent": " ".join(intent.split()), "kind": kind})
    if intent.strip() and not new.intent:
        raise DataError(f"an intent {intent.strip()!r} reads as none: use other words")
    if kind != old.kind:
        new.kind_confidence = None
    return _edited(draft, [new if one is old else one for one in draft.bundles])


def reject(draft: Version, bundle: int) -> Version:
    """Take a bundle apart.

    Raises:
        DataError: There is no such bundle.
    """
    return move(draft, _bundle(draft, bundle).items, 0)


def accept(draft: Version) -> Version:
    """Make the bundles gold; no bundles at all means that nothing belongs together.

    Raises:
        DataError: A bundle has a single item.
    """
    for number, bundle in enumerate(draft.bundles, start=1):
        if len(bundle.items) < 2:
            raise DataError(f"bundle {number} has one item: add another, or reject it")
    return draft.model_copy(update={"accepted": True})


def _bundle(draft: Version, number: int) -> BundleRecord:
    if not 0 < number <= len(draft.bundles):
        raise DataError(f"there is no bundle {number}")
    return draft.bundles[number - 1]


def _holding(bundle: BundleRecord, items: list[str]) -> BundleRecord:
    """The bundle with these items; if they changed, only its intent and kind are kept."""
    if set(items) == set(bundle.items):
        return bundle
    return BundleRecord(items=items, intent=bundle.intent, kind=bundle.kind)


def _edited(draft: Version, bundles: Iterable[BundleRecord]) -> Version:
    """The version with other bundles, without empty ones; itself if nothing changed."""
    kept = [bundle for bundle in bundles if bundle.items]
    changed = {"bundles": kept, "accepted": False}
    return draft if kept == draft.bundles else draft.model_copy(update=changed)
