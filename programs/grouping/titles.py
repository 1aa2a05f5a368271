"""The embeddings of titles, and how near titles are to those of training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from routedk.programs.grouping.linear import Floats

MAX_TOKENS = 40
"""Tokens of a title that are read."""
_BATCH = 32


class Familiarity:
    """How near titles are to the training titles.

    Args:
        centers: Centers of the training titles' embeddings, each of length 1.
        usual: Similarity to the nearest center that 95% of the training titles reach.

    *Shape:*
        - centers: ``(centers, dimensions)``
    """

    def __init__(self, centers: Floats, usual: float) -> None:
        self.centers = centers
        self.usual = usual

    def nearness(self, titles_ND: Floats) -> Floats:
        """The similarity of each title to the nearest center. *Shape:* (titles,)."""
        near: Floats = (titles_ND @ self.centers.T).max(axis=1)
        return near

    def __call__(self, titles_ND: Floats) -> Floats:
        """The familiarity of each title, in [0, 1]: 1 where it is as near as usual."""
        shares: Floats = np.clip(self.nearness(titles_ND) / self.usual, 0.0, 1.0)
        return shares


def embed(encoder: Any, titles: Sequence[str]) -> torch.Tensor:
    """Embed titles as vectors of length 1, with gradients where they are enabled.

    Args:
        encoder: A ``SentenceTransformer``.
        titles: At least one; titles of similar length share a batch, to save padding.

    *Shape:*
        - result: ``(titles, dimensions)``
    """
    order = sorted(range(len(titles)), key=lambda place: (len(titles[place]), titles[place]))
    parts = []
    for first in range(0, len(order), _BATCH):
        # Half a surrogate pair, as a cut title may end in, is no text to a tokenizer.
        batch = [titles[k].encode(errors="replace").decode() for k in order[first : first + _BATCH]]
        features = {
            name: value.to(encoder.device) if isinstance(value, torch.Tensor) else value
            for name, value in encoder.preprocess(batch).items()
        }
        parts.append(encoder(features)["sentence_embedding"].float())
    rows = torch.nn.functional.normalize(torch.cat(parts), dim=-1)
    return rows[torch.tensor(order).argsort().to(rows.device)]
