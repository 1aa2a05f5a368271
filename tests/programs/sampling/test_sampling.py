"""The contract of every sampling strategy, and what each one puts first."""

from collections.abc import Sequence
from random import Random
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from routedk.errors import SettingError
from routedk.programs.sampling.sampling import (
    STRATEGIES,
    order_sessions,
    sample_sessions,
    sample_size,
)
from routedk.programs.teachers.config import Strategy
from routedk.similarity import encoders
from routedk.types import Item, Session

WORDS = ("red", "kettle", "tea", "cup", "usb", "cable", "hub")
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
any_pool = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def session(name: str, *titles: str) -> Session:
    return Session(name, tuple(Item(str(n), title) for n, title in enumerate(titles)))


@st.composite
def pools(draw: st.DrawFn) -> list[Session]:
    """Pools of up to 12 sessions with ties of every kind: few lengths, few titles, some empty."""
    names = draw(st.lists(st.text(max_size=3), max_size=12, unique=True))
    titles = st.sampled_from(["red kettle", "tea cup", "usb cable", "usb hub", "the", ""])
    return [session(name, *draw(st.lists(titles, min_size=1, max_size=4))) for name in names]


def scores_of(pool: Sequence[Session]) -> dict[str, float]:
    return {one.id: len(one.items) / 4 for one in pool}


def order(pool: Sequence[Session], strategy: str, seed: int = 0) -> list[Session]:
    return order_sessions(pool, strategy, seed=seed, scores=scores_of(pool))


def ids(pool: Sequence[Session], strategy: str, **options: Any) -> str:
    return " ".join(one.id for one in order_sessions(pool, strategy, seed=0, **options))


class WordEncoder:
    """Normalized counts of a few words: quick, and with many ties."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        counts = np.array([[text.count(word) for word in WORDS] for text in texts])
        counts = counts.reshape(-1, len(WORDS)).astype(np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


@pytest.fixture
def _quick_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "default_encoder", WordEncoder)


@every_strategy
@pytest.mark.usefixtures("_quick_encoder")
@any_pool
@given(pool=pools(), seed=st.integers(0, 2**32))
def test_smaller_samples_are_inside_larger_ones(
    strategy: str, pool: list[Session], seed: int
) -> None:
    inner: list[Session] = []
    for tenth in range(1, 11):
        taken = sample_sessions(pool, strategy, tenth / 10, seed=seed, scores=scores_of(pool))
        assert len(taken) == min(len(pool), max(1, (tenth * len(pool) + 5) // 10))
        # In the order of the pool, none twice.
        assert taken == [one for one in pool if one in taken]
        assert all(one in taken for one in inner)
        inner = taken
    assert inner == pool


@every_strategy
@pytest.mark.usefixtures("_quick_encoder")
@any_pool
@given(pool=pools(), seed=st.integers(0, 2**32), rng=st.randoms(use_true_random=False))
def test_the_order_of_the_pool_does_not_matter(
    strategy: str, pool: list[Session], seed: int, rng: Random
) -> None:
    shuffled = rng.sample(pool, len(pool))
    given_ids = [one.id for one in shuffled]
    assert order(shuffled, strategy, seed) == order(tuple(pool), strategy, seed)
    assert [one.id for one in shuffled] == given_ids


@every_strategy
def test_the_seed_decides_between_equals(strategy: str) -> None:
    pool = [session(str(n), "red kettle", "tea cup") for n in range(8)]
    orders = {tuple(one.id for one in order(pool, strategy, seed)) for seed in range(4)}
    assert len(orders) > 1


def test_the_same_id_twice_is_refused() -> None:
    with pytest.raises(SettingError, match="two sessions of the pool have the same id"):
        order([session("a", "red kettle"), session("a", "tea cup")], "random")


def test_most_items_first() -> None:
    pool = [session("a", "x"), session("b", "x", "y", "z"), session("c", "x", "y")]
    assert ids(pool, "length") == "b c a"


def test_the_farthest_is_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it starts from is chance; then by hand: first the corner far from all."""

    class Compass:
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            angles = np.deg2rad([float(text) for text in texts])
            return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    monkeypatch.setattr(encoders, "default_encoder", Compass)
    pool = [session(name, name) for name in ("0", "10", "80", "90", "200")]
    for seed in range(10):
        first, *rest = (one.id for one in order_sessions(pool, "diversity", seed=seed))
        assert (
            " ".join(rest)
            in {
                "0": ("200 90 10 80", "200 90 80 10"),
                "10": ("200 90 0 80", "200 90 80 0"),
                "80": ("200 0 10 90", "200 0 90 10"),
                "90": ("200 0 10 80", "200 0 80 10"),
                "200": ("10 90 0 80", "10 90 80 0"),
            }[first]
        )


def test_lowest_score_first() -> None:
    pool = [session(name, "x") for name in "abc"]
    scores = {"a": 0.5, "b": 1.0, "c": 0.0, "elsewhere": 0.2}
    assert ids(pool, "difficulty", scores=scores) == "c a b"


def test_missing_scores_are_named() -> None:
    pool = [session(name, "x") for name in "gfedcba"]
    message = "6 of 7 sessions have no score, e.g. a, b, c, d, e: difficulty needs the score"
    with pytest.raises(SettingError, match=message):
        ids(pool, "difficulty", scores={"g": 0.5})


@pytest.mark.parametrize(
    ("pool", "ratio", "size"),
    [
        (623, 0.1, 62),
        (5, 0.5, 3),
        (5, 0.49, 2),
        (50, 0.29, 15),
        (10, 0.01, 1),
        (7, 1, 7),
        (0, 0.5, 0),
    ],
)
def test_size_by_hand(pool: int, ratio: float, size: int) -> None:
    assert sample_size(pool, ratio) == size
    assert sample_size(pool, np.float64(ratio)) == size


@pytest.mark.parametrize("ratio", [0, -0.1, 1.1, float("nan")])
def test_ratio_is_checked(ratio: float) -> None:
    with pytest.raises(SettingError, match=rf"ratio={ratio}: it must be in \(0, 1\]"):
        sample_sessions([session("a", "x")], "random", ratio, seed=0)


def test_names_are_checked() -> None:
    with pytest.raises(
        SettingError, match="'best': it must be one of random, length, diversity, difficulty"
    ):
        order_sessions([], "best", seed=0)
    assert get_args(Strategy) == tuple(STRATEGIES)
