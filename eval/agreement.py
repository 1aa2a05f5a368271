"""Agreement with a teacher's recorded answers, which are a reference, not the truth."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import get_args

from routedk.eval.bootstrap import Interval, Means, bootstrap
from routedk.eval.confidence import Reliability, reliability
from routedk.eval.empties import answers_of, stated_f1
from routedk.eval.protocols import UNCOUNTED, Score, matched_pairs
from routedk.types import Answer, Kind, Session

KINDS: tuple[Kind, ...] = get_args(Kind)
SAME_BUNDLE = 0.5
"""Lowest Jaccard at which two matched bundles are similar enough to compare their kinds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindAgreement:
    """Whether bundles have the kind that the reference gives them.

    Args:
        agreeing: Share of the pairs whose kinds are equal.
        majority: Share of the pairs with the reference's most frequent kind: what always stating
            that kind would reach.
        majority_kind: That kind.
        pairs: Bundles matched one to one with a reference bundle at a Jaccard of at least .5, both
            with a kind.
        confusion: Number of pairs by the reference's kind, then by the stated kind.
    """

    agreeing: Interval
    majority: float
    majority_kind: Kind
    pairs: int
    confusion: Mapping[Kind, Mapping[Kind, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement of a system with the reference.

    Args:
        matched_f1: Matched F1 with the reference's bundles in place of gold.
        sessions: Sessions that the reference has answered.
        answered: Those of them that the system has answered, with or without bundles.
        kinds: Agreement of the kinds of matched bundles; None if no matched pair has kinds.
        reliability: Confidence against the reference's bundles; None if none is stated.
    """

    matched_f1: Interval
    sessions: int
    answered: int
    kinds: KindAgreement | None
    reliability: Reliability | None


def agreement(
    sessions: Sequence[Session],
    answers: Sequence[Answer],
    reference: Sequence[Answer],
    *,
    seed: int,
    resamples: int = 2000,
) -> Agreement:
    """Compare answers with a reference's, on the sessions that the reference has answered.

    Args:
        sessions: Sessions; their gold bundles are ignored.
        answers: The system's answers.
        reference: The teacher's answers, at least one of them to one of the sessions.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.
    """
    stated = {answer.session_id: answer for answer in reference if not answer.error}
    known = [replace(one, bundles=stated[one.id].bundles) for one in sessions if one.id in stated]
    given = answers_of(known, answers)
    means = partial(bootstrap, seed=seed, resamples=resamples)
    return Agreement(
        matched_f1=means([(Score(stated_f1(*pair)),) for pair in zip(known, given, strict=True)])[
            0
        ],
        sessions=len(known),
        answered=sum(not answer.error for answer in given),
        kinds=_kinds(known, given, means),
        reliability=reliability(known, given),
    )


def _kinds(
    sessions: Sequence[Session], answers: Sequence[Answer], means: Means
) -> KindAgreement | None:
    per_session = [list(_kind_pairs(*pair)) for pair in zip(sessions, answers, strict=True)]
    counts = Counter(chain.from_iterable(per_session))
    pairs = counts.total()
    if not pairs:
        return None
    rows = [
        (Score(sum(a == b for a, b in some) / len(some), len(some)) if some else UNCOUNTED,)
        for some in per_session
    ]
    confusion = {kind: {other: counts[kind, other] for other in KINDS} for kind in KINDS}
    totals = {kind: sum(confusion[kind].values()) for kind in KINDS}
    most = max(KINDS, key=totals.__getitem__)
    return KindAgreement(
        agreeing=means(rows)[0],
        majority=totals[most] / pairs,
        majority_kind=most,
        pairs=pairs,
        confusion=confusion,
    )


def _kind_pairs(session: Session, answer: Answer) -> list[tuple[Kind, Kind]]:
    """The reference's kind and the stated one, for bundles that are similar enough."""
    bundles = session.bundles or ()
    return [
        (kind, stated)
        for left, right, jaccard in matched_pairs(session.gold, answer.items)
        if jaccard >= SAME_BUNDLE
        and (kind := bundles[left].kind) is not None
        and (stated := answer.bundles[right].kind) is not None
    ]
