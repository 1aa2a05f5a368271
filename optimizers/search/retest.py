"""Scores trials, the default and the baselines on the test split, which a search never sees."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from routedk.adapters.train import TrainConfig
from routedk.errors import DataError
from routedk.eval.bootstrap import bootstrap
from routedk.eval.evaluate import EvaluateConfig, evaluate
from routedk.eval.protocols import Score
from routedk.eval.scoring import System
from routedk.optimizers.search.space import TrialSettings
from routedk.optimizers.search.trial import TrialRunner
from routedk.programs.distill import DistillConfig
from routedk.types import Answer, Bundle, Session

logger = logging.getLogger(__name__)
# So many sessions are shown with their answers.
_EXAMPLES = 3


def default_settings() -> TrialSettings:
    """The settings of a trial that `distill` and `train` have by default."""
    training = TrainConfig()
    return TrialSettings(
        utilization="SFT",
        formats=DistillConfig().formats,
        experts=training.expert_names,
        fusion=training.fusion,
        r=training.r,
        learning_rate=training.learning_rate,
        epochs=training.epochs or 6.0,
    )


def retest(
    configurations: Mapping[str, TrialSettings],
    runner: TrialRunner,
    test: Sequence[Session],
    validation: Sequence[Session],
) -> list[dict[str, Any]]:
    """Score configurations and the baselines on the same test sessions.

    Args:
        configurations: Settings by name, the chosen ones first.
        runner: Makes what the store does not hold, and answers.
        test: Test sessions; those without gold are left out.
        validation: All validation sessions: the baselines' thresholds are chosen on them.

    Returns:
        A record for each, ready for JSON: its ``name``, ``settings``, scores as in a results file,
        ``tokens`` per session, and ``chosen_minus_this``: how much the first one's matched F1 is
        above this one's, the mean over sessions with a 95% interval. The first one has ``examples``
        of its answers.

    Raises:
        DataError: No test session has gold.
    """
    scored = [session for session in test if session.gold]
    seed = runner.config.seed
    systems: list[tuple[System, dict[str, Any]]] = []
    for name, settings in configurations.items():
        logger.info("on test: %s", name)
        answers = list(runner.answers(settings, scored))
        tokens = sum(answer.input_tokens + answer.output_tokens for answer in answers)
        (system,) = evaluate(scored, answers, EvaluateConfig(intents=False, seed=seed)).systems
        mine: dict[str, Any] = {"settings": settings.to_dict(), "tokens": tokens / len(scored)}
        if not systems:
            mine["examples"] = list(map(_example, scored[:_EXAMPLES], answers))
        systems.append((system, {"name": name, **mine}))
    config = EvaluateConfig(baselines=True, seed=seed)
    try:
        report = evaluate(scored, None, config, training=runner.train, validation=validation)
        systems += [(system, {"name": system.name}) for system in report.baselines]
    except DataError as error:
        logger.warning("the baselines are left out: %s", error)
    return [
        {**mine, **system.to_dict(), "chosen_minus_this": _difference(systems[0][0], system, seed)}
        for system, mine in systems
    ]


def _example(session: Session, answer: Answer) -> dict[str, Any]:
    """A session in titles, with gold and what the program answers."""

    def readable(bundles: Sequence[Bundle]) -> list[dict[str, Any]]:
        return [
            {"intent": one.intent, "titles": [session.item(item).title for item in one.item_ids]}
            for one in bundles
        ]

    return {
        "session_id": session.id,
        "titles": [item.title for item in session.items],
        "gold": readable(session.bundles or ()),
        "answer": readable(answer.bundles),
        "error": answer.error,
    }


def _difference(chosen: System, other: System, seed: int) -> dict[str, float]:
    pairs = zip(chosen.session_f1, other.session_f1, strict=True)
    (ahead,) = bootstrap([[Score(mine - theirs)] for mine, theirs in pairs], seed=seed)
    return asdict(ahead)
