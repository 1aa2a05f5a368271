"""Trackers: every trial as a run of MLflow or Weights & Biases, by optuna-integration's callbacks.

A run holds the trial's number, state, parameters and values, and nothing else: no path, no address,
nothing from the environment. Where a tracker keeps its runs is set as always, e.g. by
``MLFLOW_TRACKING_URI``.
"""

from importlib import import_module
from typing import Any

from routedk.errors import MissingExtraError
from routedk.optimizers.search.config import SearchConfig
from routedk.optimizers.search.storage import experimental


@experimental()
def trackers(config: SearchConfig) -> list[Any]:
    """The callbacks for ``study.optimize``.

    Args:
        config: Of the search.

    Raises:
        MissingExtraError: The tracker's library is not installed.
    """
    name = config.report_to
    if name == "none":
        return []
    try:
        library = import_module(name)
        callbacks = import_module(f"optuna_integration.{name}")
    except ImportError:
        raise MissingExtraError(
            f"report_to {name!r}: {name} is not installed: pip install 'routedk[{name}]'"
        ) from None
    metrics = ["f1", "tokens"] if config.objective == "both" else ["f1"]
    if name == "mlflow":
        # The reason of a failure may name a path.
        return [callbacks.MLflowCallback(metric_name=metrics, tag_trial_user_attrs=False)]
    # Otherwise it sends the command line, in which a storage's password may stand.
    quiet = library.Settings(
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        disable_git=True,
        save_code=False,
        console="off",
    )
    project = {"project": config.study, "settings": quiet}
    return [callbacks.WeightsAndBiasesCallback(metrics, wandb_kwargs=project, as_multirun=True)]
