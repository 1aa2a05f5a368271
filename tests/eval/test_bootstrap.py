from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray

from routedk.eval.bootstrap import NOTHING, Interval, bootstrap
from routedk.eval.protocols import UNCOUNTED, Score


def rows(values: NDArray[np.float64]) -> list[list[Score]]:
    return [[Score(value) for value in row] for row in values]


def test_interval_of_a_mean_agrees_with_drawing_sessions_one_by_one() -> None:
    values = np.random.default_rng(1).random(60)
    [interval] = bootstrap(rows(values[:, None]), seed=2, resamples=4000)
    rng = np.random.default_rng(3)
    means = [values[rng.integers(0, 60, 60)].mean() for _ in range(4000)]
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(np.percentile(means, 2.5), abs=0.01)
    assert interval.high == pytest.approx(np.percentile(means, 97.5), abs=0.01)


def test_weights_decide_what_counts() -> None:
    scores = [
        [Score(1.0), Score(0.5, 3.0)],
        [Score(0.0), Score(1.0)],
        [Score(9.0, 0.0), UNCOUNTED],
    ]
    plain, over_hits = bootstrap(scores, seed=0)
    assert plain.value == pytest.approx(0.5)
    assert over_hits.value == pytest.approx((0.5 * 3 + 1.0) / 4)
    assert (plain.low, plain.high) == (0.0, 1.0)


def test_equal_values_have_no_spread() -> None:
    [interval] = bootstrap([[Score(0.25)]] * 5, seed=0)
    assert asdict(interval) == pytest.approx({"value": 0.25, "low": 0.25, "high": 0.25})


def test_nothing_counted_is_zero() -> None:
    assert bootstrap([[UNCOUNTED]] * 4, seed=0) == [NOTHING]


def test_seed_decides_the_interval() -> None:
    values = np.random.default_rng(0).random((30, 2))

    def run(seed: int) -> list[Interval]:
        return bootstrap(rows(values), seed=seed)

    assert run(7) == run(7)
    assert run(7) != run(8)
