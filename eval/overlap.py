"""How much two bundles share, and the best one-to-one pairing of two lists of bundles."""

from collections.abc import Sequence

from routedk.eval.protocols import ItemSets


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """|left ∩ right| / |left ∪ right|; 0 for two empty sets."""
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared) if shared else 0.0


def distinct(bundles: ItemSets) -> list[frozenset[str]]:
    """The bundles without repeats, in the order of their first appearance."""
    return list(dict.fromkeys(bundles))


def best_pairs(weights: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """One-to-one pairs of rows and columns with the largest sum of weights.

    Args:
        weights: Non-negative, one row per left element; every row has the same length.

    Returns:
        Pairs (row, column) by row; pairs of weight 0 are left out.
    """
    if not weights or not weights[0]:
        return []
    if len(weights) == 1:
        pairs = [(0, max(range(len(weights[0])), key=weights[0].__getitem__))]
    elif len(weights[0]) == 1:
        pairs = [(max(range(len(weights)), key=lambda row: weights[row][0]), 0)]
    else:
        # Only here: most sessions need no solver, and a metric should import fast.
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(weights, maximize=True)
        pairs = list(zip(rows.tolist(), columns.tolist(), strict=True))
    return [(row, column) for row, column in pairs if weights[row][column] > 0]
