"""Choose the grouping of a session, or none, with a confidence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from routedk.eval import matched_f1
from routedk.programs.grouping.candidates import (
    Candidate,
    candidate_features,
    candidates,
    probabilities,
)
from routedk.programs.grouping.constraints import Constraints
from routedk.programs.grouping.linear import Floats, Linear, fit_logistic, fit_ridge

_RIDGE = 10.0
_LOGISTIC = 0.3
SESSION_FEATURES = 5
BUNDLE_FEATURES = 6
# Training sessions are rarely longer; a linear model does not extrapolate sizes beyond this.
_MOST_ITEMS = 10


@dataclass(frozen=True)
class Scored:
    """The logits of a session that the encoder was not trained on, with a label.

    Args:
        logits: Logits of its pairs of items, symmetric.
        label: Bundles as sets of item positions; empty if nothing belongs together.
        weight: How much the label counts, in [0, 1].

    *Shape:*
        - logits: ``(items, items)``
    """

    logits: Floats
    label: Sequence[frozenset[int]]
    weight: float = 1.0


@dataclass(frozen=True)
class Choice:
    """The chosen grouping of a session.

    Args:
        bundles: Disjoint sets of item positions; empty if nothing belongs together.
        confidence: Expected matched F1 against a label; without bundles, the probability that the
            label is empty, too.
        bundle_confidence: Each bundle's expected Jaccard similarity with its nearest in the label.
    """

    bundles: Candidate
    confidence: float
    bundle_confidence: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Decision:
    """Chooses among the candidate groupings of a session, as learned from labels.

    A threshold on the similarity of two items cannot see the rest of the session. Here each
    candidate grouping is judged as a whole: a linear model predicts its matched F1. A logistic
    model gives the probability that nothing belongs together; the session is left empty if that is
    above ``empty_above``.

    Args:
        f1: From `candidate_features` to the matched F1, given that there is a bundle.
        empty: From `session_features` to the logit of "nothing belongs together".
        jaccard: From `bundle_features` to the logit of a bundle's Jaccard similarity.
        empty_above: Probability, in [0, 1], above which a session is left empty.
    """

    f1: Linear
    empty: Linear
    jaccard: Linear
    empty_above: float

    def choose(self, logits: Floats, limits: Constraints | None = None) -> Choice:
        """Choose the bundles of a session.

        Args:
            logits: Logits of its pairs of items, symmetric.
            limits: Constraints on the bundles; pinned items are chosen even if nothing else is.
                None for no limits.

        *Shape:*
            - logits: ``(items, items)``
        """
        if len(logits) < 2:
            return Choice((), 1.0, ())
        chosen = candidates(logits, limits)
        nothing = float(probabilities(self.empty(session_features(logits)[None]))[0, 0])
        if nothing > self.empty_above:
            chosen = limits.feasible(()) if limits else []
        if not chosen:
            return Choice((), nothing, ())
        expected = self.f1(candidate_features(logits, chosen))[:, 0]
        best = int(expected.argmax())
        expectation = float(np.clip(expected[best], 0, 1))
        features = bundle_features(logits, chosen[best], expectation)
        alike = probabilities(self.jaccard(features))[:, 0] * (1 - nothing)
        return Choice(chosen[best], expectation * (1 - nothing), tuple(alike.tolist()))


def session_features(logits: Floats) -> Floats:
    """Features of an empty session: top two logits, mean logit, items, expected bundled pairs."""
    pairs = np.sort(logits[np.triu_indices(len(logits), k=1)])[::-1]
    second = pairs[1] if len(pairs) > 1 else pairs[0]
    together = min(probabilities(pairs).sum(), _MOST_ITEMS * (_MOST_ITEMS - 1) / 2)
    size = min(len(logits), _MOST_ITEMS)
    return np.array([pairs[0], second, pairs.mean(), size, together])


def bundle_features(logits: Floats, candidate: Candidate, expected: float) -> Floats:
    """Features of how well each bundle of a candidate matches a label.

    Args:
        logits: As for `Decision.choose`.
        candidate: The bundles.
        expected: The candidate's expected matched F1.

    *Shape:*
        - result: ``(bundles, 6)``
    """
    rows = []
    for bundle in candidate:
        inside = sorted(bundle)
        within = logits[np.ix_(inside, inside)][np.triu_indices(len(inside), k=1)]
        outside = logits[np.ix_(inside, [k for k in range(len(logits)) if k not in bundle])]
        nearest = outside.mean(axis=0).max(initial=-5.0)
        sizes = [min(size, _MOST_ITEMS) for size in (len(inside), len(logits))]
        rows.append([within.mean(), within.min(), nearest, *sizes, expected])
    return np.array(rows, dtype=np.float64)


def fit_decision(sessions: Sequence[Scored], *, loss: float = 0.01) -> Decision:
    """Fit a decision on sessions that the encoder was not trained on.

    Args:
        sessions: Labelled sessions of at least two items each; at least one has a bundle.
        loss: Maximum mean matched F1, over sessions with a bundle, that may be lost by leaving
            some of them empty.
    """
    bundled = [one for one in sessions if one.label]
    offered = [candidates(one.logits) for one in bundled]
    features = [
        candidate_features(one.logits, mine) for one, mine in zip(bundled, offered, strict=True)
    ]
    scores = [
        np.array([_f1(one.label, candidate) for candidate in mine])
        for one, mine in zip(bundled, offered, strict=True)
    ]
    weights = np.concatenate(
        [
            np.full(len(mine), one.weight * len(mine) ** -0.5)
            for one, mine in zip(bundled, offered, strict=True)
        ]
    )
    f1 = fit_ridge(np.concatenate(features), np.concatenate(scores), weights, _RIDGE)
    best = [int(f1(rows)[:, 0].argmax()) for rows in features]
    reached = np.array([mine[k] for mine, k in zip(scores, best, strict=True)])
    empty = _fit_empty(sessions)
    return Decision(
        f1=f1,
        empty=empty,
        jaccard=_fit_jaccard(bundled, [mine[k] for mine, k in zip(offered, best, strict=True)], f1),
        empty_above=_empty_above(empty, bundled, reached, loss),
    )


def _f1(label: Sequence[frozenset[int]], stated: Candidate) -> float:
    named = [[frozenset(map(str, bundle)) for bundle in bundles] for bundles in (label, stated)]
    return matched_f1(*named)


def _fit_empty(sessions: Sequence[Scored]) -> Linear:
    """Fit `Decision.empty`; if no label is empty, it leaves no session empty."""
    features = np.array([session_features(one.logits) for one in sessions])
    labels = np.array([not one.label for one in sessions])
    if not labels.any():
        return Linear(np.zeros((1, features.shape[1])), np.array([-7.0]))
    weights = np.array([one.weight for one in sessions])
    return fit_logistic(features, labels, weights, _LOGISTIC)


def _empty_above(empty: Linear, bundled: Sequence[Scored], reached: Floats, loss: float) -> float:
    """The lowest threshold at which leaving sessions empty costs no more than the loss.

    Args:
        empty: As in `Decision`.
        bundled: Sessions with a bundle.
        reached: The matched F1 of each of them if it is not left empty.
        loss: As for `fit_decision`.
    """
    features = np.array([session_features(one.logits) for one in bundled])
    nothing = probabilities(empty(features))[:, 0]
    order = np.argsort(-nothing)
    weights = np.array([one.weight for one in bundled])
    lost = np.cumsum((weights * reached)[order]) / weights.sum()
    within = int(np.searchsorted(lost, loss, side="right"))
    lowest = float(nothing[order[within]]) if within < len(bundled) else 0.0
    # Whatever the loss allows: a session that probably holds a bundle is not left empty.
    return max(lowest, 0.5)


def _fit_jaccard(bundled: Sequence[Scored], stated: Sequence[Candidate], f1: Linear) -> Linear:
    """Fit `Decision.jaccard` on each chosen bundle's Jaccard with the nearest in the label."""
    features: list[Floats] = []
    alike: list[float] = []
    counts: list[float] = []
    for one, candidate in zip(bundled, stated, strict=True):
        expected = float(np.clip(f1(candidate_features(one.logits, [candidate]))[0, 0], 0, 1))
        features.append(bundle_features(one.logits, candidate, expected))
        alike += [max(len(b & gold) / len(b | gold) for gold in one.label) for b in candidate]
        counts += [one.weight] * len(candidate)
    # A fraction in [0, 1] is learned as a positive of that weight and a negative of the rest.
    rows, yes = np.concatenate(features), np.array(alike)
    labels = np.concatenate([np.ones(len(rows)), np.zeros(len(rows))])
    weights = np.concatenate([yes, 1 - yes]) * np.array([*counts, *counts])
    return fit_logistic(np.concatenate([rows, rows]), labels, weights, _LOGISTIC)
