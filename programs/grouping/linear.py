"""Linear models over features, each saved as two small tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Linear:
    """An affine map.

    *Shape:*
        - weight: ``(outputs, features)``
        - bias: ``(outputs,)``
    """

    weight: Floats
    bias: Floats

    @classmethod
    def read(cls, tensors: Mapping[str, Floats], name: str, outputs: int, features: int) -> Self:
        """Take ``NAME.weight`` and ``NAME.bias`` out of saved tensors.

        Raises:
            KeyError: One is missing.
            ValueError: One has another shape.
        """
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        if (weight.shape, bias.shape) != ((outputs, features), (outputs,)):
            raise ValueError(f"{name} has the shapes {weight.shape} and {bias.shape}")
        return cls(weight, bias)

    def __call__(self, features: Floats) -> Floats:
        """Map rows of features. *Shape:* (rows, features) to (rows, outputs)."""
        return features @ self.weight.T + self.bias


def fit_ridge(features: Floats, targets: Floats, weights: Floats, strength: float) -> Linear:
    """Ridge regression on standardized features.

    Args:
        features: One row per example.
        targets: What to predict, one per row.
        weights: Weight of each row.
        strength: Strength of the penalty.
    """
    from sklearn.linear_model import Ridge

    center, scale = _standard(features)
    model = Ridge(alpha=strength).fit((features - center) / scale, targets, weights)
    return _unscaled(model.coef_[None], np.atleast_1d(model.intercept_), center, scale)


def fit_logistic(features: Floats, labels: Floats, weights: Floats, strength: float) -> Linear:
    """Logistic regression on standardized features, multinomial for more than two classes.

    Args:
        features: One row per example.
        labels: The class of each row, counted from 0; at least two classes occur.
        weights: Weight of each row.
        strength: Inverse strength of the penalty, scikit-learn's ``C``.

    Returns:
        A model of the logits: one output for two classes, else one per class.
    """
    from sklearn.linear_model import LogisticRegression

    center, scale = _standard(features)
    model = LogisticRegression(C=strength, max_iter=2000)
    model.fit((features - center) / scale, labels, weights)
    return _unscaled(model.coef_, model.intercept_, center, scale)


def _standard(features: Floats) -> tuple[Floats, Floats]:
    spread = features.std(axis=0)
    return features.mean(axis=0), np.where(spread > 1e-9, spread, 1.0)


def _unscaled(weight: Floats, bias: Floats, center: Floats, scale: Floats) -> Linear:
    plain = weight / scale
    return Linear(plain, bias - plain @ center)
