"""Average-linkage clustering of a session's titles, and its flat cuts."""

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from routedk.similarity.encoders import TitleEncoder
from routedk.similarity.pairs import PairModel
from routedk.types import Session

Name = TypeVar("Name", bound=Hashable)


class Dendrogram(Generic[Name]):
    """An average-linkage dendrogram of named things.

    Args:
        names: Distinct names.
        distances: Between each two of them, symmetric, at least 0.

    *Shape:*
        - distances: ``(names, names)``

    Attributes:
        merges: For each clustering step, by height: the members of the new cluster and the
            height.
    """

    def __init__(self, names: Sequence[Name], distances: NDArray[np.float64]) -> None:
        self.names = tuple(names)
        self.merges: list[tuple[frozenset[Name], float]] = []
        if len(self.names) < 2:
            return
        from scipy.cluster.hierarchy import linkage

        clusters = [frozenset({name}) for name in self.names]
        upper = distances[np.triu_indices(len(self.names), k=1)]
        for left, right, height, _ in linkage(upper, method="average"):
            clusters.append(clusters[int(left)] | clusters[int(right)])
            self.merges.append((clusters[-1], float(height)))

    def cut(self, threshold: float) -> list[frozenset[Name]]:
        """Clusters of at least two members after every merge up to this height.

        Args:
            threshold: A distance.

        Returns:
            Disjoint clusters, ordered by their first members' positions in ``names``.
        """
        standing: list[frozenset[Name]] = []
        for members, height in self.merges:
            if height > threshold:
                break
            standing = [cluster for cluster in standing if not cluster <= members] + [members]
        return sorted(standing, key=lambda cluster: min(map(self.names.index, cluster)))


def session_dendrogram(
    session: Session, encoder: TitleEncoder, pairs: PairModel | None = None
) -> Dendrogram[str]:
    """Cluster a session's titles by average linkage; items without a title are left out.

    Args:
        session: The session.
        encoder: Encoder of the titles.
        pairs: Gives distances of 1 - probability; None for cosine distance.
    """
    items = [item for item in session.items if item.title.strip()]
    names = [item.id for item in items]
    titles = encoder.encode([item.title for item in items])
    if pairs is not None:
        return Dendrogram(names, 1 - pairs.probabilities(titles))
    rows = titles.astype(np.float64)
    return Dendrogram(names, np.clip(1.0 - rows @ rows.T, 0.0, 2.0))
