"""Verification: candidate bundles are judged one by one, and the best answer is made of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import dspy

from routedk.eval.matched import matched_f1
from routedk.programs.checks import check_judge, check_judged
from routedk.programs.choosing.candidates import ChoosingProgram, ItemSet, prediction_of
from routedk.programs.usage import Usage
from routedk.similarity.encoders import TitleEncoder
from routedk.types import Session

# A verdict is never taken to be certain: one wrong certainty would rule out every true answer.
_CERTAIN = 1e-6

Answer = tuple[ItemSet, ...]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a verifier says.

    Args:
        probabilities: That each candidate is a bundle, in [0, 1].
        usage: What judging cost.
    """

    probabilities: tuple[float, ...]
    usage: Usage = field(default_factory=Usage)


class Verifier(Protocol):
    """Judges candidate bundles."""

    def __call__(self, session: Session, candidates: Sequence[frozenset[str]]) -> Verdicts:
        """Judge candidates, each by itself; threads may call at the same time.

        Args:
            session: The session; its gold bundles are not looked at.
            candidates: At least one set of at least two of the session's items.

        Returns:
            One probability per candidate, in their order.
        """
        ...


class Verification(ChoosingProgram):
    """Gives the candidate answer of the highest expected matched F1 under a verifier's judgement.

    Candidate bundles C are the nodes of the dendrogram of the titles (the whole session is one)
    and the bundles of the samples; the verifier gives each a probability p(c). Candidate answers
    A are every cut of the dendrogram, the whole session, each sample, and the greedy pick: by
    falling p, what is disjoint from all taken before, while p is at least one half. What may be
    true, the worlds W, are the candidate answers and each candidate bundle alone::

        weight(w)   =  prod_{c in C and w} p(c)  *  prod_{c in C, not in w} (1 - p(c))
        expected(a) =  sum_{w in W} weight(w) F1(w, a)  /  sum_{w in W} weight(w)

    with F1 that of `matched`. Weights are computed as logarithms, and p is kept away from 0 and
    1. Of equal answers the first in that order wins.

    The prediction has the fields of `Consensus`'s; a bundle's confidence is its p. Beside them
    ``expected`` (of the answer, in [0, 1]) and ``probabilities`` (p by candidate). Samples that
    cannot be read are no candidates; ``error`` is always None, since the dendrogram's remain.

    Args:
        generator: What is drawn from; it is not changed. None draws nothing.
        verifier: Judges candidate bundles, e.g. `routedk.adapters.StudentVerifier`.
        n: Number of samples, at least 0.
        temperature: Of all samples but the first, above 0.
        encoder: Of the titles; None for the embedded MiniLM.

    Raises:
        SettingError: A value is not allowed; when called: no LM is configured, or the verifier
            says what is no probability.
    """

    def __init__(
        self,
        generator: Any,
        verifier: Verifier,
        *,
        n: int = 8,
        temperature: float = 0.7,
        encoder: TitleEncoder | None = None,
    ) -> None:
        """Check and keep the settings."""
        super().__init__(generator, n=n, temperature=temperature, encoder=encoder)
        check_judge("verifier", verifier)
        self.verifier = verifier

    def _answer(self, session: Session) -> dspy.Prediction:
        candidates = self.candidates(session)
        if not candidates.bundles:
            return prediction_of(
                session, (), (), candidates, Usage(), expected=1.0, probabilities={}
            )
        verdicts = self.verifier(session, candidates.bundles)
        count = len(candidates.bundles)
        probable = verdicts.probabilities
        check_judged("verifier", probable, count, lambda p: 0 <= p <= 1, "a probability")
        judged = dict(zip(candidates.bundles, probable, strict=True))
        answers = list(candidates.answers)
        picked = greedy_pick(judged)
        if picked and set(picked) not in map(set, answers):
            answers.append(picked)
        chosen, expected = best_answer(answers, judged)
        return prediction_of(
            session,
            chosen,
            [judged[items] for items in chosen],
            candidates,
            verdicts.usage,
            expected=expected,
            probabilities=judged,
        )


def greedy_pick(probabilities: Mapping[ItemSet, float]) -> Answer:
    """Disjoint candidates by falling probability, while it is at least one half."""
    picked: list[ItemSet] = []
    for items in sorted(probabilities, key=lambda items: -probabilities[items]):
        if probabilities[items] >= 0.5 and not any(items & other for other in picked):
            picked.append(items)
    return tuple(picked)


def world_weights(worlds: Sequence[Answer], probabilities: Mapping[ItemSet, float]) -> list[float]:
    """How probable each world is, see `Verification`; they sum to one.

    Args:
        worlds: At least one; their bundles are all among the candidates.
        probabilities: Of each candidate.
    """
    kept = {c: min(max(p, _CERTAIN), 1 - _CERTAIN) for c, p in probabilities.items()}
    logs = [
        sum(math.log(p) if items in world else math.log1p(-p) for items, p in kept.items())
        for world in worlds
    ]
    weights = [math.exp(log - max(logs)) for log in logs]
    return [weight / sum(weights) for weight in weights]


def best_answer(
    answers: Sequence[Answer], probabilities: Mapping[ItemSet, float]
) -> tuple[Answer, float]:
    """The answer of the highest expected matched F1, see `Verification`, and that expectation.

    Args:
        answers: Candidate answers, at least one.
        probabilities: Of every candidate bundle.
    """
    worlds = {frozenset(world): world for world in (*answers, *((c,) for c in probabilities))}
    weighted = list(
        zip(worlds.values(), world_weights([*worlds.values()], probabilities), strict=True)
    )
    expected = [
        sum(weight * matched_f1(world, answer) for world, weight in weighted) for answer in answers
    ]
    # Rounding keeps ties ties, whatever the order of a sum.
    best = max(range(len(answers)), key=lambda place: round(expected[place], 9))
    return answers[best], expected[best]
