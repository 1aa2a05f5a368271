"""One system's answers against gold, under every protocol, with intervals."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

from routedk.eval.bootstrap import Interval, bootstrap
from routedk.eval.empties import (
    CurveRow,
    EmptyScores,
    answers_of,
    confidence_curve,
    score_empties,
)
from routedk.eval.intents import IntentScores, score_intents
from routedk.eval.protocols import EvaluationProtocol, aicl, matched, matched_f1, strict
from routedk.similarity.encoders import TitleEncoder
from routedk.types import Answer, Session

PROTOCOLS: Mapping[str, EvaluationProtocol] = MappingProxyType(
    {"matched": matched, "strict": strict, "aicl": aicl}
)
METRICS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {name: tuple(protocol([], [])) for name, protocol in PROTOCOLS.items()}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Numbers of sessions and bundles behind an evaluation.

    Args:
        sessions: Sessions with gold bundles: those that are scored.
        answered: Those of them with at least one valid predicted bundle; the others score 0 in
            `matched` and `strict`, and are left out of the denominator of `aicl`.
        dropped: Predicted bundles of scored sessions that were not valid or repeated another.
        bundles: Valid predicted bundles of scored sessions.
        gold_bundles: Gold bundles of scored sessions.
        empty_sessions: Additional sessions, annotated as holding no bundle: they are scored
            separately and are in no other count.
    """

    sessions: int
    answered: int
    dropped: int
    bundles: int
    gold_bundles: int
    empty_sessions: int


@dataclass(frozen=True, slots=True)
class System:
    """Scores, counts and settings of one evaluated system.

    Args:
        name: Public name.
        results: Mean and interval by protocol, then by metric.
        counts: What they are based on.
        session_f1: Matched F1 of each scored session, in order, for paired comparisons.
        intents: How good the intents are; None if not requested or there are none.
        empties: Scores with sessions annotated as empty; None if there are none.
        empties_curve: What leaving more sessions empty would cost, over thresholds; no rows if
            the system has no thresholds, or there are no such sessions.
        config: The system's own settings, e.g. a threshold and what it was chosen on. ``leaks``
            says that something other than titles gives part of the answer away.
    """

    name: str
    results: Mapping[str, Mapping[str, Interval]]
    counts: Counts
    session_f1: tuple[float, ...]
    intents: IntentScores | None = None
    empties: EmptyScores | None = None
    empties_curve: tuple[CurveRow, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def f1(self) -> Interval:
        """Matched F1, which is what RouteDK optimizes."""
        return self.results["matched"]["f1"]

    @property
    def leaks(self) -> bool:
        """Whether its own settings are flagged as leaking the answer."""
        return bool(self.config.get("leaks", False))

    def to_dict(self) -> dict[str, Any]:
        """Results, counts and any other scores, as in a results file."""
        kept = ("results", "counts", "intents", "empties", "empties_curve")
        return {name: value for name, value in asdict(self).items() if name in kept and value}


def score_system(
    name: str,
    answers: Iterable[Answer],
    sessions: Sequence[Session],
    *,
    seed: int,
    resamples: int,
    empty: Sequence[Session] = (),
    encoder: TitleEncoder | None = None,
    config: Mapping[str, Any] | None = None,
) -> System:
    """Score one system: each session first, then the mean with a 95% bootstrap interval.

    The same sessions, seed and resamples make systems comparable.

    Args:
        name: Name of the system.
        answers: Its predictions; a session without an answer counts as unanswered, and answers
            for other sessions are ignored.
        sessions: Sessions to score, at least one, each with gold bundles.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
        empty: Additional sessions to score, annotated as holding no bundle.
        encoder: Encoder for the similarity of intents; None leaves intents unscored.
        config: Settings of the system, for the record.
    """
    means = partial(bootstrap, seed=seed, resamples=resamples)
    annotated = [*sessions, *empty]
    every = answers_of(annotated, answers)
    given = every[: len(sessions)]
    pairs = [(one.gold, answer.items) for one, answer in zip(sessions, given, strict=True)]
    results = {}
    for protocol, metrics in METRICS.items():
        rows = [list(PROTOCOLS[protocol](*pair).values()) for pair in pairs]
        results[protocol] = dict(zip(metrics, means(rows), strict=True))
    return System(
        name,
        results,
        Counts(
            sessions=len(sessions),
            answered=sum(bool(answer.bundles) for answer in given),
            dropped=sum(len(answer.dropped) for answer in given),
            bundles=sum(len(answer.bundles) for answer in given),
            gold_bundles=sum(len(session.gold) for session in sessions),
            empty_sessions=len(empty),
        ),
        session_f1=tuple(matched_f1(*pair) for pair in pairs),
        intents=None if encoder is None else score_intents(sessions, given, encoder, means),
        empties=score_empties(annotated, every, means),
        empties_curve=confidence_curve(annotated, every),
        config=config or {},
    )
