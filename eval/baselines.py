"""Baselines that need no data: every table shows what they reach."""

from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from routedk.types import Session


class Baseline(Protocol):
    """Bundles a session without a language model."""

    def predict(self, session: Session) -> list[frozenset[str]]:
        """Bundle one session; its gold bundles are never looked at.

        Args:
            session: The session.

        Returns:
            Distinct sets of at least two of the session's items; empty only for a session of
            one item. The same session always gives the same answer.
        """
        ...


class WholeSession:
    """One bundle of all items."""

    def predict(self, session: Session) -> list[frozenset[str]]:
        """Bundle one session; see `Baseline.predict`."""
        return whole(session)


class FirstTwo:
    """One bundle of the first two items."""

    def predict(self, session: Session) -> list[frozenset[str]]:
        """Bundle one session; see `Baseline.predict`."""
        if len(session.items) < 2:
            return []
        return [frozenset(item.id for item in session.items[:2])]


class AllPairs:
    """Every pair of items is a bundle: what a protocol that can be gamed rewards."""

    def predict(self, session: Session) -> list[frozenset[str]]:
        """Bundle one session; see `Baseline.predict`."""
        return [frozenset(pair) for pair in combinations((item.id for item in session.items), 2)]


@dataclass(frozen=True, slots=True)
class SameCategory:
    """Items of one category are a bundle; the whole session where no two items share one.

    Args:
        depth: How many steps of the category path must agree, from 1. A shorter path counts as
            it is; an item without a category agrees with none.
    """

    depth: int

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"depth is {self.depth}: it must be at least 1")

    def predict(self, session: Session) -> list[frozenset[str]]:
        """Bundle one session; see `Baseline.predict`."""
        groups: dict[tuple[str, ...], set[str]] = {}
        for item in session.items:
            if item.categories:
                groups.setdefault(item.categories[: self.depth], set()).add(item.id)
        return [frozenset(group) for group in groups.values() if len(group) > 1] or whole(session)


def whole(session: Session) -> list[frozenset[str]]:
    """The whole session as one bundle, or none for a session of one item."""
    if len(session.items) < 2:
        return []
    return [frozenset(item.id for item in session.items)]
