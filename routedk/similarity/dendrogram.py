"""Average-linkage clustering of a session's titles: its nodes and its flat cuts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Self

import numpy as np
from numpy.typing import NDArray

from routedk.similarity.encoders import TitleEncoder
from routedk.similarity.pairs import PairModel
from routedk.types import Session


@dataclass(frozen=True, slots=True)
class Merge:
    """One step of the clustering: the members of the new cluster, and the height of the step."""

    members: frozenset[str]
    height: float


class Dendrogram:
    """The dendrogram of named vectors by cosine distance and average linkage.

    Args:
        names: Distinct names, one per row.
        vectors: Rows of length 1; a row of zeros is at distance 1 from every other.

    *Shape:*
        - vectors: ``(names, dimensions)``
    """

    def __init__(self, names: Sequence[str], vectors: NDArray[np.float32]) -> None:
        if len(names) != len(vectors):
            raise ValueError(f"{len(names)} names for {len(vectors)} vectors")
        rows = vectors.astype(np.float64)
        self.names = tuple(names)
        self.merges = _merges(self.names, np.clip(1.0 - rows @ rows.T, 0.0, 2.0))

    @classmethod
    def of_distances(cls, names: Sequence[str], distances: NDArray[np.float64]) -> Self:
        """The dendrogram by any distances of each two names.

        Args:
            names: Distinct names.
            distances: Symmetric, at least 0.

        *Shape:*
            - distances: ``(names, names)``
        """
        tree = cls.__new__(cls)
        tree.names = tuple(names)
        tree.merges = _merges(tree.names, distances)
        return tree

    def cut(self, threshold: float) -> list[frozenset[str]]:
        """Clusters of at least two members when every merge up to this height is done.

        Args:
            threshold: Cosine distance, in [0, 2].

        Returns:
            Disjoint clusters in the order of the names of their first members.
        """
        standing: list[frozenset[str]] = []
        for merge in self.merges:
            if merge.height > threshold:
                break
            standing = [c for c in standing if not c <= merge.members] + [merge.members]
        return self._ordered(standing)

    def nodes(self) -> list[frozenset[str]]:
        """Every cluster of at least two members, from the closest to the whole."""
        return [merge.members for merge in self.merges]

    def cuts(self) -> list[list[frozenset[str]]]:
        """Every distinct flat cut with at least one cluster of two, from the finest on.

        Merges of one height belong to one cut, as no threshold parts them.
        """
        return [self.cut(height) for height, _ in groupby(self.merges, key=attrgetter("height"))]

    def _ordered(self, clusters: list[frozenset[str]]) -> list[frozenset[str]]:
        place = {name: index for index, name in enumerate(self.names)}
        return sorted(clusters, key=lambda cluster: min(place[name] for name in cluster))


def session_dendrogram(
    session: Session, encoder: TitleEncoder, pairs: PairModel | None = None
) -> Dendrogram:
    """The average-linkage dendrogram of a session's titles.

    Args:
        session: A session whose items have titles.
        encoder: Encoder of the titles.
        pairs: A pair is as far apart as it is improbable; None for cosine distance.
    """
    names = [item.id for item in session.items]
    titles = encoder.encode([item.title for item in session.items])
    if pairs is None:
        return Dendrogram(names, titles)
    return Dendrogram.of_distances(names, 1 - pairs.probabilities(titles))


def _merges(names: tuple[str, ...], distances: NDArray[np.float64]) -> tuple[Merge, ...]:
    """The steps of the clustering, by height."""
    if len(names) < 2:
        return ()
    from scipy.cluster.hierarchy import linkage

    upper = np.triu_indices(len(names), k=1)
    clusters = [frozenset({name}) for name in names]
    steps = []
    for left, right, height, _ in linkage(distances[upper], method="average"):
        clusters.append(clusters[int(left)] | clusters[int(right)])
        steps.append(Merge(clusters[-1], float(height)))
    return tuple(steps)
