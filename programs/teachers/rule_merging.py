"""Rules of many sessions become a short list: near-duplicates are merged, frequent ones kept."""

from collections.abc import Sequence

import numpy as np

from routedk.programs.teachers.accumulate import joint_provenance
from routedk.similarity.dendrogram import Dendrogram
from routedk.similarity.encoders import default_encoder, meanings
from routedk.types import Rule

# Average cosine distance up to which two rules are taken to say the same.
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
    if not rules:
        return ()
    names = [str(place) for place in range(len(rules))]
    rows = meanings([rule.text for rule in rules], default_encoder())
    # Rounding keeps ties ties, whatever the order of a sum.
    cosines = (rows @ rows.T).clip(-1, 1).astype(np.float64).round(6)
    clusters = Dendrogram(names, 1 - cosines).cut(_SAME_RULE)
    alone = [{name} for name in names if not any(name in cluster for cluster in clusters)]
    merged = []
    for places in sorted(sorted(map(int, cluster)) for cluster in [*clusters, *alone]):
        likeness = cosines[np.ix_(places, places)].mean(axis=1).round(6)
        typical = rules[places[int(likeness.argmax())]]
        source = joint_provenance([rules[place].provenance for place in places])
        merged.append(Rule(text=typical.text, provenance=source))
    merged.sort(key=lambda rule: -len(rule.provenance.sessions))
    return tuple(merged[:limit])
