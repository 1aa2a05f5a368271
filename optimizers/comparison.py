"""Which of several candidates is kept: a newcomer must beat the incumbent beyond noise."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from routedk.eval.paired import paired_p


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A candidate and what it scored.

    Args:
        number: Which one it is.
        scores: Its score on each session, higher is better; all candidates have the same
            sessions in the same order.
        length: Length of its prompts, in any unit.
    """

    number: int
    scores: tuple[float, ...]
    length: float

    @property
    def mean(self) -> float:
        """Rounded, so that ties stay ties, whatever the order of a sum."""
        return round(fmean(self.scores), 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A candidate beside the incumbent.

    Args:
        against: The incumbent's number.
        difference: Mean score of the candidate less that of the incumbent.
        p: How often chance alone gives a difference as high, see `paired_p`.
        replaces: The candidate takes the incumbent's place.
    """

    against: int
    difference: float
    p: float
    replaces: bool


class Contest:
    """Candidates in the order of their coming, and who of them is kept.

    The first is the first incumbent. A newcomer takes its place where its mean is higher and the
    p-value at most ``level``, or where the means are equal and its prompt is shorter.

    Args:
        level: Of one comparison, above 0, below 1.
        seed: Of the comparisons' random signs.
    """

    def __init__(self, *, level: float, seed: int) -> None:
        """Nobody has come."""
        self._level = level
        self._seed = seed
        self._scored: list[Scored] = []
        self._incumbent = 0

    def enter(self, scores: Sequence[float], length: float) -> Comparison | None:
        """Take a candidate up, numbered from 0, and compare it with the incumbent.

        Args:
            scores: As in `Scored`.
            length: As in `Scored`.

        Returns:
            How it compares; None for the first.
        """
        candidate = Scored(number=len(self._scored), scores=tuple(scores), length=length)
        self._scored.append(candidate)
        if not candidate.number:
            return None
        found = self._compare(candidate, self._scored[self._incumbent])
        if found.replaces:
            self._incumbent = candidate.number
        return found

    @property
    def leader(self) -> int:
        """The number of the highest mean, beyond noise or not; of equal ones the shortest."""
        best = min(self._scored, key=lambda one: (-one.mean, one.length, one.number))
        return best.number

    def kept(self, among: Iterable[int] = ()) -> int:
        """The number of the last incumbent.

        Args:
            among: Hold the contest among these alone, in their order; empty for all.
        """
        some = [self._scored[number] for number in among]
        if not some:
            return self._incumbent
        incumbent = some[0]
        for candidate in some[1:]:
            if self._compare(candidate, incumbent).replaces:
                incumbent = candidate
        return incumbent.number

    def _compare(self, candidate: Scored, incumbent: Scored) -> Comparison:
        difference = round(candidate.mean - incumbent.mean, 9)
        p = paired_p(candidate.scores, incumbent.scores, seed=self._seed)
        beats = difference > 0 and p <= self._level
        shorter = difference == 0 and candidate.length < incumbent.length
        return Comparison(
            against=incumbent.number, difference=difference, p=p, replaces=beats or shorter
        )
