import os
import subprocess
import sys
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import pytest
from numpy.typing import NDArray

from routedk.data import demo_sessions
from routedk.errors import SettingError
from routedk.optimizers.testing import SamplingConformance
from routedk.programs.sampling.sampling import (
    STRATEGIES,
    DifficultySampling,
    DiversitySampling,
    LengthSampling,
    RandomSampling,
    SamplingStrategy,
    make_strategy,
    sample_sessions,
    sample_size,
)
from routedk.similarity.encoders import default_encoder
from routedk.similarity.session_vectors import session_vectors
from routedk.similarity.words import TfidfEncoder
from routedk.types import Item, Session


def session(name: str, *titles: str) -> Session:
    return Session(name, tuple(Item(str(n), title) for n, title in enumerate(titles)))


def ids(strategy: SamplingStrategy, pool: Sequence[Session]) -> str:
    return " ".join(session.id for session in strategy.order(pool))


class TestRandom(SamplingConformance):
    def make(self, sessions: Sequence[Session], seed: int) -> SamplingStrategy:
        return make_strategy("random", seed=seed)


class TestLength(SamplingConformance):
    def make(self, sessions: Sequence[Session], seed: int) -> SamplingStrategy:
        return make_strategy("length", seed=seed)

    def test_most_items_first(self) -> None:
        pool = [session("a", "x"), session("b", "x", "y", "z"), session("c", "x", "y")]
        assert ids(LengthSampling(seed=0), pool) == "b c a"


class TestDiversity(SamplingConformance):
    def make(self, sessions: Sequence[Session], seed: int) -> SamplingStrategy:
        encoder = TfidfEncoder(item.title for session in sessions for item in session.items)
        return make_strategy("diversity", seed=seed, encoder=encoder)

    def test_the_farthest_is_next(self) -> None:
        """Where it starts from is chance; then by hand: first the corner far from all."""

        class Compass:
            def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
                angles = np.deg2rad([float(text) for text in texts])
                return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

        pool = [session(name, name) for name in ("0", "10", "80", "90", "200")]
        for seed in range(10):
            order = ids(DiversitySampling(seed=seed, encoder=Compass()), pool)
            assert order in {
                "0 200 90 10 80",
                "0 200 90 80 10",
                "10 200 90 0 80",
                "10 200 90 80 0",
                "80 200 0 10 90",
                "80 200 0 90 10",
                "90 200 0 10 80",
                "90 200 0 80 10",
                "200 10 90 0 80",
                "200 10 90 80 0",
            }

    def test_samples_cover_the_demo_better_than_chance(self) -> None:
        pool = demo_sessions()
        vectors = session_vectors(pool, default_encoder())
        places = {session.id: place for place, session in enumerate(pool)}

        def radius(strategy: SamplingStrategy) -> float:
            chosen = [places[s.id] for s in sample_sessions(strategy, pool, 0.2)]
            return float((1 - vectors @ vectors[chosen].T).min(axis=1).max())

        spread = [radius(DiversitySampling(seed=seed)) for seed in range(3)]
        chance = [radius(RandomSampling(seed=seed)) for seed in range(3)]
        assert max(spread) < fmean(chance)


class TestDifficulty(SamplingConformance):
    def make(self, sessions: Sequence[Session], seed: int) -> SamplingStrategy:
        scores = {session.id: len(session.items) / 4 for session in sessions}
        return make_strategy("difficulty", seed=seed, scores=scores)

    def test_lowest_score_first(self) -> None:
        pool = [session(name, "x") for name in "abc"]
        scores = {"a": 0.5, "b": 1.0, "c": 0.0, "elsewhere": 0.2}
        assert ids(DifficultySampling(seed=0, scores=scores), pool) == "c a b"

    def test_missing_scores_are_named(self) -> None:
        pool = [session(name, "x") for name in "gfedcba"]
        message = "6 of 7 sessions have no score, e.g. a, b, c, d, e: difficulty needs the score"
        with pytest.raises(SettingError, match=message):
            DifficultySampling(seed=0, scores={"g": 0.5}).order(pool)

    @pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
    def test_scores_out_of_range(self, score: float) -> None:
        with pytest.raises(SettingError, match=rf"outside \[0, 1\], e.g. {score} of session 'b'"):
            DifficultySampling(seed=0, scores={"a": 1.0, "b": score})


def test_every_strategy_has_its_suite() -> None:
    suites = (TestRandom, TestLength, TestDiversity, TestDifficulty)
    assert [suite.__name__.removeprefix("Test").lower() for suite in suites] == list(STRATEGIES)


@pytest.mark.parametrize(
    ("pool", "ratio", "size"),
    [
        (623, 0.1, 62),
        (5, 0.1, 1),
        (5, 0.3, 2),
        (5, 0.5, 3),
        (5, 0.49, 2),
        (50, 0.29, 15),
        (10, 0.149, 1),
        (10, 0.01, 1),
        (1, 0.5, 1),
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
        sample_sessions(RandomSampling(seed=0), [session("a", "x")], ratio)


def test_names_are_checked() -> None:
    with pytest.raises(
        SettingError, match="'best': allowed are random, length, diversity, difficulty"
    ):
        make_strategy("best", seed=0)
    with pytest.raises(SettingError, match="sampling strategy 'difficulty' needs scores"):
        make_strategy("difficulty", seed=0)
    assert make_strategy("diversity", seed=3) == DiversitySampling(seed=3)


def test_the_same_in_every_process() -> None:
    """Nothing depends on how a process hashes texts."""
    code = (
        "from routedk.data import demo_sessions\n"
        "from routedk.similarity.words import TfidfEncoder\n"
        "from routedk.programs.sampling.sampling import STRATEGIES, make_strategy\n"
        "pool = demo_sessions()[:40]\n"
        "encoder = TfidfEncoder(i.title for s in pool for i in s.items)\n"
        "scores = {s.id: len(s.items) / 10 for s in pool}\n"
        "for name in STRATEGIES:\n"
        "    strategy = make_strategy(name, seed=1, encoder=encoder, scores=scores)\n"
        "    print(*(s.id for s in strategy.order(pool)))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert len(found.pop().splitlines()) == len(STRATEGIES)
