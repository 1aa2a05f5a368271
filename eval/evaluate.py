"""`evaluate`: scores answers and baselines against gold, and against a teacher's answers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from routedk.checks import check_least
from routedk.errors import DataError, SettingError
from routedk.eval.agreement import Agreement, agreement
from routedk.eval.confidence import cascade, reliability
from routedk.eval.empties import answers_of
from routedk.eval.report import Report
from routedk.eval.scoring import System, score_system
from routedk.eval.suite import count_untitled, score_baselines
from routedk.similarity.encoders import TitleEncoder, default_encoder
from routedk.types import Answer, Session


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of `evaluate`.

    Args:
        baselines: Also score the baselines; the clustering ones only bundle items with a title.
        intents: Compare any intents with gold ones, using a sentence encoder.
        resamples: Bootstrap resamples behind each 95% interval.
        seed: Seed of the resamples.

    Raises:
        SettingError: A value is not allowed.
    """

    baselines: bool = False
    intents: bool = True
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        check_least(self, resamples=1, seed=0)


def evaluate(
    sessions: Iterable[Session],
    answers: Iterable[Answer] | None = None,
    config: EvaluateConfig | None = None,
    *,
    training: Sequence[Session] = (),
    validation: Sequence[Session] = (),
    catalogue: Sequence[Session] | None = None,
    encoder: TitleEncoder | None = None,
    reference: Iterable[Answer] | None = None,
) -> Report:
    """Score bundles against gold bundles, with 95% intervals over sessions.

    Sessions annotated as holding no bundle are scored separately, and those that are not annotated
    only against the reference. Sessions without an answer count as unanswered.

    Args:
        sessions: Sessions to score.
        answers: Predictions for them; None scores only the baselines.
        config: Settings; None for the defaults.
        training: Sessions that `pair-clusters` learns from; those that are scored are left out.
            If no validation session has gold, thresholds are chosen on them instead.
        validation: Sessions on which the baselines' thresholds are chosen.
        catalogue: All sessions of the data set, for the words of `title-clusters`; None for
            those given here.
        encoder: Encoder of titles and intents; None for the packaged MiniLM.
        reference: A teacher's answers to some of the sessions, made without their gold. Scores
            against them are called agreement; if sessions have gold, they are also scored as a
            system, `reference`, and in the cascade replace answers of low confidence.

    Returns:
        A report: ``str(report)`` is its table, ``report.to_dict()`` the results file.

    Raises:
        DataError: No session has a gold bundle, and there are no predictions with a reference that
            answers some of them.
        SettingError: There is nothing to score, no answer is for one of the sessions, or no
            threshold can be chosen.

    Example:
        >>> from routedk import Answer, EvaluateConfig, evaluate, load_sessions
        >>> sessions = load_sessions("demo")
        >>> gold = [Answer(session.id, session.bundles) for session in sessions]
        >>> evaluate(sessions, gold, EvaluateConfig(intents=False)).system.f1.value
        1.0
    """
    config = config or EvaluateConfig()
    given = list(sessions)
    if answers is None and not config.baselines:
        raise SettingError("nothing to score: give --predictions FILE, or --baselines, or both")
    scored = [session for session in given if session.gold]
    empty = [session for session in given if session.bundles == ()]
    if not scored and (reference is None or answers is None):
        raise DataError(
            f"none of the {len(given)} sessions to evaluate has a gold bundle",
            hint="choose another --split, data with gold bundles, or predictions and a --reference",
        )
    answers = _of_sessions("prediction", answers, given)
    reference = _of_sessions("reference", reference, given)
    draws: dict[str, Any] = {"seed": config.seed, "resamples": config.resamples}
    agreed: Agreement | None = None
    ids = {session.id for session in given}
    stated = [one for one in reference or () if not one.error and one.session_id in ids]
    if answers and stated:
        agreed = agreement(given, answers, stated, **draws)
    elif not scored:
        what = "the predictions are empty" if stated else "the reference answers none of them"
        raise DataError(
            f"none of the {len(given)} sessions to evaluate has a gold bundle, and {what}",
            hint="give predictions and recorded answers of the same sessions, or data with gold",
        )
    settings = asdict(config) | {
        "items_without_title": {"gold": count_untitled(scored), "empty": count_untitled(empty)}
    }
    if not scored:
        return Report(config=settings, agreement=agreed)
    # The packaged model is loaded with the first text, so never if there is none.
    encoder = encoder or default_encoder()
    score: Callable[..., System] = partial(score_system, sessions=scored, empty=empty, **draws)
    named = partial(score, encoder=encoder if config.intents else None)
    system = None if answers is None else named("predictions", answers)
    baselines: tuple[System, ...] = ()
    if reference is not None:
        # If it was recorded only for sessions with gold, it says nothing about the others.
        seen = {answer.session_id for answer in reference} & {session.id for session in empty}
        baselines = (named("reference", reference, empty=empty if seen else ()),)
    if config.baselines:
        every = [*given, *training, *validation] if catalogue is None else catalogue
        baselines += score_baselines(score, scored, empty, training, validation, every, encoder)
    annotated = [*scored, *empty]
    return Report(
        config=settings,
        system=system,
        baselines=baselines,
        agreement=agreed,
        reliability=reliability(annotated, answers_of(annotated, answers or ())),
        cascade=cascade(scored, answers or (), reference, **draws) if reference else (),
    )


def _of_sessions(
    name: str, answers: Iterable[Answer] | None, sessions: Sequence[Session]
) -> list[Answer] | None:
    """The answers; if there are any, at least one must be for one of these sessions."""
    if answers is None:
        return None
    answers, ids = list(answers), {session.id for session in sessions}
    if answers and not any(answer.session_id in ids for answer in answers):
        raise SettingError(
            f"no {name} is of a session of this split: use the same --split-file and --seed"
        )
    return answers
