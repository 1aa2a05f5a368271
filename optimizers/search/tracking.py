"""Trackers: every trial as a run of MLflow, trackio or Weights & Biases, through these themselves.

A run holds the trial's number and state, its settings and its scores, and nothing else: no path,
no address, nothing of the environment. Where a tracker keeps its runs is set as it always is, e.g.
by ``MLFLOW_TRACKING_URI``.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from routedk.errors import MissingExtraError, SettingError
from routedk.optimizers.search.settings import shown_value

Track = Callable[[optuna.Study, FrozenTrial], None]

_METRICS = ("f1", "tokens", "seconds")


def make_tracker(name: str) -> Track | None:
    """What is called with every trial that ended; None for ``none``.

    Args:
        name: One of ``TRACKERS``, or ``none``.

    Raises:
        SettingError: There is none of this name.
        MissingExtraError: Its library is not installed.
    """
    if name == "none":
        return None
    if name not in TRACKERS:
        raise SettingError(f"report-to {name!r}: allowed are none, {', '.join(TRACKERS)}")
    try:
        import_module(name)
    except ImportError:
        raise MissingExtraError(
            f"--report-to {name}: {name} is not installed: pip install 'routedk[{name}]'"
        ) from None
    return TRACKERS[name]


def run_config(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's settings as a tracker's parameters; sets are written with ``+``."""
    settings = trial.user_attrs.get("settings", {})
    return {name: shown_value(value) for name, value in settings.items() if value is not None}


def run_metrics(trial: FrozenTrial) -> dict[str, float]:
    """A trial's scores as a tracker's metrics."""
    return {name: trial.user_attrs[name] for name in _METRICS if name in trial.user_attrs}


def _state(trial: FrozenTrial) -> dict[str, str]:
    # Not the reason of a failure: it may name a path.
    return {"number": str(trial.number), "state": trial.state.name}


def _mlflow(study: optuna.Study, trial: FrozenTrial) -> None:
    mlflow = import_module("mlflow")
    mlflow.set_experiment(study.study_name)
    with mlflow.start_run(run_name=f"trial-{trial.number}"):
        mlflow.log_params(run_config(trial))
        mlflow.log_metrics(run_metrics(trial))
        mlflow.set_tags(_state(trial))


def _trackio(study: optuna.Study, trial: FrozenTrial) -> None:
    trackio = import_module("trackio")
    config = {**run_config(trial), **_state(trial)}
    trackio.init(
        project=study.study_name,
        name=f"trial-{trial.number}",
        config=config,
        auto_log_cpu=False,
        auto_log_gpu=False,
    )
    trackio.log(run_metrics(trial))
    trackio.finish()


def _wandb(study: optuna.Study, trial: FrozenTrial) -> None:
    wandb = import_module("wandb")
    # Otherwise it sends the command line, in which a storage's password may stand.
    quiet = wandb.Settings(
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        disable_git=True,
        save_code=False,
        console="off",
    )
    config = {**run_config(trial), **_state(trial)}
    name = f"trial-{trial.number}"
    run = wandb.init(project=study.study_name, name=name, config=config, settings=quiet)
    run.log(run_metrics(trial))
    run.finish()


TRACKERS: Mapping[str, Track] = MappingProxyType(
    {"mlflow": _mlflow, "trackio": _trackio, "wandb": _wandb}
)
