"""The evaluation protocols, which score the predictions of one session against its gold.

`matched` is the one that RouteDK optimizes: one-to-one assignment by Jaccard. `strict` uses AICL's
notions without its loopholes, and `aicl` scores as AICL's published code does.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

ItemSets: TypeAlias = Sequence[frozenset[str]]
"""The bundles of one session as item sets."""


class Score(NamedTuple):
    """The value of one metric for one session, and how much the session counts in the mean.

    Args:
        value: Higher is better; 0 if the session does not count.
        weight: 1 for a plain mean over sessions; 0 if the session is left out of the denominator;
            the number of hits for a mean over hits.
    """

    value: float
    weight: float = 1.0


UNCOUNTED = Score(0.0, 0.0)

EvaluationProtocol: TypeAlias = Callable[[ItemSets, ItemSets], dict[str, Score]]
"""Scores one session, given its gold bundles and its predicted ones, in this order.

It returns the score of each metric by name, with the same names for every session; the weighted
mean over sessions is what is reported.
"""


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


def matched_pairs(gold: ItemSets, predicted: ItemSets) -> list[tuple[int, int, float]]:
    """Match predicted bundles with gold bundles, one to one.

    Args:
        gold: Gold bundles of one session.
        predicted: Predicted bundles of the same session.

    Returns:
        (index in gold, index in predicted, Jaccard) of the one-to-one assignment that maximizes
        the sum of Jaccard; pairs without a shared item are left out.
    """
    weights = [[jaccard(g, p) for p in predicted] for g in gold]
    return [(row, column, weights[row][column]) for row, column in best_pairs(weights)]


def matched(gold: ItemSets, predicted: ItemSets) -> dict[str, Score]:
    """Score one session under the `matched` protocol.

    With g and p the distinct gold and predicted bundles, and S the largest sum of Jaccard that
    a one-to-one assignment of p to g reaches::

        precision = S / |p|    recall = S / |g|    f1 = 2 S / (|p| + |g|)
        exact     = 1 if p and g are the same bundles, else 0

    The mean of `exact` is the share of sessions answered without any mistake. A session without a
    prediction scores 0. If there is no gold bundle, saying so scores 1 and anything else 0.

    Args:
        gold: Gold bundles; repeats count once.
        predicted: Predicted bundles; repeats count once.

    Returns:
        ``precision``, ``recall``, ``f1`` and ``exact``, each in [0, 1].
    """
    gold, predicted = distinct(gold), distinct(predicted)
    if not gold or not predicted:
        both_empty = Score(float(gold == predicted))
        return dict.fromkeys(("precision", "recall", "f1", "exact"), both_empty)
    total = sum(weight for _, _, weight in matched_pairs(gold, predicted))
    return {
        "precision": Score(total / len(predicted)),
        "recall": Score(total / len(gold)),
        "f1": Score(2 * total / (len(predicted) + len(gold))),
        "exact": Score(float(set(gold) == set(predicted))),
    }


def matched_f1(gold: ItemSets, predicted: ItemSets) -> float:
    """Compute the F1 of `matched` for one session, in [0, 1]: the metric that is optimized.

    Args:
        gold: Gold bundles as item sets.
        predicted: Predicted bundles as item sets.
    """
    return matched(gold, predicted)["f1"].value


def strict(gold: ItemSets, predicted: ItemSets) -> dict[str, Score]:
    """Score one session under the `strict` protocol.

    A prediction hits a gold bundle when it is a subset of it, as in `aicl`; but each gold bundle
    and each prediction is counted once, repeats are dropped, and every session counts. With H
    the one-to-one assignment with the most hits (among those, with the largest coverage)::

        precision = |H| / |p|    recall = |H| / |g|    coverage = mean over H of |p_i| / |g_j|

    A session without a prediction scores 0, and so does the coverage of one without a hit. If
    there is no gold bundle, saying so scores 1 and anything else 0.

    Args:
        gold: Gold bundles; repeats count once.
        predicted: Predicted bundles; repeats count once.

    Returns:
        ``precision``, ``recall`` and ``coverage``, each in [0, 1].
    """
    gold, predicted = distinct(gold), distinct(predicted)
    if not gold or not predicted:
        both_empty = Score(float(gold == predicted))
        return dict.fromkeys(("precision", "recall", "coverage"), both_empty)
    covers = [[len(p) / len(g) if p <= g else 0.0 for p in predicted] for g in gold]
    # A hit outweighs all the coverage there can be, so that hits come first.
    most = len(gold) + 1
    hits = best_pairs([[most + cover if cover else 0.0 for cover in row] for row in covers])
    covered = sum(covers[row][column] for row, column in hits)
    return {
        "precision": Score(len(hits) / len(predicted)),
        "recall": Score(len(hits) / len(gold)),
        "coverage": Score(covered / len(hits) if hits else 0.0),
    }


def aicl(gold: ItemSets, predicted: ItemSets) -> dict[str, Score]:
    """Score one session under the `aicl` protocol.

    A prediction p_i is a hit when it is a subset of some gold bundle; g_j is the first that
    contains it::

        precision = hits / |p|    recall = hits / |g|    coverage = mean over hits of |p_i| / |g_j|

    Precision and recall are averaged over sessions with a prediction, coverage over all hits of
    all sessions, so a session's weight is its number of hits. Several hits in one gold bundle all
    count: recall can exceed 1, and many small predictions pay off (all pairs of a session's items
    give a recall of several).

    Args:
        gold: Gold bundles.
        predicted: Predicted bundles; repeats count each time.

    Returns:
        ``precision`` in [0, 1], ``recall`` >= 0 and ``coverage`` in [0, 1]. A session without a
        prediction, or without gold, has weight 0 throughout.

    Source: AICL, arXiv 2312.16262, whose code leaves unanswered sessions out.
    """
    if not gold or not predicted:
        return dict.fromkeys(("precision", "recall", "coverage"), UNCOUNTED)
    covers = []
    for p in predicted:
        holder = next((g for g in gold if p <= g), None)
        if holder is not None:
            covers.append(len(p) / len(holder))
    return {
        "precision": Score(len(covers) / len(predicted)),
        "recall": Score(len(covers) / len(gold)),
        "coverage": Score(sum(covers) / len(covers), len(covers)) if covers else UNCOUNTED,
    }
