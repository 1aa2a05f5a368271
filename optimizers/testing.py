"""What every sampling strategy keeps, as a test class to inherit; needs pytest and hypothesis.

Example::

    class TestMine(SamplingConformance):
        def make(self, sessions, seed):
            return MySampling(seed=seed)
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routedk.errors import SettingError
from routedk.programs.sampling.sampling import SamplingStrategy, sample_sessions
from routedk.types import Item, Session

_TENTHS = range(1, 11)
_SEEDS = st.integers(0, 2**32)
# Each subclass runs the same test with its own strategy: that is the point.
_any_pool = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.differing_executors],
)


@st.composite
def pools(draw: st.DrawFn) -> list[Session]:
    """Pools of up to 12 sessions with ties of every kind: few lengths, few titles, some empty."""
    names = draw(st.lists(st.text(max_size=3), max_size=12, unique=True))
    titles = st.sampled_from(["red kettle", "tea cup", "usb cable", "usb hub", "the", ""])
    return [_session(name, draw(st.lists(titles, min_size=1, max_size=4))) for name in names]


def _session(name: str, titles: Sequence[str]) -> Session:
    return Session(name, tuple(Item(str(n), title) for n, title in enumerate(titles)))


class SamplingConformance(ABC):
    """Nested, exact in size, within the pool, and the same whatever the order of the pool."""

    @abstractmethod
    def make(self, sessions: Sequence[Session], seed: int) -> SamplingStrategy:
        """The strategy for a pool; what it needs to know of the sessions must not tell their order.

        Args:
            sessions: The pool; ids distinct.
            seed: Seed of all chance.
        """

    @_any_pool
    @given(pools(), _SEEDS)
    def test_smaller_samples_are_inside_larger_ones(self, pool: list[Session], seed: int) -> None:
        """Nested over ratios, of exact size, none twice; the whole pool at ratio 1."""
        strategy = self.make(pool, seed)
        inner: list[Session] = []
        for tenth in _TENTHS:
            sample = sample_sessions(strategy, pool, tenth / 10)
            halves_up = (tenth * len(pool) + 5) // 10
            assert len(sample) == min(len(pool), max(1, halves_up))
            assert sample[: len(inner)] == inner
            inner = sample
        assert sorted(s.id for s in inner) == sorted(s.id for s in pool)
        assert all(session in pool for session in inner)

    @_any_pool
    @given(pools(), _SEEDS, st.randoms(use_true_random=False))
    def test_the_order_of_the_pool_does_not_matter(
        self, pool: list[Session], seed: int, rng: Random
    ) -> None:
        """Deterministic, also between two strategies made alike; the pool stays as it was."""
        shuffled = rng.sample(pool, len(pool))
        given_ids = [session.id for session in shuffled]
        order = self.make(pool, seed).order(pool)
        assert self.make(shuffled, seed).order(shuffled) == order
        assert self.make(pool, seed).order(tuple(pool)) == order
        assert [session.id for session in shuffled] == given_ids

    def test_the_seed_decides_between_equals(self) -> None:
        """Sessions alike in all but their ids come in an order that the seed makes."""
        pool = [_session(str(n), ["red kettle", "tea cup"]) for n in range(8)]
        orders = [[s.id for s in self.make(pool, seed).order(pool)] for seed in range(4)]
        assert len({tuple(order) for order in orders}) > 1

    def test_the_same_id_twice_is_refused(self) -> None:
        """Samples could not be told apart."""
        pool = [_session("a", ["red kettle"]), _session("a", ["tea cup"])]
        with pytest.raises(SettingError, match="the same id"):
            self.make(pool, 0).order(pool)
