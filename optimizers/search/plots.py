"""The plots of a study, by `optuna.visualization`, as HTML that loads nothing."""

import warnings
from typing import Any

import optuna
from optuna import visualization
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import TrialState, create_trial

from routedk.optimizers.search.settings import TrialSettings, shown_values

_F1, _TOKENS = "matched F1 on validation", "tokens per session"
# Importances compare the best quarter of the trials with all; fewer trials say nothing.
_BEST = 0.25
_LEAST = 8


def plot_study(study: optuna.Study) -> dict[str, str]:
    """Each plot that there is data for, as HTML by its title; plotly itself is in the first one.

    Args:
        study: As `read_study` gives it.
    """
    flat = flat_study(study)
    figures: dict[str, Any] = {
        "History": visualization.plot_optimization_history(flat, target_name=_F1)
    }
    if len(study.directions) == 2:
        names = [_F1, _TOKENS]
        figures["Pareto front"] = visualization.plot_pareto_front(study, target_names=names)
    if len(flat.trials) >= _LEAST and flat.trials[0].params:
        evaluator = PedAnovaImportanceEvaluator(target_quantile=_BEST)
        with warnings.catch_warnings():
            # That few trials tell little is said on the page.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", ExperimentalWarning)
            figures["Importances (PED-ANOVA; of few trials they are rough)"] = (
                visualization.plot_param_importances(flat, evaluator, target_name=_F1)
            )
        figures["Parallel coordinates"] = visualization.plot_parallel_coordinate(
            flat, target_name=_F1
        )
    return {
        title: figure.to_html(full_html=False, include_plotlyjs=place == 0)
        for place, (title, figure) in enumerate(figures.items())
    }


def flat_study(study: optuna.Study) -> optuna.Study:
    """The complete trials by F1, with one parameter for each setting in which they differ.

    In the study itself a dimension whose choices depend on others has several parameters, and most
    plots leave out the trials that lack one of them. Here every trial has all; one that did not
    choose has the value ``-``.

    Args:
        study: As `read_study` gives it.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    settings = [shown_values(trial.user_attrs["settings"]) for trial in complete]
    flat = optuna.create_study(study_name=study.study_name, direction="maximize")
    values = {
        name: tuple(dict.fromkeys(one.get(name, "-") for one in settings))
        for name in TrialSettings.model_fields
    }
    kinds = {n: CategoricalDistribution(found) for n, found in values.items() if len(found) > 1}
    for trial, mine in zip(complete, settings, strict=True):
        params = {name: mine.get(name, "-") for name in kinds}
        f1 = trial.user_attrs["f1"]
        flat.add_trial(create_trial(value=f1, params=params, distributions=dict(kinds)))
    return flat
