"""Predictions against gold, under every protocol."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from routedk.errors import DataError
from routedk.eval.baselines import Baseline
from routedk.eval.bootstrap import RESAMPLES, Interval, bootstrap
from routedk.eval.intents import IntentScores, score_intents
from routedk.eval.protocols import METRICS, PROTOCOLS
from routedk.eval.score import Score
from routedk.similarity.encoders import TitleEncoder
from routedk.types import Answer, Bundle, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much an evaluation rests on.

    Args:
        sessions: Sessions with gold bundles: those that are scored.
        answered: Those of them with at least one valid predicted bundle; the others score 0 in
            `matched` and `strict`, and are not in the denominator of `aicl`.
        dropped: Predicted bundles of scored sessions that were not valid or repeated another.
        bundles: Valid predicted bundles of scored sessions.
        gold_bundles: Their gold bundles.
        without_gold: Sessions passed over because they have no gold bundle.
        aicl_sessions: The denominator of `aicl` precision and recall.
    """

    sessions: int
    answered: int
    dropped: int
    bundles: int
    gold_bundles: int
    without_gold: int
    aicl_sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """What one system reached.

    Args:
        results: Protocol, then metric, to its mean and interval.
        counts: What they rest on.
        intents: How good the intents are; None where nobody asked or there are none.
    """

    results: Mapping[str, Mapping[str, Interval]]
    counts: Counts
    intents: IntentScores | None = None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a results file."""
        record: dict[str, Any] = {
            "results": {
                protocol: {metric: interval.to_dict() for metric, interval in metrics.items()}
                for protocol, metrics in self.results.items()
            },
            "counts": asdict(self.counts),
        }
        if self.intents is not None:
            record["intents"] = self.intents.to_dict()
        return record


def evaluate(
    sessions: Iterable[Session],
    answers: Iterable[Answer],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    encoder: TitleEncoder | None = None,
) -> EvaluationResult:
    """Score predictions: each session first, then the mean with a 95% bootstrap interval.

    Args:
        sessions: Sessions to score; those without gold bundles are passed over and counted.
        answers: What was predicted; a session without one counts as unanswered, and answers for
            other sessions are ignored.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
        encoder: Encoder for the similarity of intents; None leaves intents unscored.

    Raises:
        DataError: When no session has a gold bundle.
    """
    given = list(sessions)
    scored = [session for session in given if session.gold]
    if not scored:
        raise DataError(
            f"none of the {len(given)} sessions to evaluate has a gold bundle",
            hint="choose another --split, or data with gold bundles",
        )
    by_id = {answer.session_id: answer for answer in answers}
    answers = [by_id.get(session.id, Answer(session.id)) for session in scored]
    rows = [_scores(session, answer) for session, answer in zip(scored, answers, strict=True)]
    values_NM = np.array([[score.value for score in row] for row in rows])
    weights_NM = np.array([[score.weight for score in row] for row in rows])
    intervals = iter(bootstrap(values_NM, weights_NM, seed=seed, resamples=resamples))
    answered = sum(bool(answer.bundles) for answer in answers)
    return EvaluationResult(
        results={
            protocol: {metric: next(intervals) for metric in metrics}
            for protocol, metrics in METRICS.items()
        },
        counts=Counts(
            sessions=len(scored),
            answered=answered,
            dropped=sum(len(answer.dropped) for answer in answers),
            bundles=sum(len(answer.bundles) for answer in answers),
            gold_bundles=sum(len(session.gold) for session in scored),
            without_gold=len(given) - len(scored),
            aicl_sessions=answered,
        ),
        intents=None
        if encoder is None
        else score_intents(scored, answers, encoder, seed=seed, resamples=resamples),
    )


def predict_baseline(baseline: Baseline, sessions: Iterable[Session]) -> list[Answer]:
    """A baseline's predictions for some sessions."""
    return [
        Answer(
            session.id,
            tuple(
                Bundle(tuple(item.id for item in session.items if item.id in items))
                for items in baseline.predict(session)
            ),
        )
        for session in sessions
    ]


def _scores(session: Session, answer: Answer) -> Sequence[Score]:
    """The scores of one session in the order of METRICS."""
    row = []
    for protocol, metrics in METRICS.items():
        scores = PROTOCOLS[protocol](session.gold, answer.items)
        row += [scores[metric] for metric in metrics]
    return row
