"""Policies for untitled items and for gold bundles, applied before sessions are used."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from routedk.similarity.words import RUN, WORD
from routedk.types import Bundle, Item, Session

# What exports write for a missing title.
_NO_TITLE = frozenset({"item", "n/a", "na", "nan", "none", "null", "product", "sku", "untitled"})


def minimal_bundles(bundles: Sequence[Bundle]) -> tuple[Bundle, ...]:
    """Bundles without exact duplicates (the first stays) and without strict supersets."""
    first: dict[frozenset[str], Bundle] = {}
    for bundle in bundles:
        first.setdefault(bundle.items, bundle)
    return tuple(
        bundle for items, bundle in first.items() if not any(other < items for other in first)
    )


def drop_untitled(session: Session) -> Session | None:
    """The session without its untitled items; None when fewer than two items are left.

    A gold bundle left with fewer than two items is dropped, too.
    """
    items = tuple(item for item in session.items if has_title(item))
    if len(items) < 2:
        return None
    if session.bundles is None:
        return replace(session, items=items)
    left = {item.id for item in items}
    bundles = (
        replace(bundle, item_ids=tuple(one for one in bundle.item_ids if one in left))
        for bundle in session.bundles
        if len(bundle.items & left) > 1
    )
    return replace(session, items=items, bundles=tuple(bundles))


def fill_titles(session: Session, titles: Mapping[str, str]) -> Session:
    """The session with missing titles filled in by item id."""
    items = (
        item if has_title(item) else replace(item, title=titles.get(item.id, item.title))
        for item in session.items
    )
    return replace(session, items=tuple(items)) if titles else session


def has_title(item: Item) -> bool:
    """Whether the item has a title that is more than whitespace."""
    return bool(item.title.strip())


def is_telling(title: str) -> bool:
    """Whether a title says what the item is: it has a word, unlike a bare number or SKU."""
    words = (word.strip(".,:;()[]#-") for word in title.lower().split())
    # A word with a digit is a model number, except in scripts without spaces between words.
    plain = (word for word in words if RUN.search(word) or not any(map(str.isdigit, word)))
    return any(WORD.search(word) and word not in _NO_TITLE for word in plain)
