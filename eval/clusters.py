"""Baselines that cluster titles: simple, strong, and the bar for a student."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from routedk.errors import SettingError
from routedk.eval.empties import CurveRow, empties_curve
from routedk.eval.protocols import matched_f1
from routedk.similarity.dendrogram import Dendrogram, session_dendrogram
from routedk.similarity.encoders import TitleEncoder
from routedk.similarity.pairs import PairModel
from routedk.types import Session

TITLE_THRESHOLDS = (0.80, 0.85, 0.90, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
EMBEDDING_THRESHOLDS = (0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90)
_CURVE_THRESHOLDS = tuple(step / 20 for step in range(1, 20))


@dataclass(frozen=True)
class Clusters:
    """Bundles are clusters of similar titles.

    Average linkage on cosine distance, or on one minus the probability of a pair, cut at a
    threshold; clusters of one item are dropped; if none is left, all items form one bundle. Items
    without a title are in no bundle.

    Args:
        encoder: Encoder of the titles.
        threshold: Distance at which the dendrogram is cut.
        pairs: Gives the probability of each pair; None for cosines.
    """

    encoder: TitleEncoder
    threshold: float
    pairs: PairModel | None = None

    def encode_titles(self, sessions: Sequence[Session]) -> None:
        """Encode the titles of sessions in one call, which is faster than one by one."""
        self.encoder.encode([item.title for session in sessions for item in session.items])

    def __call__(self, session: Session) -> list[frozenset[str]]:
        """Bundle one session; see `Baseline`."""
        return _bundles(session_dendrogram(session, self.encoder, self.pairs), self.threshold)

    def curve(self, sessions: Sequence[Session]) -> tuple[CurveRow, ...]:
        """The curve over thresholds, with a session left empty if no cluster is left."""
        trees = {one.id: session_dendrogram(one, self.encoder, self.pairs) for one in sessions}
        thresholds = sorted({*_CURVE_THRESHOLDS, self.threshold})
        return empties_curve(sessions, lambda one, cut: trees[one.id].cut(cut), thresholds)


def tune_clusters(
    encoder: TitleEncoder,
    sessions: Sequence[Session],
    thresholds: Sequence[float],
    pairs: PairModel | None = None,
) -> Clusters:
    """Choose the clusters' threshold on given sessions.

    Args:
        encoder: Encoder of the titles.
        sessions: Sessions to choose on, usually the validation split; those without gold
            bundles are skipped.
        thresholds: Thresholds to choose among.
        pairs: As in `Clusters`.

    Returns:
        Clusters with the highest mean matched F1; among equals, the smallest threshold.

    Raises:
        SettingError: No session has gold bundles.
    """
    known = [session for session in sessions if session.gold]
    if not known:
        raise SettingError(
            "the clusters' threshold is chosen on validation sessions with gold bundles, and "
            "there are none: give a split that has some"
        )
    Clusters(encoder, thresholds[0]).encode_titles(known)
    trees = [session_dendrogram(session, encoder, pairs) for session in known]

    def score(threshold: float) -> float:
        return fmean(
            matched_f1(session.gold, _bundles(tree, threshold))
            for session, tree in zip(known, trees, strict=True)
        )

    return Clusters(encoder, max(sorted(thresholds), key=score), pairs)


def _bundles(tree: Dendrogram[str], threshold: float) -> list[frozenset[str]]:
    """The clusters; if there are none, all items as one bundle, if there are at least two."""
    return tree.cut(threshold) or [frozenset(tree.names)] * (len(tree.names) > 1)
