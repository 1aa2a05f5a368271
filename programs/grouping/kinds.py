"""Whether a bundle's items complement each other or are alternatives to choose from."""

import re
from collections.abc import Sequence
from itertools import combinations
from typing import get_args

import numpy as np

from routedk.programs.grouping.linear import Floats, Linear, fit_logistic
from routedk.similarity.words import may_name, terms
from routedk.types import Kind

KINDS: tuple[Kind, ...] = get_args(Kind)
WORD_FEATURES = 10
"""Features of a bundle beyond the dimensions of its embeddings."""

_STRENGTH = 0.003
_BREAK = re.compile(r"\s(?:for|with|by|from|in|w)\s|[,(/|:;]|\s[-–]\s")


class Kinds:
    """Names the kind of a bundle.

    Args:
        model: Maps `kind_features` to a logit per kind, in the order of `KINDS`.
    """

    def __init__(self, model: Linear) -> None:
        self.model = model

    def of(self, titles: Sequence[str], titles_ND: Floats) -> tuple[Kind, float]:
        """The likeliest kind of a bundle, and its probability.

        Args:
            titles: Titles of its items.
            titles_ND: Their embeddings. *Shape:* (items, dimensions).
        """
        logits = self.model(kind_features(titles, titles_ND)[None])[0]
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best = int(shares.argmax())
        return KINDS[best], round(float(shares[best]), 4)


def kind_features(titles: Sequence[str], titles_ND: Floats) -> Floats:
    """Features of whether items do the same job: their similarity in meaning and in words.

    *Shape:*
        - titles_ND: ``(items, dimensions)``
        - result: ``(dimensions + 10,)``
    """
    one, other = np.triu_indices(len(titles), k=1)
    products = titles_ND[one] * titles_ND[other]
    cosines = products.sum(axis=1)
    words = [set(_words(title)) for title in titles]
    heads = [_head(title) for title in titles]
    pairs = list(combinations(range(len(titles)), 2))
    shared = [len(words[i] & words[j]) for i, j in pairs]
    overlap = [len(words[i] & words[j]) / max(1, len(words[i] | words[j])) for i, j in pairs]
    same_head = [heads[i] == heads[j] for i, j in pairs]
    named = [heads[i] in words[j] or heads[j] in words[i] for i, j in pairs]
    told = [
        *(cosines.mean(), cosines.min(), cosines.max(), cosines.std()),
        *(np.mean(shared), np.mean(overlap), np.mean(same_head), np.mean(named), np.min(named)),
        len(titles),
    ]
    return np.concatenate([products.mean(axis=0), told])


def _words(text: str) -> list[str]:
    plain = re.sub(r"[\d_]", " ", text)
    return [term.rstrip("s") for term in terms(plain) if may_name(term)]


def _head(title: str) -> str:
    """The word that says, in most titles, what the item is: the last one of the first phrase."""
    words = _words(_BREAK.split(title.lower(), maxsplit=1)[0])
    return words[-1] if words else ""


def fit_kinds(bundles: Sequence[tuple[Sequence[str], Floats, Kind, float]]) -> Kinds | None:
    """Fit the kinds of labelled bundles; None if there are fewer than two kinds.

    Args:
        bundles: For each, its titles, their embeddings, its kind and its weight.
    """
    seen = {kind for _, _, kind, _ in bundles}
    if len(seen) < 2:
        return None
    features = np.array([kind_features(titles, rows) for titles, rows, _, _ in bundles])
    present = [kind for kind in KINDS if kind in seen]
    weights = np.array([weight for *_, weight in bundles])
    labels = np.array([present.index(kind) for _, _, kind, _ in bundles])
    model = fit_logistic(features, labels, weights, _STRENGTH)
    if len(present) == 2:
        # For two classes, scikit-learn gives only the second one's logit.
        model = Linear(np.vstack([0 * model.weight, model.weight]), np.append(0.0, model.bias))
    weight, bias = np.zeros((len(KINDS), features.shape[1])), np.full(len(KINDS), -30.0)
    rows = [KINDS.index(kind) for kind in present]
    weight[rows], bias[rows] = model.weight, model.bias
    return Kinds(Linear(weight, bias))
