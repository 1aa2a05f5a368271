"""Rules of many sessions become a short list: near-duplicates fall together, frequent ones stay."""

from collections.abc import Sequence

import numpy as np

from routedk.programs.teachers.accumulate import joint_provenance
from routedk.similarity.encoders import default_encoder
from routedk.types import Rule

# Average cosine distance below which two rules are taken to say the same.
_SAME_RULE = 0.25


def merge_rules(rules: Sequence[Rule], *, limit: int) -> tuple[Rule, ...]:
    """Merge rules that say the same and keep those that most sessions taught.

    Rules are clustered by the meaning of their sentences (average linkage). A cluster's rule is
    the sentence most like the others of it; its provenance is all of theirs, costs summed.

    Args:
        rules: In a stable order, which decides between equals.
        limit: Most rules, at least 0.

    Returns:
        Rules by falling number of sessions.
    """
    if len(rules) < 2:
        return tuple(rules[:limit])
    from sklearn.cluster import AgglomerativeClustering

    rows = default_encoder().encode([rule.text for rule in rules]).astype(np.float64)
    # Rounding keeps ties ties, whatever the order of a sum.
    cosines = (rows @ rows.T).clip(-1, 1).round(6)
    clusters = AgglomerativeClustering(
        n_clusters=None, distance_threshold=_SAME_RULE, metric="precomputed", linkage="average"
    ).fit_predict(1 - cosines)
    merged = []
    for cluster in dict.fromkeys(map(int, clusters)):
        places = np.flatnonzero(clusters == cluster).tolist()
        typical = int(np.argmax(cosines[np.ix_(places, places)].mean(axis=1).round(6)))
        source = joint_provenance([rules[place].provenance for place in places])
        merged.append(Rule(text=rules[places[typical]].text, provenance=source))
    merged.sort(key=lambda rule: -len(rule.provenance.sessions))
    return tuple(merged[:limit])
