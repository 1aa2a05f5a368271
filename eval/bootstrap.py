"""Means over sessions with bootstrap intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from routedk.eval.protocols import Score

_DRAWS_AT_ONCE = 4_000_000  # keeps memory small on large test sets


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over sessions and its 95% percentile interval."""

    value: float
    low: float
    high: float


NOTHING = Interval(value=0.0, low=0.0, high=0.0)

Means: TypeAlias = Callable[[Sequence[Sequence[Score]]], list[Interval]]
"""`bootstrap` with a seed and a number of resamples, which all figures of a report share."""


def bootstrap(
    scores: Sequence[Sequence[Score]], *, seed: int, resamples: int = 2000
) -> list[Interval]:
    """Weighted mean and 95% interval of each metric, resampling sessions with replacement.

    The same seed and number of sessions give the same resamples, so two systems scored on the
    same sessions are compared fairly. A resample in which no session counts for a metric says
    nothing about it and is left out.

    Args:
        scores: For each session, at least one, the score on each metric.
        seed: Seed of the resampling.
        resamples: Number of resamples.

    Returns:
        One interval per metric; all zeros if no session counts.
    """
    values_NM, weights_NM = np.array(scores, dtype=np.float64).transpose(2, 0, 1).copy()
    sessions = len(values_NM)
    totals_NM = values_NM * weights_NM
    values_M = _ratio(totals_NM.sum(axis=0), weights_NM.sum(axis=0))
    rng = np.random.default_rng(seed)
    step = max(1, _DRAWS_AT_ONCE // sessions)
    chunks = []
    for start in range(0, resamples, step):
        # How often each session is drawn: with counts, resampled means are matrix products.
        size = min(step, resamples - start)
        counts = rng.multinomial(sessions, np.full(sessions, 1 / sessions), size=size)
        draws_RN = counts.astype(np.float64)
        chunks.append(_ratio(draws_RN @ totals_NM, draws_RN @ weights_NM))
    means_RM = np.concatenate(chunks)
    return [_interval(float(value), means_RM[:, m]) for m, value in enumerate(values_M)]


def _interval(value: float, means_R: NDArray[np.float64]) -> Interval:
    """The interval of one metric; NaN stands for "no session counts"."""
    drawn = means_R[~np.isnan(means_R)]
    if np.isnan(value) or not drawn.size:
        return NOTHING
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value=value, low=float(low), high=float(high))


def _ratio(total: NDArray[np.float64], count: NDArray[np.float64]) -> NDArray[np.float64]:
    """Total over count, NaN where the count is 0."""
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
