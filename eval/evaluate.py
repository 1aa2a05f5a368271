"""`evaluate`: answers, and the baselines beside them, against gold bundles."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from routedk.data.policies import has_title, require_titles
from routedk.errors import SettingError
from routedk.eval.report import Report
from routedk.eval.scoring import System, score_answers
from routedk.eval.suite import BaselineData, score_baselines
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
        if self.resamples < 1:
            raise SettingError(f"resamples={self.resamples}: it must be at least 1")
        if self.seed < 0:
            raise SettingError(f"seed={self.seed}: it must be at least 0")


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
        SettingError: There is nothing to score, or no threshold can be chosen.

    Example:
        >>> from routedk import Answer, evaluate, load_sessions
        >>> sessions = load_sessions("demo")
        >>> gold = [Answer(session.id, session.bundles) for session in sessions]
        >>> evaluate(sessions, gold).system.f1.value
        1.0
    """
    config = config or EvaluateConfig()
    given = list(sessions)
    if answers is None and not config.baselines:
        raise SettingError("nothing to score: give --predictions FILE, or --baselines, or both")
    system = None if answers is None else _score(given, list(answers), config, encoder)
    baselines: tuple[System, ...] = ()
    if config.baselines:
        every = [*given, *training, *validation] if catalogue is None else catalogue
        data = _baseline_data(given, training, validation, every, encoder or default_encoder())
        baselines = score_baselines(given, data, seed=config.seed, resamples=config.resamples)
    return Report(config=asdict(config), system=system, baselines=baselines)


def _score(
    sessions: Sequence[Session],
    answers: Sequence[Answer],
    config: EvaluateConfig,
    encoder: TitleEncoder | None,
) -> System:
    """The system under test; an encoder is loaded only where it gives intents."""
    some = any(bundle.intent.strip() for answer in answers for bundle in answer.bundles)
    return score_answers(
        "predictions",
        sessions,
        answers,
        seed=config.seed,
        resamples=config.resamples,
        encoder=(encoder or default_encoder()) if config.intents and some else None,
    )


def _baseline_data(
    sessions: Sequence[Session],
    training: Sequence[Session],
    validation: Sequence[Session],
    catalogue: Sequence[Session],
    encoder: TitleEncoder,
) -> BaselineData:
    """What the baselines may learn from: nothing of the sessions that are scored."""
    scored = {session.id for session in sessions if session.gold}
    unseen = [session for session in training if session.gold and session.id not in scored]
    known = [session for session in validation if session.gold]
    # A small data set may have no validation session with gold; training sessions are as unseen.
    name, tuning, learnable = ("val", known, unseen) if known else ("train", unseen, [])
    require_titles([*(session for session in sessions if session.gold), *tuning])
    return BaselineData(
        catalogue=catalogue,
        validation=tuning,
        validation_name=name,
        encoder=encoder,
        training=[s for s in learnable if all(has_title(item) for item in s.items)],
    )
