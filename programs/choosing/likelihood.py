"""Likelihood ranking: of all candidate answers the one that the student finds likeliest."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import dspy
import numpy as np

from routedk.errors import SettingError
from routedk.programs.checks import check_judge, check_judged
from routedk.programs.choosing.candidates import ChoosingProgram, prediction_of
from routedk.programs.usage import Usage
from routedk.similarity.encoders import TitleEncoder
from routedk.types import Bundle, Session

MEASURES: Mapping[str, Callable[[float, int], float]] = MappingProxyType(
    {"mean": lambda total, tokens: total / tokens, "sum": lambda total, tokens: total}
)


@dataclass(frozen=True, slots=True)
class AnswerScores:
    """How likely each of several answers is.

    Args:
        totals: Log-likelihood of each; -inf for one that is impossible.
        tokens: Number of tokens that it is the sum over, each at least 1.
        usage: What scoring cost.
    """

    totals: tuple[float, ...]
    tokens: tuple[int, ...]
    usage: Usage = field(default_factory=Usage)


class AnswerScorer(Protocol):
    """Tells how likely answers are.

    One that has a true attribute ``needs_intents`` knows bundles by their intents alone.
    """

    def __call__(self, session: Session, answers: Sequence[Sequence[Bundle]]) -> AnswerScores:
        """Score answers; threads may call at the same time.

        Args:
            session: The session; its gold bundles are not looked at.
            answers: At least one answer, each any number of bundles.

        Returns:
            Likelihoods in the order of the answers.
        """
        ...


class LikelihoodRanking(ChoosingProgram):
    """Gives the candidate answer that is likeliest to a scorer.

    Candidates are every cut of the dendrogram of the titles, the whole session, and each sample
    of the generator; bundles that no sample names get their intents as
    `routedk.programs.choosing.candidates` says. Of equal ones the first in that order wins. By
    default answers are compared by their log-likelihood per token: by the sum a shorter answer wins
    for being short, and the shortest of all is the whole session as one bundle.

    The prediction has the fields of `Consensus`'s; a bundle's confidence is the share, by
    ``exp(score)``, of the candidate answers that have it. Beside them ``scores``, of all
    candidate answers in their order.

    Args:
        generator: What is drawn from; it is not changed. None draws nothing: a scorer that needs
            intents refuses that, since what no sample names has hardly any.
        scorer: Scores answers, e.g. `routedk.adapters.StudentRanker`.
        n: Number of samples, at least 0.
        temperature: Of all samples but the first, above 0.
        measure: ``mean`` per token, or ``sum``.
        encoder: Of the titles; None for the embedded MiniLM.

    Raises:
        SettingError: A value is not allowed; when called: no LM is configured, or the scorer does
            not give a number for each answer.
    """

    def __init__(
        self,
        generator: Any,
        scorer: AnswerScorer,
        *,
        n: int = 8,
        temperature: float = 0.7,
        measure: str = "mean",
        encoder: TitleEncoder | None = None,
    ) -> None:
        """Check and keep the settings."""
        super().__init__(generator, n=n, temperature=temperature, encoder=encoder)
        if measure not in MEASURES:
            raise SettingError(f"measure {measure!r}: allowed are {', '.join(MEASURES)}")
        check_judge("scorer", scorer)
        if self.samples is None and getattr(scorer, "needs_intents", False):
            raise SettingError(
                "this scorer knows bundles by their intents, and without samples they have hardly "
                "any: give a generator, and n of at least 1"
            )
        self.scorer = scorer
        self.measure = measure

    def _answer(self, session: Session) -> dspy.Prediction:
        candidates = self.candidates(session)
        if not candidates.answers:
            return prediction_of(session, (), (), candidates, Usage(), scores=[])
        answers = [
            [candidates.bundle(session, items) for items in answer] for answer in candidates.answers
        ]
        found = self.scorer(session, answers)
        count = len(answers)
        check_judged("scorer", found.totals, count, lambda t: t < math.inf, "a log-likelihood")
        check_judged("scorer", found.tokens, count, lambda n: n >= 1, "at least one token")
        if max(found.totals) == -math.inf:
            raise SettingError("the scorer finds every candidate answer impossible")
        scores = [*map(MEASURES[self.measure], found.totals, found.tokens)]
        # Rounding keeps ties ties, whatever the order of a sum.
        best = max(range(len(scores)), key=lambda place: round(scores[place], 9))
        shares = np.exp(np.array(scores) - max(scores))
        shares /= shares.sum()
        confidences = [
            float(sum(s for a, s in zip(candidates.answers, shares, strict=True) if items in a))
            for items in candidates.answers[best]
        ]
        return prediction_of(
            session,
            candidates.answers[best],
            confidences,
            candidates,
            found.usage,
            scores=scores,
        )
