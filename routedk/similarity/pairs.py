"""How likely two items of a session belong to one bundle, learned from gold bundles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from routedk.errors import SettingError
from routedk.similarity.encoders import TitleEncoder
from routedk.types import Session

# Chosen by five-fold cross-validation over Electronic's training and validation sessions, as were
# the features.
_STRENGTH = 3e-4


@dataclass(frozen=True, slots=True)
class PairModel:
    """A logistic regression on features of two titles' embeddings.

    The features of a pair are the element-wise product of the two embeddings, their cosine, that
    cosine minus the mean over the session's pairs and minus each item's highest, how many items are
    nearer to either, how many items lie between the two in the session, and how many it has. The
    first say which kinds of titles go together, the others how the pair compares with the others of
    its session.

    Args:
        weights: One per feature, in this order.
        bias: The intercept.
    """

    weights: tuple[float, ...] = field(repr=False)
    bias: float

    def probabilities(self, titles: NDArray[np.float32]) -> NDArray[np.float64]:
        """The probability that two items are in one bundle, for each pair of a session.

        Args:
            titles: Embeddings of the session's titles, in item order, each of unit length.

        Raises:
            SettingError: The embeddings have the width of another encoder.

        *Shape:*
            - titles: ``(items, dimensions)``
            - result: ``(items, items)``, symmetric, ones on the diagonal
        """
        found = np.eye(len(titles))
        upper = np.triu_indices(len(titles), k=1)
        if len(upper[0]):
            features = pair_features(titles)
            if features.shape[1] != len(self.weights):
                raise SettingError(
                    f"a pair model of {len(self.weights)} weights for {features.shape[1]} "
                    "features: it was fitted on another encoder's embeddings"
                )
            scores = features @ np.array(self.weights) + self.bias
            found[upper] = found.T[upper] = 1 / (1 + np.exp(-scores))
        return found


def fit_pairs(sessions: Sequence[Session], encoder: TitleEncoder) -> PairModel | None:
    """Fit a pair model on sessions with gold; None if no pair, or every pair, is bundled.

    Args:
        sessions: Training sessions; those without gold bundles are skipped.
        encoder: Embeds the titles.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    known = [session for session in sessions if session.gold and len(session.items) > 1]
    bundled = np.array(list(chain.from_iterable(map(_bundled, known))), dtype=bool)
    if bundled.all() or not bundled.any():
        return None
    # One call for all titles: an encoder is much faster on many texts than on few.
    encoder.encode([item.title for session in known for item in session.items])
    titles = (encoder.encode([item.title for item in session.items]) for session in known)
    features = np.concatenate([pair_features(rows) for rows in titles])
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=_STRENGTH, max_iter=1000)
    model.fit(scaler.transform(features), bundled)
    weights = model.coef_[0] / scaler.scale_
    bias = float(model.intercept_[0] - weights @ scaler.mean_)
    return PairModel(tuple(weights.tolist()), bias)


def pair_features(titles: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute the features of a `PairModel`.

    Args:
        titles: As in `PairModel.probabilities`, at least two.

    *Shape:*
        - titles: ``(items, dimensions)``
        - result: ``(pairs, dimensions + 7)``, the pairs as in the upper triangle, row by row
    """
    rows = titles.astype(np.float64)
    cosines = rows @ rows.T
    count = len(rows)
    one, other = np.triu_indices(count, k=1)
    of_pair = cosines[one, other]
    apart = np.where(np.eye(count, dtype=bool), -np.inf, cosines)
    behind = of_pair[:, None] - np.sort(np.stack([apart.max(1)[one], apart.max(1)[other]], 1))
    nearer = (apart[one] > of_pair[:, None]).sum(1) + (apart[other] > of_pair[:, None]).sum(1)
    return np.column_stack(
        [
            rows[one] * rows[other],
            of_pair,
            of_pair - of_pair.mean(),
            behind,
            nearer,
            other - one - 1,
            np.full(len(one), count),
        ]
    )


def _bundled(session: Session) -> Iterator[bool]:
    """Whether each pair, in the order of `pair_features`, is in one gold bundle."""
    ids = [item.id for item in session.items]
    for place, one in enumerate(ids):
        for other in ids[place + 1 :]:
            yield any(one in bundle and other in bundle for bundle in session.gold)
