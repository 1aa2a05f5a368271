"""Whether one system scores higher than another on the same sessions, beyond chance."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 9999


def paired_p(scores: Sequence[float], others: Sequence[float], *, seed: int) -> float:
    """Compute how often chance alone would give a mean difference as high as this one.

    If neither system were better, each session's difference could just as well have the opposite
    sign. The p-value is the share of all choices of signs whose mean difference is at least the
    observed one: exact if at most 13 sessions differ, else over 9,999 random choices and the
    observed one. It tests the mean, which is what is optimized; Wilcoxon's test, which ranks the
    differences first, can prefer a system that often gains a little and rarely loses a lot.

    Args:
        scores: Score of each session under the system that may be better.
        others: Scores of the same sessions, in the same order, under the other one.
        seed: Seed of the random choices.

    Returns:
        One-sided p-value in (0, 1]; 1 if no session differs.

    Raises:
        ValueError: The lists differ in length.

    Source: Fisher's randomization test for paired samples (The Design of Experiments, 1935).
    """
    if len(scores) != len(others):
        raise ValueError(f"{len(scores)} scores and {len(others)}: they must be equally many")
    from scipy.stats import permutation_test

    differences_N = np.round(np.subtract(scores, others, dtype=np.float64), 12)
    # The sign of a zero difference does not matter; SciPy needs at least two numbers.
    signed_D = differences_N[differences_N != 0]
    signed_D = np.append(signed_D, np.zeros(max(0, 2 - len(signed_D))))
    found = permutation_test(
        (signed_D,),
        _mean,
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=seed,
    )
    return float(found.pvalue)


def _mean(differences: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """The mean, rounded so that ties stay ties whatever the order of summation."""
    rounded: NDArray[np.float64] = np.round(differences.mean(axis=axis), 9)
    return rounded


def sessions_needed(level: float) -> int:
    """Fewest sessions on which any difference can have a p-value of at most ``level``.

    Args:
        level: Above 0, below 1.
    """
    return max(1, math.ceil(-math.log2(level)))
