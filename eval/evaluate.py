"""`evaluate`: scores answers and baselines against gold bundles."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from routedk.checks import check_least
from routedk.errors import DataError, SettingError
from routedk.eval.report import Report
from routedk.eval.scoring import System, score_system
from routedk.eval.suite import score_baselines
from routedk.similarity.encoders import TitleEncoder, default_encoder
from routedk.types import Answer, Session


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of `evaluate`.

    Args:
        baselines: Score the baselines, too; needs titles.
        intents: Compare intents with gold ones by a sentence encoder, where there are any.
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
) -> Report:
    """Score bundles against gold bundles, with 95% intervals over sessions.

    Sessions without gold bundles are left out; sessions without an answer count as unanswered.

    Args:
        sessions: Sessions to score.
        answers: What was predicted for them; None scores the baselines alone.
        config: Settings; None for the defaults.
        training: Sessions that `pair-clusters` learns from; those that are scored are left out.
            They also choose the thresholds where no validation session has gold.
        validation: Sessions on which the baselines' thresholds are chosen.
        catalogue: All sessions of the data set, for the words of `title-clusters`; None for
            those given here.
        encoder: Encoder of titles and intents; None for the packaged MiniLM.

    Returns:
        A report: ``str(report)`` is its table, ``report.to_dict()`` the results file.

    Raises:
        DataError: No session has a gold bundle, or baselines meet items without a title.
        SettingError: There is nothing to score, no answer is of a session that is scored, or no
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
    if not scored:
        raise DataError(
            f"none of the {len(given)} sessions to evaluate has a gold bundle",
            hint="choose another --split, or data with gold bundles",
        )
    # The packaged model is loaded with the first text: where there is none, it is not.
    encoder = encoder or default_encoder()
    score = partial(score_system, sessions=scored, seed=config.seed, resamples=config.resamples)
    system = None
    if answers is not None:
        answers = list(answers)
        if answers and not {one.session_id for one in answers} & {one.id for one in scored}:
            raise SettingError(
                "no prediction is of a session of this split: use the same --split-file and --seed"
            )
        system = score("predictions", answers, encoder=encoder if config.intents else None)
    baselines: tuple[System, ...] = ()
    if config.baselines:
        baselines = score_baselines(
            score,
            scored,
            training=training,
            validation=validation,
            catalogue=[*given, *training, *validation] if catalogue is None else catalogue,
            encoder=encoder,
        )
    return Report(config=asdict(config), system=system, baselines=baselines)
