"""Baselines that need no data, scored in every table."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

from routedk.types import Session

Baseline: TypeAlias = Callable[[Session], list[frozenset[str]]]
"""Bundles a session without a language model; its gold bundles are never looked at.

It returns distinct sets of at least two of the session's items, none only where fewer than two
items are there to bundle, and the same ones every time.
"""


def whole(session: Session) -> list[frozenset[str]]:
    """The whole session as one bundle, or none for a session of one item."""
    if len(session.items) < 2:
        return []
    return [frozenset(item.id for item in session.items)]


def first_two(session: Session) -> list[frozenset[str]]:
    """One bundle of the first two items."""
    return [frozenset(item.id for item in session.items[:2])] if len(session.items) > 1 else []


def all_pairs(session: Session) -> list[frozenset[str]]:
    """Every pair of items is a bundle: what a protocol that can be gamed rewards."""
    return [frozenset(pair) for pair in combinations((item.id for item in session.items), 2)]


@dataclass(frozen=True, slots=True)
class SameCategory:
    """Items of one category are a bundle; the whole session where no two items share one.

    Args:
        depth: How many steps of the category path must agree, from 1. A shorter path counts in
            full; an item without a category agrees with none.
    """

    depth: int

    def __call__(self, session: Session) -> list[frozenset[str]]:
        """Bundle one session; see `Baseline`."""
        groups: dict[tuple[str, ...], set[str]] = {}
        for item in session.items:
            if item.categories:
                groups.setdefault(item.categories[: self.depth], set()).add(item.id)
        bundles = [frozenset(group) for group in groups.values() if len(group) > 1]
        return bundles or whole(session)
