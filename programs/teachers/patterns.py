"""Patterns: categories that are often bundled together, found by a library's FP-growth."""

from collections.abc import Sequence
from typing import Any

from routedk.errors import SettingError
from routedk.programs.prompting.text import neutralise
from routedk.types import Pattern, Provenance, Session


def leaf_category(categories: Sequence[str]) -> str:
    """The most special category of an item's path, as one harmless line; empty without one."""
    return neutralise(categories[-1]) if categories else ""


def mine_patterns(
    sessions: Sequence[Session],
    *,
    min_support: float = 0.01,
    max_categories: int = 3,
    limit: int = 50,
    teacher: str = "annotation",
) -> tuple[Pattern, ...]:
    """Find sets of leaf categories that gold bundles hold together.

    A transaction is the set of leaf categories of one gold bundle. A set counts only where at
    least two bundles hold it.

    Args:
        sessions: Training sessions; those without gold bundles or categories add nothing.
        min_support: Least share of bundles, in (0, 1].
        max_categories: Largest set, at least 2.
        limit: Patterns kept, by support x lift; ties in the order of their names.
        teacher: Name for the provenance.

    Returns:
        Patterns in falling support x lift.

    Raises:
        SettingError: A value is out of its range.
    """
    if not 0 < min_support <= 1:
        raise SettingError(f"min_support={min_support}: it must be in (0, 1]")
    if max_categories < 2:
        raise SettingError(f"max_categories={max_categories}: it must be at least 2")
    if limit < 0:
        raise SettingError(f"limit={limit}: it must be at least 0")
    transactions: list[tuple[str, frozenset[str]]] = []
    for session in sessions:
        for bundle in session.bundles or ():
            names = {leaf_category(session.item(i).categories) for i in bundle.item_ids} - {""}
            transactions.append((session.id, frozenset(names)))
    supports = _frequent(transactions, min_support, max_categories)
    patterns = [
        _pattern(categories, supports, transactions, teacher)
        for categories in supports
        if len(categories) >= 2
    ]
    patterns.sort(key=lambda pattern: (-pattern.support * pattern.lift, pattern.categories))
    return tuple(patterns[:limit])


def _frequent(
    transactions: Sequence[tuple[str, frozenset[str]]], min_support: float, max_categories: int
) -> dict[frozenset[str], float]:
    import pandas as pd
    from mlxtend.frequent_patterns import fpgrowth

    names = sorted(frozenset[str]().union(*(held for _, held in transactions)))
    if not names:
        return {}
    # Fewer than two bundles are an anecdote, not a pattern.
    least = max(min_support, 2 / len(transactions))
    if least > 1:
        return {}
    rows = [[name in held for name in names] for _, held in transactions]
    table: Any = fpgrowth(
        pd.DataFrame(rows, columns=names, dtype=bool),
        min_support=least - 1e-12,
        use_colnames=True,
        max_len=max_categories,
    )
    return {
        frozenset(held): float(support)
        for support, held in zip(table["support"], table["itemsets"], strict=True)
    }


def _pattern(
    categories: frozenset[str],
    supports: dict[frozenset[str], float],
    transactions: Sequence[tuple[str, frozenset[str]]],
    teacher: str,
) -> Pattern:
    support = supports[categories]
    # In their order: a product of floats depends on it, and a set has another in each process.
    singles = [supports[frozenset([name])] for name in sorted(categories)]
    chance = 1.0
    for single in singles:
        chance *= single
    holders = dict.fromkeys(name for name, held in transactions if categories <= held)
    return Pattern(
        categories=tuple(sorted(categories)),
        support=support,
        confidence=min(1.0, support / min(singles)),
        lift=support / chance,
        provenance=Provenance(teacher=teacher, sessions=tuple(holders)),
    )
