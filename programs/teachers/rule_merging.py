"""Rules of many sessions become a short list: near-duplicates fall together, frequent ones stay."""

from collections.abc import Sequence

import numpy as np

from routedk.data.knowledge_file import joint_cost
from routedk.errors import SettingError
from routedk.similarity.encoders import TitleEncoder, default_encoder
from routedk.types import Provenance, Rule

# Average cosine distance below which two rules are taken to say the same.
_SAME_RULE = 0.25


def merge_rules(
    rules: Sequence[Rule], *, limit: int, encoder: TitleEncoder | None = None
) -> tuple[Rule, ...]:
    """Merge rules that say the same and keep those that most sessions taught.

    Rules are clustered by the meaning of their sentences (average linkage). A cluster's rule is
    the sentence most like the others of it; its provenance is all of theirs, costs summed.

    Args:
        rules: In a stable order, which decides between equals.
        limit: Most rules, at least 0.
        encoder: Tells which sentences are alike; by default the embedded MiniLM.

    Returns:
        Rules by falling number of sessions.

    Raises:
        SettingError: The limit is negative.
    """
    if limit < 0:
        raise SettingError(f"max_rules={limit}: it must be at least 0")
    merged = []
    for places, cosines in _clusters(rules, encoder):
        members = [rules[place] for place in places]
        # Rounding keeps ties ties, whatever the order of a sum.
        typical = int(np.argmax(cosines.mean(axis=1).round(6)))
        merged.append(Rule(text=members[typical].text, provenance=_joint(members)))
    merged.sort(key=lambda rule: -len(rule.provenance.sessions))
    return tuple(merged[:limit])


def _clusters(
    rules: Sequence[Rule], encoder: TitleEncoder | None
) -> list[tuple[list[int], np.ndarray]]:
    """Places of the members of each cluster, by first member, and their cosines."""
    if len(rules) < 2:
        return [([place], np.ones((1, 1))) for place in range(len(rules))]
    from sklearn.cluster import AgglomerativeClustering

    rows = (encoder or default_encoder()).encode([rule.text for rule in rules]).astype(np.float64)
    cosines = (rows @ rows.T).clip(-1, 1).round(6)
    labels = AgglomerativeClustering(
        n_clusters=None, distance_threshold=_SAME_RULE, metric="precomputed", linkage="average"
    ).fit_predict(1 - cosines)
    members: dict[int, list[int]] = {}
    for place, label in enumerate(map(int, labels)):
        members.setdefault(label, []).append(place)
    return [(places, cosines[np.ix_(places, places)]) for places in members.values()]


def _joint(rules: Sequence[Rule]) -> Provenance:
    sources = [rule.provenance for rule in rules]
    return Provenance(
        teacher=sources[0].teacher,
        sessions=tuple(dict.fromkeys(name for source in sources for name in source.sessions)),
        prompt_hash=sources[0].prompt_hash,
        tokens=sum(source.tokens for source in sources),
        cost=joint_cost(sources),
    )
