"""Sessions in which nothing belongs together: whether an answer says so, and at what cost."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from routedk.eval.bootstrap import Interval, Means
from routedk.eval.protocols import UNCOUNTED, ItemSets, Score, matched_f1
from routedk.types import Answer, Session

BundlesAt: TypeAlias = Callable[[Session, float], ItemSets | None]
"""The bundles of a session at a threshold; None if there is no answer."""

_CONFIDENCES = tuple(step / 20 for step in range(21))


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveRow:
    """What a system does at one threshold.

    Args:
        threshold: Where clusters are cut, or the lowest confidence of the bundles that are kept.
        left_empty: Share of the sessions without a gold bundle that are left empty.
        f1: Mean matched F1 over the sessions with gold bundles.
    """

    threshold: float
    left_empty: float
    f1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptyScores:
    """How a system does on sessions whose gold is "no bundle".

    Args:
        left_empty: Share of the sessions without a gold bundle that are left empty.
        f1_all: Matched F1 over all annotated sessions, with or without gold bundles.
    """

    left_empty: Interval
    f1_all: Interval


def answers_of(sessions: Iterable[Session], answers: Iterable[Answer]) -> list[Answer]:
    """The answer for each session; if there is none, an answer whose error says so."""
    by_id = {answer.session_id: answer for answer in answers}
    return [by_id.get(one.id) or Answer(one.id, error="no answer") for one in sessions]


def stated_bundles(answer: Answer, confidence: float = 0.0) -> list[frozenset[str]] | None:
    """The bundles of at least this confidence, unknown counting as 0; None without an answer.

    An answer with an error counts as none: only one that could be read can state that nothing
    belongs together.
    """
    if answer.error:
        return None
    return [bundle.items for bundle in answer.bundles if (bundle.confidence or 0.0) >= confidence]


def stated_f1(session: Session, answer: Answer) -> float:
    """Matched F1 of an answer to an annotated session: 0 without an answer, whatever the gold."""
    stated = stated_bundles(answer)
    return 0.0 if stated is None else matched_f1(session.gold, stated)


def score_empties(
    sessions: Sequence[Session], answers: Sequence[Answer], means: Means
) -> EmptyScores | None:
    """Score the answers to annotated sessions; None if all of them have gold bundles.

    Args:
        sessions: Annotated sessions, with or without gold bundles.
        answers: One for each session, in their order.
        means: Gives the means and their intervals.
    """
    if all(session.gold for session in sessions):
        return None
    rows = []
    for session, answer in zip(sessions, answers, strict=True):
        f1 = Score(stated_f1(session, answer))
        rows.append((UNCOUNTED if session.gold else f1, f1))
    left_empty, f1_all = means(rows)
    return EmptyScores(left_empty=left_empty, f1_all=f1_all)


def empties_curve(
    sessions: Sequence[Session], bundles_at: BundlesAt, thresholds: Iterable[float]
) -> tuple[CurveRow, ...]:
    """Compute the share left empty against matched F1 elsewhere, one row per threshold.

    Args:
        sessions: Annotated sessions.
        bundles_at: Gives the bundles of a session at a threshold, possibly none.
        thresholds: The thresholds.

    Returns:
        No rows unless there are sessions with gold bundles and sessions without.
    """
    gold = [session for session in sessions if session.gold]
    empty = [session for session in sessions if not session.gold]
    if not gold or not empty:
        return ()
    return tuple(
        CurveRow(
            threshold=threshold,
            left_empty=fmean(bundles_at(session, threshold) == [] for session in empty),
            f1=fmean(matched_f1(one.gold, bundles_at(one, threshold) or ()) for one in gold),
        )
        for threshold in thresholds
    )


def confidence_curve(
    sessions: Sequence[Session], answers: Sequence[Answer]
) -> tuple[CurveRow, ...]:
    """Compute the curve of a system that drops bundles below a confidence.

    Args:
        sessions: Annotated sessions.
        answers: One for each session, in their order.

    Returns:
        No rows if no bundle has a confidence.
    """
    if all(bundle.confidence is None for answer in answers for bundle in answer.bundles):
        return ()
    given = {answer.session_id: answer for answer in answers}
    return empties_curve(
        sessions, lambda one, least: stated_bundles(given[one.id], least), _CONFIDENCES
    )
