"""Pictures of a study, drawn by Optuna's functions for matplotlib."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning

from routedk.files import atomic_write
from routedk.optimizers.search.importance import Goal
from routedk.optimizers.search.reading import complete_trials

NAMES: Mapping[Goal, str] = {"f1": "matched F1 on validation", "tokens": "tokens per session"}


def draw_study(
    study: optuna.Study,
    flat: Mapping[Goal, optuna.Study],
    shares: Mapping[Goal, Mapping[str, float] | None],
    folder: Path,
) -> dict[str, Path]:
    """Draw history, front, importances and parallel coordinates as PNGs.

    Args:
        study: As it was run.
        flat: `flat_study` of each objective.
        shares: `importances` of each objective; there is no picture of None.
        folder: Where they go.

    Returns:
        What there is to draw, by name: ``history``, ``front`` (two objectives),
        ``importances-GOAL`` and ``parallel``.
    """
    if not complete_trials(study):
        return {}
    from optuna.visualization import matplotlib as plots

    first = flat["f1"]
    wanted: dict[str, Callable[[], Any]] = {
        "history": lambda: plots.plot_optimization_history(first, target_name=NAMES["f1"]),
    }
    if len(study.directions) == 2:
        names = [NAMES["f1"], NAMES["tokens"]]
        wanted["front"] = lambda: plots.plot_pareto_front(study, target_names=names)
    for goal, found in shares.items():
        if found is not None:
            wanted[f"importances-{goal}"] = partial(_bars, found, NAMES[goal])
    if varied := _varied(first):
        wanted["parallel"] = lambda: _parallel(first, varied)
    return {name: _draw(make, folder / f"{name}.png") for name, make in wanted.items()}


def _varied(flat: optuna.Study) -> list[str]:
    """The dimensions in which complete trials differ; an axis of one value shows nothing."""
    trials = complete_trials(flat)
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    return [name for name in names if len({trial.params.get(name) for trial in trials}) > 1]


def _parallel(flat: optuna.Study, varied: list[str]) -> Any:
    """As Optuna draws them, in colours that stand out: its scale begins at white."""
    from matplotlib.colors import ListedColormap
    from matplotlib.pyplot import get_cmap
    from optuna.visualization.matplotlib import plot_parallel_coordinate

    axes = plot_parallel_coordinate(flat, varied, target_name=NAMES["f1"])
    dark = ListedColormap(get_cmap("viridis_r")(np.linspace(0.4, 1.0, 256)))
    for lines in axes.collections:
        lines.set_cmap(dark)
    return axes


def _bars(shares: Mapping[str, float], goal: str) -> Any:
    """As Optuna draws them, of shares that are there already."""
    from matplotlib import pyplot as plt

    plt.style.use("ggplot")
    _, axes = plt.subplots()
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names])
    axes.set(title=f"Importances for {goal}", xlabel="share")
    return axes


def _draw(make: Callable[[], Any], path: Path) -> Path:
    with _quiet_pyplot() as plt:
        figure = make().figure
        try:
            wide = path.stem == "parallel"
            figure.set_size_inches(*((20, 6) if wide else (7, 4.5)))
            with atomic_write(path, binary=True) as file:
                figure.savefig(file, format="png", dpi=110, bbox_inches="tight")
        finally:
            plt.close(figure)
    return path


@contextmanager
def _quiet_pyplot() -> Iterator[Any]:
    """Pyplot that shows no window and whose style is the caller's again afterwards."""
    import matplotlib
    from matplotlib import pyplot as plt

    with matplotlib.rc_context(), plt.ioff(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield plt
