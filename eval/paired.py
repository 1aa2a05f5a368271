"""Whether one system's scores on the same sessions are above another's beyond chance."""

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 9999


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
    from scipy.stats import permutation_test

    differences = np.round(np.subtract(scores, others, dtype=np.float64), 12)
    # Where nothing differs no sign matters. One zero stays: the test takes two sessions or more.
    signed = np.append(differences[differences != 0], 0.0)
    if len(signed) < 2:
        return 1.0

    def mean(sample: Any, axis: int) -> Any:
        return sample.mean(axis=axis)

    found = permutation_test(
        (signed if len(signed) == 2 else signed[:-1],),
        mean,
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def sessions_needed(level: float) -> int:
    """Fewest sessions on which any difference can have a p-value of at most ``level``.

    Args:
        level: Above 0, below 1.
    """
    count = 1
    while 0.5**count > level:
        count += 1
    return count
