"""The `aicl` protocol: as AICL's published code scores, for comparison with its papers."""

from routedk.eval.protocols import UNCOUNTED, ItemSets, Score


def aicl(gold: ItemSets, predicted: ItemSets) -> dict[str, Score]:
    """Score one session under the `aicl` protocol.

    A prediction p_i is a hit when it is a subset of some gold bundle; g_j is the first that
    holds it::

        precision = hits / |p|    recall = hits / |g|    coverage = mean over hits of |p_i| / |g_j|

    Precision and recall are averaged over sessions with a prediction; coverage over all hits of
    all sessions, so a session weighs as many as it has. Several hits in one gold bundle all
    count: recall can exceed 1, and many small predictions pay (all pairs of a session's items
    score a recall of several).

    Args:
        gold: Gold bundles.
        predicted: Predicted bundles; repeats count again.

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
