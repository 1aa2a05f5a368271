"""The best configurations on the test split, which the study never looked at."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from routedk.errors import DataError
from routedk.eval.bootstrap import Interval, bootstrap
from routedk.eval.predictions import make_answer
from routedk.eval.scoring import Scorer, System
from routedk.eval.suite import BASELINES as ALL_BASELINES
from routedk.eval.suite import BaselineData, baseline_answer
from routedk.optimizers.search.objective import TrialPipeline
from routedk.optimizers.search.settings import FORMATS, TrialSettings
from routedk.types import Answer, Session

logger = logging.getLogger(__name__)

BASELINES = ("embedding-clusters", "pair-clusters")
DEFAULT = "default configuration"


@dataclass(frozen=True, kw_only=True)
class Tested:
    """What one system reached on the test split.

    Args:
        name: ``trial 7``, `DEFAULT` or a baseline's.
        trial: Number of its trial; None where it is none.
        settings: Of a trial's kind; None for a baseline.
        result: What it reached, with intervals.
        scores: Matched F1 of each scored session, in order.
        tokens: Read and written per session; None for a baseline.
        ahead: Mean, over sessions, of the chosen configuration's matched F1 less this one's, with
            its interval; None for the chosen one.
    """

    name: str
    trial: int | None = None
    settings: TrialSettings | None = None
    result: System
    scores: tuple[float, ...]
    tokens: float | None = None
    ahead: Interval | None = None

    @property
    def f1(self) -> Interval:
        """Matched F1 with its interval."""
        return self.result.f1

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "name": self.name,
            "trial": self.trial,
            "settings": None if self.settings is None else self.settings.to_dict(),
            **self.result.to_dict(),
            "tokens": self.tokens,
            "chosen_minus_this": None if self.ahead is None else self.ahead.to_dict(),
        }


@cache
def default_settings() -> TrialSettings:
    """What `routedk distill` and `routedk train` do where nothing else is asked for."""
    from routedk.adapters.experts.routing_file import ExpertSettings
    from routedk.adapters.train import TrainConfig

    plan, shape = TrainConfig(), ExpertSettings()
    experts: Any = shape.experts
    return TrialSettings(
        formats=FORMATS,
        utilization="SFT",
        experts=experts,
        fusion="softmax",
        r=shape.r,
        learning_rate=plan.learning_rate,
        epochs=plan.epochs,
    )


def retest(
    best: Sequence[FrozenTrial],
    pipeline: TrialPipeline,
    sessions: Sequence[Session],
    *,
    seed: int,
    baselines: BaselineData | None = None,
    default: TrialSettings | None = None,
) -> list[Tested]:
    """Score configurations, the default one and baselines on the same test sessions.

    Args:
        best: Trials of a study, the chosen one first.
        pipeline: Makes what of them is not in the store, and answers.
        sessions: Test sessions; those without gold are passed over.
        seed: Of the bootstrap; all systems are compared on the same draws.
        baselines: What the baselines learn from; None leaves them out.
        default: A configuration to stand beside them as the default one, see `default_settings`.

    Raises:
        DataError: No test session has gold.
    """
    scored = [session for session in sessions if session.gold]
    if not scored:
        raise DataError(
            f"none of the {len(sessions)} test sessions has gold bundles",
            hint="leave --data out for a report without a test",
        )
    found: list[Tested] = []
    for system in _systems(best, pipeline, scored, baselines, default):
        logger.info("on test: %s", system["name"])
        found.append(_tested(scored, seed, found, **system))
    return found


def _systems(
    best: Sequence[FrozenTrial],
    pipeline: TrialPipeline,
    scored: Sequence[Session],
    baselines: BaselineData | None,
    default: TrialSettings | None,
) -> Iterator[dict[str, Any]]:
    wanted: list[tuple[str, int | None, TrialSettings]] = [
        (f"trial {t.number}", t.number, TrialSettings(**t.user_attrs["settings"])) for t in best
    ]
    if default is not None:
        wanted.append((DEFAULT, None, default))
    for name, trial, settings in wanted:
        answers, tokens = _answers(pipeline, settings, scored)
        yield {
            "name": name,
            "trial": trial,
            "settings": settings,
            "answers": answers,
            "tokens": tokens,
        }
    if baselines is None:
        return
    for name in BASELINES:
        if name == "pair-clusters" and not any(s.gold for s in baselines.training):
            continue
        baseline = ALL_BASELINES[name](baselines)
        yield {"name": name, "answers": [baseline_answer(baseline, one) for one in scored]}


def _answers(
    pipeline: TrialPipeline, settings: TrialSettings, sessions: Sequence[Session]
) -> tuple[list[Answer], float]:
    """The answers by session, and the mean of their tokens."""
    answers = []
    spent = 0
    for session, record, tokens in pipeline.answers(pipeline.prepare(settings), sessions):
        bundles = record["bundles"]
        answers.append(make_answer(session.id, [(b["items"], b["intent"]) for b in bundles]))
        spent += tokens
    return answers, spent / len(sessions)


def _tested(
    scored: Sequence[Session],
    seed: int,
    before: Sequence[Tested],
    *,
    answers: Sequence[Answer],
    **known: Any,
) -> Tested:
    result = Scorer(sessions=scored, seed=seed, resamples=2000).score(known["name"], answers)
    scores = result.session_f1
    ahead = None
    if before and before[0].trial is not None:
        differences_N1 = np.subtract(before[0].scores, scores)[:, None]
        (ahead,) = bootstrap(differences_N1, np.ones_like(differences_N1), seed=seed)
    return Tested(result=result, scores=scores, ahead=ahead, **known)
