"""Patterns: categories that are often bundled together, found by FP-growth."""

from collections.abc import Sequence
from math import prod
from typing import Any, TypeAlias

from routedk.programs.teachers.config import ANNOTATION, DistillConfig
from routedk.programs.teachers.wording import leaf_category
from routedk.types import Pattern, Provenance, Session

# A session's id, and the leaf categories of one of its gold bundles.
_Transaction: TypeAlias = tuple[str, frozenset[str]]

_MOST_CATEGORIES = 3


def mine_patterns(
    sessions: Sequence[Session], config: DistillConfig, teacher: str = ANNOTATION
) -> tuple[Pattern, ...]:
    """Find sets of leaf categories that bundles hold together.

    A transaction is the set of leaf categories of one gold bundle. A set counts only where at
    least two bundles hold it.

    Args:
        sessions: Training sessions; those without gold bundles or categories add nothing.
        config: Least support, and most patterns.
        teacher: Who stated the bundles.

    Returns:
        Patterns by falling support x lift; ties in the order of their names.
    """
    transactions: list[_Transaction] = []
    for session in sessions:
        for bundle in session.bundles or ():
            names = {leaf_category(session.item(i).categories) for i in bundle.item_ids} - {""}
            transactions.append((session.id, frozenset(names)))
    supports = _frequent(transactions, config.min_support)
    patterns = [
        _pattern(categories, supports, transactions, teacher)
        for categories in supports
        if len(categories) >= 2
    ]
    patterns.sort(key=lambda pattern: (-pattern.support * pattern.lift, pattern.categories))
    return tuple(patterns[: config.max_patterns])


def _frequent(
    transactions: Sequence[_Transaction], min_support: float
) -> dict[frozenset[str], float]:
    names = sorted(frozenset[str]().union(*(held for _, held in transactions)))
    # Fewer than two bundles are an anecdote, not a pattern.
    if not names or len(transactions) < 2:
        return {}
    least = max(min_support, 2 / len(transactions))
    import pandas as pd
    from mlxtend.frequent_patterns import fpgrowth

    rows = [[name in held for name in names] for _, held in transactions]
    table: Any = fpgrowth(
        pd.DataFrame(rows, columns=names, dtype=bool),
        min_support=least - 1e-12,
        use_colnames=True,
        max_len=_MOST_CATEGORIES,
    )
    return {
        frozenset(held): float(support)
        for support, held in zip(table["support"], table["itemsets"], strict=True)
    }


def _pattern(
    categories: frozenset[str],
    supports: dict[frozenset[str], float],
    transactions: Sequence[_Transaction],
    teacher: str,
) -> Pattern:
    support = supports[categories]
    # Sorted: a product of floats depends on the order, which for a set differs between processes.
    singles = [supports[frozenset([name])] for name in sorted(categories)]
    holders = dict.fromkeys(name for name, held in transactions if categories <= held)
    return Pattern(
        categories=tuple(sorted(categories)),
        support=support,
        confidence=min(1.0, support / min(singles)),
        lift=support / prod(singles, start=1.0),
        provenance=Provenance(teacher=teacher, sessions=tuple(holders)),
    )
