"""`evaluate`: answers, and the baselines beside them, against gold bundles."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from routedk.data.policies import has_title, require_titles
from routedk.errors import SettingError
from routedk.eval.report import Report
from routedk.eval.scoring import Scorer, System
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
        >>> from routedk import Answer, EvaluateConfig, evaluate, load_sessions
        >>> sessions = load_sessions("demo")
        >>> gold = [Answer(session.id, session.bundles) for session in sessions]
        >>> evaluate(sessions, gold, EvaluateConfig(intents=False)).system.f1.value
        1.0
    """
    config = config or EvaluateConfig()
    given, predicted = list(sessions), None if answers is None else list(answers)
    if predicted is None and not config.baselines:
        raise SettingError("nothing to score: give --predictions FILE, or --baselines, or both")
    with_intents = config.intents and any(
        bundle.intent.strip() for answer in predicted or () for bundle in answer.bundles
    )
    if encoder is None and (with_intents or config.baselines):
        encoder = default_encoder()
    chance = {"seed": config.seed, "resamples": config.resamples}
    scorer = Scorer(sessions=given, encoder=encoder if with_intents else None, **chance)
    system = None if predicted is None else scorer.score("predictions", predicted)
    baselines: tuple[System, ...] = ()
    if config.baselines and encoder is not None:
        every = [*given, *training, *validation] if catalogue is None else catalogue
        data = _baseline_data(scorer.scored, training, validation, every, encoder)
        baselines = score_baselines(replace(scorer, encoder=None), data)
    return Report(config=asdict(config), system=system, baselines=baselines)


def _baseline_data(
    scored: Sequence[Session],
    training: Sequence[Session],
    validation: Sequence[Session],
    catalogue: Sequence[Session],
    encoder: TitleEncoder,
) -> BaselineData:
    """What the baselines may learn from: nothing of the sessions that are scored."""
    ids = {session.id for session in scored}
    unseen = [session for session in training if session.gold and session.id not in ids]
    known = [session for session in validation if session.gold]
    # A small data set may have no validation session with gold; training sessions are as unseen.
    name, tuning, learnable = ("val", known, unseen) if known else ("train", unseen, [])
    require_titles([*scored, *tuning])
    return BaselineData(
        catalogue=catalogue,
        validation=tuning,
        validation_name=name,
        encoder=encoder,
        training=[s for s in learnable if all(has_title(item) for item in s.items)],
    )
