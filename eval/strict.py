"""The `strict` protocol: AICL's notions without its loopholes."""

from routedk.eval.overlap import best_pairs, distinct
from routedk.eval.protocols import ItemSets, Score


def strict(gold: ItemSets, predicted: ItemSets) -> dict[str, Score]:
    """Score one session under the `strict` protocol.

    A prediction hits a gold bundle when it is a subset of it, as in `aicl`; but each gold bundle
    and each prediction is counted once, repeats are dropped, and every session counts. With H
    the one-to-one assignment with the most hits (among those, with the largest coverage)::

        precision = |H| / |p|    recall = |H| / |g|    coverage = mean over H of |p_i| / |g_j|

    A session without a prediction scores 0, and so does the coverage of one without a hit. Where
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
