"""`KnownIntents`: what bundles like those that were trained on are called."""

from collections.abc import Mapping, Sequence

import numpy as np

from routedk.programs.grouping.linear import Floats

_NEAREST = 10
# Of cosines, in the softmax of the weights.
_TEMPERATURE = 0.1


class KnownIntents:
    """The intents of labelled bundles, found by how alike the bundles' titles are.

    Args:
        intents: One for each labelled bundle.
        bundles: Mean embeddings of their titles, each of length 1.

    *Shape:*
        - bundles: ``(intents, dimensions)``

    Raises:
        ValueError: There is not one row for each intent.
    """

    def __init__(self, intents: Sequence[str], bundles: Floats) -> None:
        if len(intents) != len(bundles):
            raise ValueError(f"{len(intents)} intents and {len(bundles)} bundles")
        self.intents = list(intents)
        self.bundles = bundles

    def of(self, titles_ND: Floats) -> Mapping[str, float]:
        """The intents of the nearest labelled bundles, with weights that sum to 1."""
        alike = self.bundles @ mean_title(titles_ND)
        nearest = np.argsort(-alike, kind="stable")[:_NEAREST]
        weights = np.exp((alike[nearest] - alike.max(initial=0.0)) / _TEMPERATURE)
        found: dict[str, float] = {}
        for place, weight in zip(nearest, weights / weights.sum(), strict=True):
            intent = self.intents[place]
            found[intent] = found.get(intent, 0.0) + float(weight)
        return found


def mean_title(titles_ND: Floats) -> Floats:
    """The mean of titles' embeddings, of length 1."""
    mean = titles_ND.mean(axis=0)
    unit: Floats = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return unit
