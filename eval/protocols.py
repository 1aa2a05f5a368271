"""The evaluation protocols by their public names."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from routedk.eval.aicl import aicl
from routedk.eval.matched import matched
from routedk.eval.overlap import ItemSets
from routedk.eval.score import Score
from routedk.eval.strict import strict


class EvaluationProtocol(Protocol):
    """Scores the predictions of one session; the weighted mean over sessions is reported."""

    def __call__(self, gold: ItemSets, predicted: ItemSets, /) -> dict[str, Score]:
        """Score one session.

        Args:
            gold: Gold bundles of the session.
            predicted: Predicted bundles of the same session.

        Returns:
            Metric name to score, the same names for every session; higher is better.
        """
        ...


PROTOCOLS: Mapping[str, EvaluationProtocol] = MappingProxyType(
    {"matched": matched, "strict": strict, "aicl": aicl}
)
METRICS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "matched": ("precision", "recall", "f1", "exact"),
        "strict": ("precision", "recall", "coverage"),
        "aicl": ("precision", "recall", "coverage"),
    }
)
