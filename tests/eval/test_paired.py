import random

import pytest

from routedk.eval.paired import paired_p, sessions_needed


@pytest.mark.parametrize(
    ("scores", "others", "p"),
    [
        # All signs positive: one choice of 2^n.
        ([1.0], [0.0], 1 / 2),
        ([1.0, 0.5, 0.9], [0.0, 0.4, 0.2], 1 / 8),
        # Differences 3, 2, -1 sum to 4: only +++ (6) and ++- (4) reach it.
        ([0.3, 0.2, 0.0], [0.0, 0.0, 0.1], 2 / 8),
        # Sessions without a difference change nothing.
        ([0.3, 0.7, 0.2, 0.0, 0.7], [0.0, 0.7, 0.0, 0.1, 0.7], 2 / 8),
        # Worse in all: every choice reaches it.
        ([0.0, 0.0], [1.0, 1.0], 1.0),
        ([0.4, 0.4], [0.4, 0.4], 1.0),
        ([], [], 1.0),
    ],
)
def test_by_hand(scores: list[float], others: list[float], p: float) -> None:
    assert paired_p(scores, others, seed=0) == pytest.approx(p)


def test_float_noise_is_no_difference() -> None:
    assert paired_p([0.1 + 0.2] * 5, [0.3] * 5, seed=0) == 1.0


def test_many_sessions_are_sampled_and_seeded() -> None:
    rng = random.Random(1)
    others = [rng.random() for _ in range(40)]
    scores = [other + rng.gauss(0.1, 0.3) for other in others]
    p = paired_p(scores, others, seed=3)
    assert 1e-4 <= p < 0.2
    assert p == paired_p(scores, others, seed=3)
    assert paired_p(others, scores, seed=3) == pytest.approx(1 - p, abs=0.02)
    assert paired_p([other + 1 for other in others], others, seed=3) == pytest.approx(1e-4)


def test_chance_is_called_a_gain_as_seldom_as_stated() -> None:
    rng = random.Random(0)

    def noise() -> list[float]:
        return [float(rng.random() < 0.5) for _ in range(12)]

    called = sum(paired_p(noise(), noise(), seed=n) <= 0.1 for n in range(150))
    assert called <= 0.1 * 150 + 3 * (150 * 0.1 * 0.9) ** 0.5


def test_lists_of_one_length() -> None:
    with pytest.raises(ValueError, match="2 scores and 1: they must be equally many"):
        paired_p([1.0, 1.0], [1.0], seed=0)


@pytest.mark.parametrize(("level", "sessions"), [(0.5, 1), (0.05, 5), (0.01, 7)])
def test_how_many_sessions_a_level_needs(level: float, sessions: int) -> None:
    assert sessions_needed(level) == sessions
    p = paired_p([1.0] * sessions, [0.0] * sessions, seed=0)
    assert p <= level < paired_p([1.0] * (sessions - 1), [0.0] * (sessions - 1), seed=0)
