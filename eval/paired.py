"""Whether one system's scores on the same sessions are above another's beyond chance."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 9999
# Sessions that differ up to which all choices of signs are tried.
_EXACT = 13


def paired_p(scores: Sequence[float], others: Sequence[float], *, seed: int) -> float:
    """How often chance alone would give a mean difference as high as this one.

    If neither system were better, each session's difference could as well have had the other
    sign. The p-value is the share of all choices of signs whose mean difference is at least the
    observed one: exact where at most 13 sessions differ, else over 9,999 random choices and the
    observed one. It tests the mean, which is what is optimised; Wilcoxon's test, which ranks the
    differences first, can prefer a system that gains a little often and loses much seldom.

    Args:
        scores: Score of each session under the system that may be better.
        others: Scores of the same sessions, in the same order, under the other one.
        seed: Seed of the random choices.

    Returns:
        One-sided p-value in (0, 1]; 1 where no session differs.

    Raises:
        ValueError: The lists differ in length.

    Source: Fisher's randomisation test for paired samples (The Design of Experiments, 1935).
    """
    if len(scores) != len(others):
        raise ValueError(f"{len(scores)} scores beside {len(others)}: they must be of one list")
    differences_N = np.round(np.subtract(scores, others, dtype=np.float64), 12)
    # Where nothing differs no sign matters.
    signed_D = differences_N[differences_N != 0]
    count = len(signed_D)
    minus_RD: NDArray[Any]
    if count <= _EXACT:
        minus_RD = np.arange(2**count)[:, None] >> np.arange(count) & 1
        return float(_reach(signed_D, minus_RD).mean())
    minus_RD = np.random.default_rng(seed).integers(2, size=(RESAMPLES, count))
    return float(1 + _reach(signed_D, minus_RD).sum()) / (RESAMPLES + 1)


def _reach(signed_D: NDArray[np.float64], minus_RD: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether the sum under each choice of signs is at least the observed one."""
    sums_R = (1 - 2 * minus_RD) @ signed_D
    reached: NDArray[np.bool_] = sums_R >= signed_D.sum() - 1e-9
    return reached


def sessions_needed(level: float) -> int:
    """Fewest sessions on which any difference can have a p-value of at most ``level``.

    Args:
        level: Above 0, below 1.
    """
    count = 1
    while 0.5**count > level:
        count += 1
    return count
