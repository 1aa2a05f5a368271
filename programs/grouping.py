"""Bundles from named intents that are alike rather than equal.

Students word one intent in several ways, the more so the more intents a domain has. Here items
are clustered by the similarity of their intents and of their titles, so that ``camera accessories``
and ``accessories for nikon camera`` may still meet. Which weight the intents have and how alike
is alike enough is chosen on validation sessions by `routedk.optimizers.grouping_search`.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from routedk.errors import SettingError
from routedk.eval.baselines import whole
from routedk.programs.prompting.item_intents import ItemCandidates, ItemIntents
from routedk.similarity.dendrogram import Dendrogram
from routedk.similarity.encoders import TitleEncoder
from routedk.similarity.pairs import PairModel
from routedk.types import Bundle, Session


@dataclass(frozen=True, kw_only=True)
class SimilarIntents:
    """Average-linkage clusters of items by intent and title, cut at a threshold.

    The similarity of two items is ``weight`` times that of their intents plus ``1 - weight`` times
    that of their titles: the cosine of the titles' embeddings, or a learned model of pairs.
    Intents are compared by the cosine of their embeddings (each candidate of an item counts 1/rank,
    as the mean of its intents; an item without any is compared by its title alone), or by how much
    what the student might name for either overlaps, see `routedk.programs.intent_overlap`.

    Args:
        weight: Weight of the intents, in [0, 1].
        threshold: Distance, 1 less the similarity, at which the dendrogram is cut, in [0, 2].
        fall_back: A session left without a cluster is one bundle as a whole.
        pairs: How probable it is by their titles that two items are bundled; None for the cosine.
        by_likelihood: Whether intents are compared by the student's likelihoods, which takes
            another pass over the prompt, and a student in this process.
    """

    weight: float
    threshold: float
    fall_back: bool = True
    pairs: PairModel | None = None
    by_likelihood: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 <= self.weight <= 1:
            raise SettingError(f"weight={self.weight}: it must be from 0 to 1")
        if not 0 <= self.threshold <= 2:
            raise SettingError(f"threshold={self.threshold}: it must be from 0 to 2")

    def bundles(
        self,
        session: Session,
        candidates: ItemCandidates,
        encoder: TitleEncoder,
        overlap: NDArray[np.float64] | None = None,
    ) -> tuple[Bundle, ...]:
        """Group the items of one session.

        Args:
            session: The session; its gold is not looked at.
            candidates: Of each item, in item order, as a student named them.
            encoder: Embeds intents and titles.
            overlap: How alike the items' intents are, *shape* (items, items); None for the cosine
                of the candidates' embeddings.
        """
        tree = intent_dendrogram(session, candidates, encoder, self.weight, self.pairs, overlap)
        clusters = tree.cut(self.threshold)
        if not clusters and self.fall_back:
            clusters = whole(session)
        return tuple(_bundle(cluster, session, candidates) for cluster in clusters)


def intent_dendrogram(
    session: Session,
    candidates: ItemCandidates,
    encoder: TitleEncoder,
    weight: float,
    pairs: PairModel | None = None,
    overlap: NDArray[np.float64] | None = None,
) -> Dendrogram:
    """The dendrogram of a session's items by intent and title, see `SimilarIntents.bundles`."""
    titles = encoder.encode([item.title for item in session.items])
    by_title = _cosines(titles) if pairs is None else pairs.probabilities(titles)
    if overlap is None:
        named = zip(candidates, titles, strict=True)
        overlap = _cosines(np.stack([_meant(mine, encoder, title) for mine, title in named]))
    similar = weight * overlap + (1 - weight) * by_title
    distances = np.clip(1 - similar, 0.0, 2.0)
    return Dendrogram([item.id for item in session.items], distances)


def _cosines(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    return wide @ wide.T


def _bundle(cluster: frozenset[str], session: Session, candidates: ItemCandidates) -> Bundle:
    """The cluster under the intent that most of its items have, likelier ones counting more."""
    ids = tuple(item.id for item in session.items if item.id in cluster)
    votes: defaultdict[str, float] = defaultdict(float)
    for item, mine in zip(session.items, candidates, strict=True):
        for rank, intents in enumerate(mine if item.id in cluster else (), start=1):
            for intent in intents:
                votes[intent] += 1 / rank
    return Bundle(ids, max(votes, key=votes.__getitem__, default=""))


def _meant(
    candidates: ItemIntents, encoder: TitleEncoder, title: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The mean direction of an item's candidates, each of weight 1/rank; else its title's."""
    parts = [
        encoder.encode(intents).mean(axis=0) / rank
        for rank, intents in enumerate(candidates, start=1)
        if intents
    ]
    if not parts:
        return title
    total: NDArray[np.float32] = np.sum(parts, axis=0)
    return total / max(float(np.linalg.norm(total)), 1e-9)
