"""Bundles from named intents that are alike rather than equal.

Students word the same intent in several ways, the more so the more intents a domain has. Here items
are clustered by the similarity of their intents and titles, so that ``camera accessories`` and
``accessories for nikon camera`` may still end up together. The weight of the intents and the
threshold are chosen on validation sessions by `routedk.optimizers.grouping_search`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from routedk.errors import SettingError
from routedk.programs.prompting.item_intents import ItemIntents
from routedk.similarity.dendrogram import Dendrogram
from routedk.similarity.encoders import TitleEncoder, meanings
from routedk.types import Bundle, Session


@dataclass(frozen=True, kw_only=True)
class SimilarIntents:
    """Average-linkage clusters of items by intent and title, cut at a threshold.

    The similarity of two items is ``weight`` times that of their intents plus ``1 - weight`` times
    that of their titles, both the cosine of embeddings: several intents of an item are averaged;
    an item without any uses its title. If nothing is similar enough, there is no bundle.

    Args:
        weight: Weight of the intents, in [0, 1].
        threshold: Distance (1 minus similarity) at which the dendrogram is cut, in [0, 2].
    """

    weight: float
    threshold: float

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 <= self.weight <= 1:
            raise SettingError(f"weight={self.weight}: it must be from 0 to 1")
        if not 0 <= self.threshold <= 2:
            raise SettingError(f"threshold={self.threshold}: it must be from 0 to 2")

    def bundles(
        self, session: Session, intents: ItemIntents, encoder: TitleEncoder
    ) -> tuple[Bundle, ...]:
        """Group the items of one session.

        Args:
            session: The session; its gold is ignored.
            intents: The intents of each item, in item order, as a student named them.
            encoder: Embeds intents and titles.
        """
        clusters = intent_dendrogram(session, intents, encoder, self.weight).cut(self.threshold)
        return tuple(_bundle(cluster, session, intents) for cluster in clusters)


def intent_dendrogram(
    session: Session, intents: ItemIntents, encoder: TitleEncoder, weight: float
) -> Dendrogram[str]:
    """The dendrogram of a session's items by intent and title, see `SimilarIntents.bundles`."""
    titles = meanings([item.title for item in session.items], encoder)
    named = zip(intents, titles, strict=True)
    meant = np.stack([_meant(mine, encoder, title) for mine, title in named])
    # The product of two rows is the weighted sum of both cosines.
    rows = np.hstack([weight**0.5 * meant, (1 - weight) ** 0.5 * titles]).astype(np.float64)
    return Dendrogram([item.id for item in session.items], np.clip(1 - rows @ rows.T, 0.0, 2.0))


def _bundle(cluster: frozenset[str], session: Session, intents: ItemIntents) -> Bundle:
    """The cluster as a bundle, with the intent that most of its items have."""
    named = [(item.id, mine) for item, mine in zip(session.items, intents, strict=True)]
    votes = Counter(one for name, mine in named if name in cluster for one in mine)
    ids = tuple(name for name, _ in named if name in cluster)
    return Bundle(ids, max(votes, key=votes.__getitem__, default=""))


def _meant(
    intents: Sequence[str], encoder: TitleEncoder, title: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The mean direction of an item's intents, or that of its title if it has none."""
    if not intents:
        return title
    total: NDArray[np.float32] = meanings(intents, encoder).mean(axis=0)
    return total / max(float(np.linalg.norm(total)), 1e-9)
