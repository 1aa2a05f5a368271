"""The candidate groupings of a session, and the features for choosing among them."""

from collections.abc import Iterator, Sequence
from itertools import combinations, islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from routedk.programs.grouping.constraints import Constraints
from routedk.similarity.dendrogram import Dendrogram

# At least one bundle; bundles are disjoint sets of item positions in the session.
Candidate: TypeAlias = tuple[frozenset[int], ...]

FEATURES = 13
_MOST_BUNDLES = 3
# Cap on the number of bundles, and twice that on items: training sessions rarely have more.
_MOST_COUNTED = 5
_MOST_CANDIDATES = 150
# A logit that stands for "there is none": below any that matters.
_NONE = -5.0


def candidates(logits: NDArray[np.float64], limits: Constraints | None = None) -> list[Candidate]:
    """The groupings of a session that its dendrogram offers.

    These are its flat cuts, and sets of up to three disjoint clusters, the tightest first. In
    long sessions there are too many: only about 150 of each kind are candidates.

    Args:
        logits: How likely each pair of items is to be in one bundle, symmetric.
        limits: Constraints that every candidate satisfies; None for no limits.

    *Shape:*
        - logits: ``(items, items)``
    """
    distances = 1 - probabilities(logits)
    tree = Dendrogram(range(len(logits)), limits.distances(distances) if limits else distances)
    nodes = [members for members, _ in tree.merges]
    found: dict[frozenset[frozenset[int]], Candidate] = {}
    step = len(nodes) // _MOST_CANDIDATES + 1
    for _, height in tree.merges[::-step]:
        cut = tuple(tree.cut(height))
        found.setdefault(frozenset(cut), cut)
    for chosen in islice(_disjoint(nodes), _MOST_CANDIDATES):
        found.setdefault(frozenset(chosen), chosen)
    return limits.feasible(found.values()) if limits else list(found.values())


def _disjoint(nodes: Sequence[frozenset[int]]) -> Iterator[Candidate]:
    """Yield sets of one to three disjoint clusters, the tightest clusters first."""
    for count in range(1, _MOST_BUNDLES + 1):
        for chosen in combinations(nodes, count):
            if sum(map(len, chosen)) == len(frozenset().union(*chosen)):
                yield chosen


def candidate_features(
    logits: NDArray[np.float64], chosen: Sequence[Candidate]
) -> NDArray[np.float64]:
    """The features of each candidate.

    In order: number of bundles, number of items, share of items in a bundle, whether the whole
    session is one bundle; logits: mean and lowest inside bundles, mean of the nearest outsiders and
    of the highest across, highest among items left out; log-likelihood and expected F1 of the
    grouping; highest and mean logit of all pairs.

    Args:
        logits: As for `candidates`; the diagonal is ignored.
        chosen: Candidates of the same session.

    *Shape:*
        - result: ``(candidates, 13)``
    """
    upper = np.triu_indices(len(logits), k=1)
    pairs, likely = logits[upper], probabilities(logits)[upper]
    rows = []
    for candidate in chosen:
        inside = np.zeros(len(logits), dtype=int)
        numbered = list(enumerate(candidate, start=1))
        for number, bundle in numbered:
            inside[list(bundle)] = number
        together = (inside[upper[0]] == inside[upper[1]]) & (inside[upper[0]] > 0)
        left = (inside[upper[0]] == 0) & (inside[upper[1]] == 0)
        within = [_within(logits, b) for b in candidate]
        across = [logits[np.array(sorted(b))][:, inside != n] for n, b in numbered]
        bounded = [block for block in across if block.size]
        hits = likely[together].sum()
        rows.append(
            [
                min(len(candidate), _MOST_COUNTED),
                min(len(logits), 2 * _MOST_COUNTED),
                (inside > 0).mean(),
                len(candidate) == 1 and bool((inside > 0).all()),
                np.mean([block.mean() for block in within]),
                min(block.min() for block in within),
                np.mean([block.mean(axis=0).max() for block in bounded]) if bounded else _NONE,
                np.mean([block.max() for block in bounded]) if bounded else _NONE,
                pairs[left].max(initial=_NONE),
                np.where(together, np.log(likely), np.log1p(-likely)).mean(),
                2 * hits / (together.sum() + likely.sum()),
                pairs.max(),
                pairs.mean(),
            ]
        )
    return np.array(rows, dtype=np.float64)


def _within(logits: NDArray[np.float64], bundle: frozenset[int]) -> NDArray[np.float64]:
    """The logits of a bundle's own pairs."""
    places = sorted(bundle)
    return logits[np.ix_(places, places)][np.triu_indices(len(places), k=1)]


def probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply the logistic function, clipped so that no probability is 0 or 1."""
    found: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(logits, -7.0, 7.0)))
    return found
