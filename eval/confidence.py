"""What a confidence is worth: its calibration, and the cascade that depends on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from routedk.eval.bootstrap import Interval, bootstrap
from routedk.eval.empties import answers_of, stated_f1
from routedk.eval.protocols import Score, matched_pairs
from routedk.types import Answer, Session

_STEPS = 10
CASCADE = tuple(step / _STEPS for step in range(_STEPS + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Bundles of similar confidence.

    Args:
        low: Lowest confidence of the bin.
        high: Upper end of the bin, which is excluded unless it is 1.
        bundles: Number of bundles.
        confidence: Their mean confidence.
        jaccard: Mean Jaccard with the matched bundle, 0 for a bundle without a match.
    """

    low: float
    high: float
    bundles: int
    confidence: float
    jaccard: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Confidence against what it predicts.

    Args:
        bins: Ten bins of equal width, those without a bundle left out.
        calibration_error: Expected calibration error: the mean over bundles of their bin's
            |confidence - jaccard|.
    """

    bins: tuple[Bin, ...]
    calibration_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeRow:
    """What a student and a teacher reach together.

    Args:
        below: Sessions with a lower confidence take the teacher's answer.
        teacher_calls: Share of the sessions that do.
        matched_f1: Matched F1 of the combined answers, against gold.
    """

    below: float
    teacher_calls: float
    matched_f1: Interval


def session_confidence(answer: Answer) -> float | None:
    """The confidence of an answer as a whole: the stated one, else the mean over its bundles.

    Returns:
        None if the answer states none, and it has no bundles or one of them states none.
    """
    if answer.confidence is not None:
        return answer.confidence
    known = [bundle.confidence for bundle in answer.bundles if bundle.confidence is not None]
    return fmean(known) if known and len(known) == len(answer.bundles) else None


def reliability(sessions: Sequence[Session], answers: Sequence[Answer]) -> Reliability | None:
    """Compare the confidence of bundles with how well they match gold.

    Args:
        sessions: Annotated sessions; nothing matches in one without a gold bundle.
        answers: One for each session, in their order; bundles without a confidence are left out.

    Returns:
        None if no bundle has a confidence.

    Source: Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599, equation 3.
    """
    bins: list[list[tuple[float, float]]] = [[] for _ in range(_STEPS)]
    for session, answer in zip(sessions, answers, strict=True):
        jaccards = {p: weight for _, p, weight in matched_pairs(session.gold, answer.items)}
        for place, bundle in enumerate(answer.bundles):
            if (sure := bundle.confidence) is not None:
                found = bins[min(int(sure * _STEPS), _STEPS - 1)]
                found.append((sure, jaccards.get(place, 0.0)))
    rows = tuple(
        Bin(
            low=place / _STEPS,
            high=(place + 1) / _STEPS,
            bundles=len(found),
            confidence=fmean(sure for sure, _ in found),
            jaccard=fmean(jaccard for _, jaccard in found),
        )
        for place, found in enumerate(bins)
        if found
    )
    if not rows:
        return None
    off = sum(row.bundles * abs(row.confidence - row.jaccard) for row in rows)
    return Reliability(bins=rows, calibration_error=off / sum(row.bundles for row in rows))


def cascade(
    sessions: Sequence[Session],
    answers: Sequence[Answer],
    teacher: Sequence[Answer],
    *,
    seed: int,
    resamples: int = 2000,
    thresholds: Sequence[float] = CASCADE,
) -> tuple[CascadeRow, ...]:
    """Leave sessions of low confidence to a teacher, whose recorded answers stand in for calls.

    A session without a confidence, or without an answer, counts as confidence 0. A session that
    the teacher has not answered keeps the student's answer.

    Args:
        sessions: Sessions with gold bundles.
        answers: The student's answers.
        teacher: The teacher's answers.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
        thresholds: Confidences below which the teacher is asked.

    Returns:
        One row per threshold; none if no answer has a confidence.
    """
    own = answers_of(sessions, answers)
    if all(session_confidence(answer) is None for answer in own):
        return ()
    sure = [0.0 if answer.error else session_confidence(answer) or 0.0 for answer in own]
    own_f1 = list(map(stated_f1, sessions, own))
    asked = answers_of(sessions, teacher)
    asked_f1 = list(map(stated_f1, sessions, asked))
    rows, calls = [], []
    for place, answer in enumerate(asked):
        calls.append([not answer.error and sure[place] < below for below in thresholds])
        rows.append([Score(asked_f1[place] if one else own_f1[place]) for one in calls[-1]])
    f1 = bootstrap(rows, seed=seed, resamples=resamples)
    return tuple(
        CascadeRow(below=below, teacher_calls=fmean(called), matched_f1=interval)
        for below, called, interval in zip(thresholds, zip(*calls, strict=True), f1, strict=True)
    )
