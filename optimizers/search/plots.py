"""The plots of a study, by `optuna.visualization`, as HTML that loads nothing."""

import warnings
from typing import Any

import optuna
from optuna import visualization
from optuna.trial import FrozenTrial

_F1, _TOKENS = "matched F1 on validation", "tokens per session"


def plot_study(study: optuna.Study) -> dict[str, str]:
    """Draw the plots as HTML, by their titles; plotly itself is in the first one.

    Args:
        study: As `read_study` gives it, with a complete trial.
    """
    figures: dict[str, Any] = {}
    with warnings.catch_warnings():
        # That few trials tell little is said in the title.
        warnings.simplefilter("ignore")
        figures["History"] = visualization.plot_optimization_history(
            study, target=_f1, target_name=_F1
        )
        if len(study.directions) == 2:
            names = [_F1, _TOKENS]
            figures["Pareto front"] = visualization.plot_pareto_front(study, target_names=names)
        # PED-ANOVA takes low values for the better ones.
        figures["Importances (PED-ANOVA; of few trials they are rough)"] = (
            visualization.plot_param_importances(
                study, target=lambda trial: -_f1(trial), target_name=_F1
            )
        )
        figures["Slices"] = visualization.plot_slice(study, target=_f1, target_name=_F1)
    return {
        title: figure.to_html(full_html=False, include_plotlyjs=place == 0)
        for place, (title, figure) in enumerate(figures.items())
    }


def _f1(trial: FrozenTrial) -> float:
    return float(trial.values[0])
