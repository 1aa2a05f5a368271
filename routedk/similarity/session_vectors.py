"""Sessions as unit vectors: the normalized means of their titles' vectors."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from routedk.similarity.encoders import TitleEncoder
from routedk.types import Session


def session_vectors(sessions: Sequence[Session], encoder: TitleEncoder) -> NDArray[np.float32]:
    """Average and normalize the vectors of each session's titles; untitled items do not count.

    Args:
        sessions: Any number of sessions.
        encoder: Encodes titles.

    Returns:
        One row per session in the same order, of unit length, or all 0 if no item has a title
        that the encoder knows.

    *Shape:*
        - output: ``(sessions, dimensions)``
    """
    titles = [[item.title for item in s.items if item.title.strip()] for s in sessions]
    rows = encoder.encode([title for mine in titles for title in mine])
    means = np.zeros((len(sessions), rows.shape[1]), dtype=np.float32)
    begin = 0
    for place, mine in enumerate(titles):
        if mine:
            means[place] = rows[begin : begin + len(mine)].mean(axis=0)
            begin += len(mine)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    np.divide(means, lengths, out=means, where=lengths > 1e-6)
    means[lengths[:, 0] <= 1e-6] = 0
    return means
