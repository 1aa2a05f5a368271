"""Which dimensions of the space decided, by PED-ANOVA, and a study in which that can be seen."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from routedk.optimizers.search.dimensions import dimension_of
from routedk.optimizers.search.reading import complete_trials
from routedk.optimizers.search.settings import shown_value

Goal = Literal["f1", "tokens"]
DIRECTIONS: Mapping[Goal, Literal["maximize", "minimize"]] = {
    "f1": "maximize",
    "tokens": "minimize",
}

LEAST_TRIALS = 10
"""Fewer say nothing: PED-ANOVA compares the best ones with all."""
_BEST = 5


def flat_study(trials: Sequence[FrozenTrial], space: Mapping[str, Any], goal: Goal) -> optuna.Study:
    """The same trials with one objective and one parameter for each dimension of the space.

    In the study itself a dimension whose choices depend on others has several parameters. A trial
    has a parameter here only where there was a choice.

    Args:
        trials: All of a study, by number; numbers stay what they are.
        space: The study's, as JSON.
        goal: The one objective.
    """
    study = optuna.create_study(
        direction=DIRECTIONS[goal], sampler=optuna.samplers.RandomSampler(seed=0)
    )
    chosen = [_chosen(trial) for trial in trials]
    kinds = {
        name: _distribution(space.get(name), [mine[name] for mine in chosen if name in mine])
        for name in dict.fromkeys(name for mine in chosen for name in mine)
    }
    for trial, mine in zip(trials, chosen, strict=True):
        complete = trial.state == TrialState.COMPLETE
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if complete else TrialState.FAIL,
                value=trial.user_attrs[goal] if complete else None,
                params=mine if complete else {},
                distributions={name: kinds[name] for name in mine} if complete else {},
            )
        )
    return study


def importances(study: optuna.Study) -> dict[str, float] | None:
    """The share of each dimension in what tells the best trials from all.

    Args:
        study: One of `flat_study`.

    Returns:
        Shares that sum to one, the largest first; None where there are too few trials, or nothing
        tells the best from the others.

    Source: PED-ANOVA, Watanabe et al., 2023 (arXiv 2304.10255); for dimensions that are not always
    there, its conditional form (arXiv 2601.20800).
    """
    complete = complete_trials(study)
    if len(complete) < LEAST_TRIALS or not any(trial.params for trial in complete):
        return None
    evaluator = PedAnovaImportanceEvaluator(target_quantile=best_share(len(complete)))
    with warnings.catch_warnings():
        # That few trials tell little is said in words where the shares are shown.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", ExperimentalWarning)
        found = get_param_importances(study, evaluator=evaluator, normalize=False)
    whole = sum(found.values())
    if whole <= 0:
        return None
    return {name: value / whole for name, value in found.items()}


def best_share(count: int) -> float:
    """The share of trials that count as the best: a tenth, but five trials at least."""
    return max(0.1, _BEST / count)


def _chosen(trial: FrozenTrial) -> dict[str, Any]:
    """What the trial was asked for, by dimension."""
    settings = trial.user_attrs.get("settings")
    if settings is None:
        return {}
    asked = dict.fromkeys(dimension_of(name) for name in trial.params)
    return {name: shown_value(settings[name]) for name in asked if name in settings}


def _distribution(dimension: Any, values: Sequence[Any]) -> BaseDistribution:
    if isinstance(dimension, Mapping):
        low, high, log = dimension["low"], dimension["high"], dimension["log"]
        if all(isinstance(value, int) for value in (low, high)):
            return IntDistribution(int(low), int(high), log=log)
        return FloatDistribution(low, high, log=log)
    listed = [value for value in dimension or () if value in values]
    others = sorted({value for value in values if value not in listed})
    return CategoricalDistribution((*listed, *others))
