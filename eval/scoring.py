"""One system's answers against gold, under every protocol, with intervals."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from routedk.errors import DataError
from routedk.eval.bootstrap import Interval, bootstrap
from routedk.eval.intents import IntentScores, score_intents
from routedk.eval.protocols import METRICS, PROTOCOLS
from routedk.eval.score import Score
from routedk.similarity.encoders import TitleEncoder
from routedk.types import Answer, Session


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
        without_gold: Sessions left out because they have no gold bundle.
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
class System:
    """One line of a table: a system and what it reached.

    Args:
        name: Public name.
        results: Protocol, then metric, to its mean and interval.
        counts: What they rest on.
        session_f1: Matched F1 of each scored session, in order, for paired comparisons.
        intents: How good the intents are; None where nobody asked or there are none.
        config: Settings of its own, e.g. a threshold and what it was chosen on. ``leaks`` says
            that something other than titles gives part of the answer away.
    """

    name: str
    results: Mapping[str, Mapping[str, Interval]]
    counts: Counts
    session_f1: tuple[float, ...]
    intents: IntentScores | None = None
    config: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def f1(self) -> Interval:
        """Matched F1, which is what RouteDK optimises."""
        return self.results["matched"]["f1"]

    @property
    def leaks(self) -> bool:
        """Whether its own settings are flagged as leaking the answer."""
        return bool(self.config.get("leaks", False))

    def to_dict(self) -> dict[str, Any]:
        """Results, counts and intents as in a results file."""
        record: dict[str, Any] = {
            "results": {
                protocol: {metric: interval.to_dict() for metric, interval in metrics.items()}
                for protocol, metrics in self.results.items()
            },
            "counts": asdict(self.counts),
        }
        return record if self.intents is None else record | {"intents": asdict(self.intents)}


def score_answers(
    name: str,
    sessions: Sequence[Session],
    answers: Iterable[Answer],
    *,
    seed: int,
    resamples: int,
    encoder: TitleEncoder | None = None,
    config: Mapping[str, Any] | None = None,
) -> System:
    """Score one system: each session first, then the mean with a 95% bootstrap interval.

    Args:
        name: Of the system.
        sessions: Sessions to score; those without gold bundles are left out and counted.
        answers: What it predicted; a session without an answer counts as unanswered, and answers
            for other sessions are ignored.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
        encoder: Encoder for the similarity of intents; None leaves intents unscored.
        config: Settings of the system, for the record.

    Raises:
        DataError: No session has a gold bundle.
    """
    scored = with_gold(sessions)
    by_id = {answer.session_id: answer for answer in answers}
    given = [by_id.get(session.id, Answer(session.id)) for session in scored]
    rows = [_scores(session, answer) for session, answer in zip(scored, given, strict=True)]
    values_NM = np.array([[score.value for score in row] for row in rows])
    weights_NM = np.array([[score.weight for score in row] for row in rows])
    intervals = iter(bootstrap(values_NM, weights_NM, seed=seed, resamples=resamples))
    answered = sum(bool(answer.bundles) for answer in given)
    intents = None
    if encoder is not None:
        intents = score_intents(scored, given, encoder, seed=seed, resamples=resamples)
    return System(
        name=name,
        results={
            protocol: {metric: next(intervals) for metric in metrics}
            for protocol, metrics in METRICS.items()
        },
        counts=Counts(
            sessions=len(scored),
            answered=answered,
            dropped=sum(len(answer.dropped) for answer in given),
            bundles=sum(len(answer.bundles) for answer in given),
            gold_bundles=sum(len(session.gold) for session in scored),
            without_gold=len(sessions) - len(scored),
            aicl_sessions=answered,
        ),
        session_f1=tuple(row[METRICS["matched"].index("f1")].value for row in rows),
        intents=intents,
        config=config or {},
    )


def with_gold(sessions: Sequence[Session]) -> list[Session]:
    """The sessions that can be scored.

    Raises:
        DataError: There is none.
    """
    scored = [session for session in sessions if session.gold]
    if not scored:
        raise DataError(
            f"none of the {len(sessions)} sessions to evaluate has a gold bundle",
            hint="choose another --split, or data with gold bundles",
        )
    return scored


def _scores(session: Session, answer: Answer) -> list[Score]:
    """The scores of one session in the order of METRICS, `matched` first."""
    row = []
    for protocol, metrics in METRICS.items():
        scores = PROTOCOLS[protocol](session.gold, answer.items)
        row += [scores[metric] for metric in metrics]
    return row
