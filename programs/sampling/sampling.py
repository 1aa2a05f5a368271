"""Sampling strategies: which training sessions knowledge is distilled from, at which ratio.

A strategy orders the whole pool, and a sample is the beginning of that order, so a smaller ratio's
sample is inside a larger one's. The study (arXiv 2504.17220) names the strategies random, length,
diversity and difficulty; its text could not be had in full, so what exactly each puts first is an
assumption, stated at each class.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Protocol

import numpy as np

from routedk.errors import SettingError
from routedk.similarity.encoders import TitleEncoder, default_encoder
from routedk.similarity.session_vectors import session_vectors
from routedk.types import Session


class SamplingStrategy(Protocol):
    """Says which sessions of a pool are worth taking first."""

    def order(self, sessions: Sequence[Session]) -> list[Session]:
        """The pool from the first session to be taken to the last.

        The result depends on the sessions and on the strategy's own settings, its seed among
        them, and on nothing else: neither on the order in which sessions are given nor on the
        process.

        Args:
            sessions: The pool; ids distinct.

        Returns:
            Every session of the pool, once.

        Raises:
            SettingError: Two sessions have the same id.
        """
        ...


def sample_sessions(
    strategy: SamplingStrategy, sessions: Sequence[Session], ratio: float
) -> list[Session]:
    """The first share of the strategy's order, in that order.

    Args:
        strategy: Decides which sessions come first.
        sessions: The pool; ids distinct.
        ratio: Share of the pool, in (0, 1].

    Raises:
        SettingError: The ratio is out of range, or the strategy refuses the pool.
    """
    size = sample_size(len(sessions), ratio)
    return strategy.order(sessions)[:size]


def sample_size(pool: int, ratio: float) -> int:
    """How many sessions a ratio of a pool is: ratio x pool, halves rounded up, at least 1.

    The ratio counts as the decimal number that it is written as: 0.29 of 50 is 14.5, so 15.

    Args:
        pool: Sessions in the pool; of none, none are taken.
        ratio: Share of the pool, in (0, 1].

    Raises:
        SettingError: The ratio is out of range.
    """
    if not 0 < ratio <= 1:
        raise SettingError(f"ratio={ratio}: it must be in (0, 1]")
    exact = Decimal(repr(float(ratio))) * pool
    return min(pool, max(1, int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))))


@dataclass(frozen=True, kw_only=True)
class RandomSampling:
    """Every order is equally likely.

    Args:
        seed: Seed of the order.
    """

    seed: int

    def order(self, sessions: Sequence[Session]) -> list[Session]:
        """See `SamplingStrategy.order`."""
        return _shuffled(sessions, self.seed)


@dataclass(frozen=True, kw_only=True)
class LengthSampling:
    """Sessions with most items first.

    That the longest, and not the shortest, are taken first is an assumption: they hold most
    bundles to learn from.

    Args:
        seed: Seed of the order among sessions of one length.
    """

    seed: int

    def order(self, sessions: Sequence[Session]) -> list[Session]:
        """See `SamplingStrategy.order`."""
        return sorted(_shuffled(sessions, self.seed), key=lambda session: -len(session.items))


@dataclass(frozen=True, kw_only=True)
class DiversitySampling:
    """Each next session is the one farthest from all sessions before it.

    A session is the normalised mean embedding of its titles, distance is one less the cosine, and
    the distance from a set is that from its nearest member. That diversity means this is an
    assumption; sessions without any title come last. Takes time and distances in the square of
    the pool.

    Args:
        seed: Seed of the first session, and of the order among equally far ones.
        encoder: Encodes titles; by default the packaged MiniLM.

    Source: farthest-point traversal, Gonzalez 1985, "Clustering to minimize the maximum
    intercluster distance"; as k-center greedy in Sener and Savarese, arXiv 1708.00489.
    """

    seed: int
    encoder: TitleEncoder | None = None

    def order(self, sessions: Sequence[Session]) -> list[Session]:
        """See `SamplingStrategy.order`."""
        pool = _shuffled(sessions, self.seed)
        vectors = session_vectors(pool, self.encoder or default_encoder())
        # A session without a title is far from nothing: it comes last.
        distances = np.where(vectors.any(axis=1), np.inf, -1.0)
        taken: list[Session] = []
        for _ in pool:
            # Of equal ones the first: the pool's own order is the seeded one.
            place = int(distances.argmax())
            taken.append(pool[place])
            # Rounding keeps ties ties, whatever the order of a sum.
            distances = np.minimum(distances, 1 - (vectors @ vectors[place]).round(6))
            distances[place] = -np.inf
        return taken


@dataclass(frozen=True, kw_only=True)
class DifficultySampling:
    """Sessions that a model answers worst come first.

    That the hardest are taken first is an assumption: they hold what it does not know yet.

    Args:
        seed: Seed of the order among sessions of one score.
        scores: For each session id of the pool, how well it was answered, in [0, 1]; see
            `routedk.programs.sampling.difficulty`. Ids outside the pool are passed over.
    """

    seed: int
    scores: Mapping[str, float]

    def order(self, sessions: Sequence[Session]) -> list[Session]:
        """See `SamplingStrategy.order`.

        Raises:
            SettingError: A session has no score.
        """
        unknown = sorted(session.id for session in sessions if session.id not in self.scores)
        if unknown:
            raise SettingError(
                f"{len(unknown)} of {len(sessions)} sessions have no score, e.g. "
                f"{', '.join(unknown[:5])}: difficulty needs the score of every one"
            )
        return sorted(_shuffled(sessions, self.seed), key=lambda session: self.scores[session.id])


STRATEGIES: Mapping[str, Callable[..., SamplingStrategy]] = {
    "random": RandomSampling,
    "length": LengthSampling,
    "diversity": DiversitySampling,
    "difficulty": DifficultySampling,
}


def make_strategy(
    name: str, *, seed: int, scores: Mapping[str, float] | None = None
) -> SamplingStrategy:
    """The named strategy.

    Args:
        name: One of ``STRATEGIES``.
        seed: Seed of all chance.
        scores: For ``difficulty``: score by session id, in [0, 1].

    Raises:
        SettingError: The name is unknown, or ``difficulty`` has no scores.
    """
    if name not in STRATEGIES:
        raise SettingError(f"sampling strategy {name!r}: allowed are {', '.join(STRATEGIES)}")
    if name != "difficulty":
        return STRATEGIES[name](seed=seed)
    if scores is None:
        raise SettingError("sampling strategy 'difficulty' needs scores")
    return DifficultySampling(seed=seed, scores=scores)


def _shuffled(sessions: Sequence[Session], seed: int) -> list[Session]:
    """The sessions in a seeded order that does not depend on the order they are given in."""
    pool = sorted(sessions, key=lambda session: session.id)
    if len({session.id for session in pool}) != len(pool):
        raise SettingError("two sessions of the pool have the same id: ids must be distinct")
    random.Random(seed).shuffle(pool)
    return pool
