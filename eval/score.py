"""What a protocol says about one session."""

from typing import NamedTuple


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
