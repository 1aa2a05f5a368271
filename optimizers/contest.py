"""`Contest`: decides which of several candidates is kept; a newcomer must win beyond chance."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from routedk.eval.paired import paired_p


class Contest:
    """Candidates, numbered from 0 in the order they enter.

    The first candidate is the first incumbent. A newcomer replaces the incumbent if its mean is
    higher and the p-value at most ``level``, or if the means are equal and its prompt is shorter.

    Args:
        level: Significance level of one comparison, above 0, below 1.
        seed: Seed of the random signs in comparisons.
    """

    def __init__(self, *, level: float, seed: int) -> None:
        """Start without candidates."""
        self._level = level
        self._seed = seed
        self._scores: list[Sequence[float]] = []
        self._lengths: list[float] = []

    def enter(self, scores: Sequence[float], length: float) -> dict[str, Any]:
        """Add a candidate and compare it with the incumbent.

        Args:
            scores: Its score on each session, higher is better; all candidates are scored on the
                same sessions in the same order.
            length: Length of its prompts, in any unit.

        Returns:
            ``against`` (the incumbent's number), ``difference`` of the means, ``p`` (how often
            chance alone gives a difference this high, see `paired_p`) and whether it ``replaced``
            the incumbent; all None for the first candidate.
        """
        self._scores.append(scores)
        self._lengths.append(length)
        *earlier, number = range(len(self._scores))
        if not earlier:
            return dict.fromkeys(("against", "difference", "p", "replaced"))
        return self._compare(number, self.kept(earlier))

    @property
    def leader(self) -> int:
        """The number of the highest mean, beyond chance or not; among equals the shortest."""
        numbers = range(len(self._scores))
        return min(numbers, key=lambda n: (-self._mean(n), self._lengths[n], n))

    def kept(self, among: Sequence[int] = ()) -> int:
        """The number of the final incumbent.

        Args:
            among: Hold the contest only among these candidates, in this order; empty for all.
        """
        incumbent, *others = among or range(len(self._scores))
        for number in others:
            if self._compare(number, incumbent)["replaced"]:
                incumbent = number
        return incumbent

    def _mean(self, number: int) -> float:
        """The mean, rounded so that ties stay ties whatever the order of summation."""
        return round(fmean(self._scores[number]), 9)

    def _compare(self, number: int, incumbent: int) -> dict[str, Any]:
        difference = round(self._mean(number) - self._mean(incumbent), 9)
        p = paired_p(self._scores[number], self._scores[incumbent], seed=self._seed)
        beats = difference > 0 and p <= self._level
        shorter = difference == 0 and self._lengths[number] < self._lengths[incumbent]
        replaced = beats or shorter
        return {"against": incumbent, "difference": difference, "p": p, "replaced": replaced}
