"""The `matched` protocol: one-to-one assignment by Jaccard; RouteDK optimizes this one."""

from routedk.eval.overlap import best_pairs, distinct, jaccard
from routedk.eval.protocols import ItemSets, Score


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

    The mean of `exact` is the share of sessions answered without any fault. A session without a
    prediction scores 0. Where there is no gold bundle, saying so scores 1 and anything else 0.

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
