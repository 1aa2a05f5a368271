"""Candidate bundles and candidate answers of a session, from its titles' dendrogram."""

from routedk.similarity.dendrogram import Dendrogram
from routedk.similarity.encoders import TitleEncoder
from routedk.similarity.pairs import PairModel
from routedk.types import Session


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


def dendrogram_candidates(session: Session, encoder: TitleEncoder) -> list[frozenset[str]]:
    """Candidate bundles: every node of the dendrogram with at least two items.

    Args:
        session: A session whose items have titles.
        encoder: Encoder of the titles.

    Returns:
        Distinct item sets, from the most similar pair to the whole session; n items have n - 1.
    """
    return session_dendrogram(session, encoder).nodes()
