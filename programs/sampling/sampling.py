"""Sampling: which training sessions knowledge is distilled from, by strategy and ratio.

A strategy orders the whole pool, and a sample is a prefix of that order, so the sample of a smaller
ratio is contained in that of a larger one. The study (arXiv 2504.17220) names the strategies
random, length, diversity and difficulty; its full text was not available, so what exactly each
puts first is an assumption, stated in each function.
"""

import random
from collections.abc import Callable, Mapping, Sequence

from routedk.errors import SettingError
from routedk.types import Session

Scores = Mapping[str, float]


def sample_sessions(
    sessions: Sequence[Session],
    strategy: str,
    ratio: float,
    *,
    seed: int,
    scores: Scores | None = None,
) -> list[Session]:
    """Sample sessions by a strategy, in the order of the pool.

    Args:
        sessions: The pool, with distinct ids.
        strategy: One of ``STRATEGIES``.
        ratio: Share of the pool, in (0, 1].
        seed: Seed of all randomness.
        scores: For ``difficulty``: how well each session was answered, by id, in [0, 1].

    Raises:
        SettingError: A value is not allowed, an id is a duplicate, or a score is missing.
    """
    size = sample_size(len(sessions), ratio)
    if size == len(sessions):
        return list(sessions)
    order = order_sessions(sessions, strategy, seed=seed, scores=scores)
    taken = {session.id for session in order[:size]}
    return [session for session in sessions if session.id in taken]


def order_sessions(
    sessions: Sequence[Session], strategy: str, *, seed: int, scores: Scores | None = None
) -> list[Session]:
    """The pool in the order in which it is sampled; arguments as for `sample_sessions`.

    The result depends neither on the order in which sessions are given nor on the process.
    """
    if strategy not in STRATEGIES:
        raise SettingError(f"strategy {strategy!r}: it must be one of {', '.join(STRATEGIES)}")
    pool = sorted(sessions, key=lambda session: session.id)
    if len({session.id for session in pool}) != len(pool):
        raise SettingError("two sessions of the pool have the same id: ids must be distinct")
    random.Random(seed).shuffle(pool)
    return STRATEGIES[strategy](pool, scores or {})


def sample_size(pool: int, ratio: float) -> int:
    """How many sessions a ratio of a pool is: ratio x pool, halves rounded up, at least 1.

    The ratio counts as the decimal number that it is written as: 0.29 of 50 is 14.5, so 15.

    Args:
        pool: Number of sessions in the pool; the sample of an empty pool is empty.
        ratio: Share of the pool, in (0, 1].

    Raises:
        SettingError: The ratio is out of range.
    """
    if not 0 < ratio <= 1:
        raise SettingError(f"ratio={ratio}: it must be in (0, 1]")
    return min(pool, max(1, int(round(ratio * pool, 6) + 0.5)))


def _random(pool: list[Session], scores: Scores) -> list[Session]:
    """Every order is equally likely."""
    return pool


def _longest_first(pool: list[Session], scores: Scores) -> list[Session]:
    """Sessions with the most items first: they hold the most bundles to learn from (assumption)."""
    return sorted(pool, key=lambda session: -len(session.items))


def _hardest_first(pool: list[Session], scores: Scores) -> list[Session]:
    """The sessions a model answers worst come first: they hold what it lacks (assumption)."""
    unknown = sorted(session.id for session in pool if session.id not in scores)
    if unknown:
        raise SettingError(
            f"{len(unknown)} of {len(pool)} sessions have no score, e.g. "
            f"{', '.join(unknown[:5])}: difficulty needs the score of every one"
        )
    return sorted(pool, key=lambda session: scores[session.id])


def _farthest_first(pool: list[Session], scores: Scores) -> list[Session]:
    """Each next session is the one farthest from all sessions before it (assumption).

    A session is the normalized mean embedding of its titles, distance is one minus the cosine, and
    the distance from a set is that from its nearest member. Takes time quadratic in the size of
    the pool.

    Source: farthest-point traversal, Gonzalez 1985, "Clustering to minimize the maximum
    intercluster distance"; as k-center greedy in Sener and Savarese, arXiv 1708.00489.
    """
    import numpy as np

    from routedk.similarity.encoders import default_encoder
    from routedk.similarity.session_vectors import session_vectors

    vectors = session_vectors(pool, default_encoder())
    # A session without a title is far from nothing: it comes last.
    distances = np.where(vectors.any(axis=1), np.inf, -1.0)
    taken: list[Session] = []
    for _ in pool:
        # The first one wins ties: the pool is already shuffled by the seed.
        place = int(distances.argmax())
        taken.append(pool[place])
        # Rounding keeps ties ties, whatever the order of summation.
        distances = np.minimum(distances, 1 - (vectors @ vectors[place]).round(6))
        distances[place] = -np.inf
    return taken


STRATEGIES: Mapping[str, Callable[[list[Session], Scores], list[Session]]] = {
    "random": _random,
    "length": _longest_first,
    "diversity": _farthest_first,
    "difficulty": _hardest_first,
}
