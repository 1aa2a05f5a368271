import numpy as np
import pytest

from routedk.eval.bootstrap import NOTHING, Interval, bootstrap


def test_interval_of_a_mean_agrees_with_drawing_sessions_one_by_one() -> None:
    values = np.random.default_rng(1).random(60)
    [interval] = bootstrap(values[:, None], np.ones((60, 1)), seed=2, resamples=4000)
    rng = np.random.default_rng(3)
    means = [values[rng.integers(0, 60, 60)].mean() for _ in range(4000)]
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(np.percentile(means, 2.5), abs=0.01)
    assert interval.high == pytest.approx(np.percentile(means, 97.5), abs=0.01)


def test_weights_decide_what_counts() -> None:
    values = np.array([[1.0, 0.5], [0.0, 1.0], [9.0, 0.0]])
    weights = np.array([[1.0, 3.0], [1.0, 1.0], [0.0, 0.0]])
    plain, over_hits = bootstrap(values, weights, seed=0)
    assert plain.value == pytest.approx(0.5)
    assert over_hits.value == pytest.approx((0.5 * 3 + 1.0) / 4)
    assert (plain.low, plain.high) == (0.0, 1.0)


def test_equal_values_have_no_spread() -> None:
    [interval] = bootstrap(np.full((5, 1), 0.25), np.ones((5, 1)), seed=0)
    assert interval.to_dict() == pytest.approx({"value": 0.25, "low": 0.25, "high": 0.25})


def test_nothing_counted_is_zero() -> None:
    assert bootstrap(np.ones((4, 1)), np.zeros((4, 1)), seed=0) == [NOTHING]
    assert bootstrap(np.zeros((0, 2)), np.zeros((0, 2)), seed=0) == [NOTHING, NOTHING]


def test_seed_decides_the_interval() -> None:
    values, weights = np.random.default_rng(0).random((30, 2)), np.ones((30, 2))

    def run(seed: int) -> list[Interval]:
        return bootstrap(values, weights, seed=seed)

    assert run(7) == run(7)
    assert run(7) != run(8)


def test_many_sessions_are_drawn_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((30, 1))
    whole = bootstrap(values, np.ones((30, 1)), seed=0, resamples=101)
    monkeypatch.setattr("routedk.eval.bootstrap._DRAWS_AT_ONCE", 30 * 10)
    assert bootstrap(values, np.ones((30, 1)), seed=0, resamples=101) == whole
