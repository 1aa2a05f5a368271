"""Patterns: categories that are often bundled together, mined by FP-growth."""

from collections.abc import Sequence
from math import prod
from typing import Any

from routedk.programs.prompting.text import neutralise
from routedk.programs.teachers.config import ANNOTATION, DistillConfig
from routedk.types import Pattern, Provenance, Session

_MOST_CATEGORIES = 3


def mine_patterns(
    sessions: Sequence[Session], config: DistillConfig, teacher: str = ANNOTATION
) -> tuple[Pattern, ...]:
    """Find sets of leaf categories that occur together in bundles.

    A transaction is the set of leaf categories of one bundle. A set counts only if at
    least two bundles contain it.

    Args:
        sessions: Training sessions; those without bundles or categories add nothing.
        config: Minimum support, and maximum number of patterns.
        teacher: Who stated the bundles.

    Returns:
        Patterns by descending support x lift; ties in the order of their names.
    """
    transactions = [
        (session.id, {leaf_category(session.item(i).categories) for i in bundle.item_ids} - {""})
        for session in sessions
        for bundle in session.bundles or ()
    ]
    names = sorted(set[str]().union(*(held for _, held in transactions)))
    # A single bundle is an anecdote, not a pattern.
    if not names or len(transactions) < 2:
        return ()
    import pandas as pd
    from mlxtend.frequent_patterns import fpgrowth

    rows = [[name in held for name in names] for _, held in transactions]
    table: Any = fpgrowth(
        pd.DataFrame(rows, columns=names, dtype=bool),
        min_support=max(config.min_support, 2 / len(transactions)) - 1e-12,
        use_colnames=True,
        max_len=_MOST_CATEGORIES,
    )
    supports = {
        # Sorted: a product of floats depends on the order, which for a set differs by process.
        tuple(sorted(held)): float(support)
        for support, held in zip(table["support"], table["itemsets"], strict=True)
    }
    patterns = []
    for categories, support in supports.items():
        if len(categories) >= 2:
            singles = [supports[(name,)] for name in categories]
            holders = dict.fromkeys(n for n, held in transactions if held.issuperset(categories))
            patterns.append(
                Pattern(
                    categories=categories,
                    support=support,
                    confidence=min(1.0, support / min(singles)),
                    lift=support / prod(singles, start=1.0),
                    provenance=Provenance(teacher=teacher, sessions=tuple(holders)),
                )
            )
    patterns.sort(key=lambda pattern: (-pattern.support * pattern.lift, pattern.categories))
    return tuple(patterns[: config.max_patterns])


def leaf_category(categories: Sequence[str]) -> str:
    """The most specific category of an item's path, as one harmless line; empty without one."""
    return neutralise(categories[-1]) if categories else ""
