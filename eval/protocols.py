"""The type of evaluation protocols, which score the predictions of one session."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

ItemSets: TypeAlias = Sequence[frozenset[str]]
"""The bundles of one session as item sets."""


class Score(NamedTuple):
    """The value of one metric for one session, and how much the session counts in the mean.

    Args:
        value: Higher is better; 0 where the session does not count.
        weight: 1 for a plain mean over sessions; 0 where the session leaves the denominator; the
            number of hits for a mean over hits.
    """

    value: float
    weight: float = 1.0


UNCOUNTED = Score(0.0, 0.0)

EvaluationProtocol: TypeAlias = Callable[[ItemSets, ItemSets], dict[str, Score]]
"""Scores one session by its gold bundles and its predicted ones, in this order.

It gives the score of each metric by its name, the same names for every session; the weighted mean
over sessions is what is reported.
"""
