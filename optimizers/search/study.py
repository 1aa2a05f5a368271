"""One Optuna study: created, resumed or joined, and run until its budget is used up."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import WilcoxonPruner
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from routedk.errors import SettingError
from routedk.optimizers.search.config import SearchConfig, StudyConfig
from routedk.optimizers.search.objective import Answering, Space, TrialFailure, run_trial
from routedk.optimizers.search.storage import (
    GRACE,
    MAX_RETRIES,
    experimental,
    is_proxy,
    open_storage,
    parse_url,
    storage_errors,
)
from routedk.types import Session

logger = logging.getLogger(__name__)

IDENTITY = "routedk"
"""The study's user attribute that holds what it was made with."""
# No trial is pruned before this many sessions.
_WARMUP = 6
_WAIT = 1.0
# Most characters of two values in a message; a study's whole grid would not help there.
_LONGEST = 300
OnTrial = Callable[[optuna.Study, FrozenTrial], None]
Objective = Callable[[optuna.Trial], float | tuple[float, float]]
SAMPLERS: Mapping[str, Callable[..., BaseSampler]] = {
    "tpe": partial(TPESampler, multivariate=True, group=True, constant_liar=True),
    "nsgaii": partial(NSGAIISampler, population_size=10),
    "gp": GPSampler,
    "random": RandomSampler,
}


class SeededSampler:
    """One of ``SAMPLERS``, recreated for each trial and seeded with base seed + trial number.

    Optuna does not store the random state of a sampler. With one state per run, a resumed study
    would repeat its first samples, and workers that start together would all try the same ones.

    Args:
        name: One of ``SAMPLERS``.
        seed: Base seed, at least 0.
    """

    def __init__(self, name: str, seed: int) -> None:
        self._make = SAMPLERS[name]
        self._seed = seed
        self._inner = self._make(seed=seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Create the trial's own sampler."""
        self._inner = self._make(seed=self._seed + trial.number)

    def __getattr__(self, name: str) -> Any:
        """Leave everything else to the trial's own sampler."""
        return getattr(self._inner, name)


@experimental()
def run_study(
    answer: Answering,
    sessions: Sequence[Session],
    space: Space,
    config: SearchConfig,
    *,
    identity: Mapping[str, Any] | None = None,
    callbacks: Sequence[OnTrial] = (),
    sampler: BaseSampler | None = None,
) -> optuna.Study:
    """Create a study, or join it, and run trials until the budget is used up.

    If a trial fails for a reason of its own, that is recorded. Any other error ends the call.

    Args:
        answer: Applies a trial's settings, as in `run_trial`.
        sessions: Validation sessions with gold, at least one.
        space: The space that settings are chosen from.
        config: How the study is run.
        identity: What else must be the same when the study is resumed, ready for JSON.
        callbacks: Called with every trial that ends in this worker, e.g. a tracker.
        sampler: Used instead of the one that the config names.

    Raises:
        SettingError: The study was made with another space, objective or identity; the message
            names the difference.
        RouteDKError: The storage failed.
    """
    single = config.objective == "f1"
    seeded: Any = sampler or SeededSampler(config.sampler, config.seed)
    objective = partial(run_trial, answer=answer, space=space, sessions=sessions)
    dimensions = space.model_dump(mode="json")
    mine = {
        "objective": config.objective,
        **{f"space {name}": values for name, values in dimensions.items()},
        **(identity or {}),
    }
    with storage_errors(config.url):
        study = optuna.create_study(
            storage=open_storage(config.url, heartbeat=config.heartbeat),
            study_name=config.study,
            directions=["maximize"] if single else ["maximize", "minimize"],
            sampler=seeded,
            pruner=WilcoxonPruner(n_startup_steps=_WARMUP),
            load_if_exists=True,
        )
        if IDENTITY not in study.user_attrs and not study.get_trials(deepcopy=False):
            study.set_user_attr(IDENTITY, mine)
        # Read it back: of workers that create a study at the same time, the last one's is kept.
        check_identity(study, mine, whole=True)
        _run(study, objective, config, callbacks)
    return study


def read_study(config: StudyConfig) -> optuna.Study:
    """Read a study that `run_study` created.

    Raises:
        SettingError: There is no study of this name.
        RouteDKError: The storage failed.
    """
    url = parse_url(config.url)
    known: list[str] = []
    # Opening an SQLite file would create it.
    if url.get_backend_name() != "sqlite" or Path(url.database or "").is_file():
        with storage_errors(config.url):
            storage = open_storage(config.url)
            known = optuna.get_all_study_names(storage)
            if config.study in known:
                study = optuna.load_study(study_name=config.study, storage=storage)
                check_identity(study, {})
                return study
    raise SettingError(
        f"study {config.study!r} is not in {url}: there are {', '.join(sorted(known)) or 'none'}"
    )


def check_identity(study: optuna.Study, mine: Mapping[str, Any], *, whole: bool = False) -> None:
    """Check that a study is resumed with what it was made with.

    Args:
        study: The study.
        mine: What it would be resumed with, ready for JSON.
        whole: Whether that is all, so that nothing else may have been part of it.

    Raises:
        SettingError: It was made with something else, or by another command; the message names the
            first difference.
    """
    name, theirs = study.study_name, study.user_attrs.get(IDENTITY)
    if theirs is None:
        raise SettingError(f"study {name!r} was not made by routedk search: choose another name")
    if "space enhancement" in theirs:
        raise SettingError(f"study {name!r} was made before RouteDK 0.6: choose another name")
    if (paper := theirs.get("paper")) != mine.get("paper"):
        made_by = f"study {paper}" if paper else "search"
        raise SettingError(f"study {name!r} is one of routedk {made_by}: choose another name")
    # Through JSON, as values come back from a storage.
    wanted = json.loads(json.dumps(mine))
    for key in dict.fromkeys((*wanted, *(theirs if whole else ()))):
        if theirs.get(key) != wanted.get(key):
            both = f": {theirs.get(key)}, not {wanted.get(key)}"
            raise SettingError(
                f"study {name!r} was made with a different {key.replace('space ', 'choice of ')}"
                f"{both if len(both) < _LONGEST else ''}; "
                "resume it with its own data and settings, or choose another name"
            )


@experimental()
def is_done(trial: FrozenTrial) -> bool:
    """Whether a trial counts towards the budget: it ended and will not be retried.

    A trial whose worker died is retried a few times.
    """
    if trial.state == TrialState.FAIL:
        killed = len(RetryHeartbeatStaleTrialCallback.retry_history(trial))
        return "failure" in trial.user_attrs or killed >= MAX_RETRIES
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def _run(
    study: optuna.Study, objective: Objective, config: SearchConfig, callbacks: Sequence[OnTrial]
) -> None:
    """Run trial after trial; if all that remain are running elsewhere, wait for them to end."""
    started = time.monotonic()
    waiting = False
    retry_history = RetryHeartbeatStaleTrialCallback.retry_history
    while True:
        trials = study.get_trials(deepcopy=False)
        # Two workers may each run a trial of the same listed system.
        done = len({one.params.get("system", one.number) for one in trials if is_done(one)})
        # A killed worker's trial is retried even if another one took its place in the meantime.
        retry = any(t.state == TrialState.WAITING and retry_history(t) for t in trials)
        minutes = (time.monotonic() - started) / 60
        out_of_time = config.minutes is not None and minutes >= config.minutes
        if out_of_time or (done >= config.trials and not retry):
            logger.info("%d trials, %.1f minutes here", done, minutes)
            return
        # Without heartbeats, a running trial may be a dead worker's: another takes its place.
        running = 0 if is_proxy(config.url) else _running(trials, config.heartbeat)
        if retry or done + running < config.trials:
            study.optimize(objective, n_trials=1, catch=(TrialFailure,), callbacks=callbacks)
        else:
            if not waiting:
                logger.info("waiting for %d trials of other workers", running)
            waiting = True
            time.sleep(_WAIT)
            optuna.storages.fail_stale_trials(study)


def _running(trials: Sequence[FrozenTrial], heartbeat: int) -> int:
    """How many trials other workers are expected to end; a dead one's is queued again when stale.

    Heartbeats start after the trial does: a worker that chose no settings for a whole grace period
    died before its first one.
    """
    recent = datetime.now() - timedelta(seconds=GRACE * heartbeat)
    return sum(
        trial.state == TrialState.RUNNING
        and ("settings" in trial.user_attrs or (trial.datetime_start or recent) > recent)
        for trial in trials
    )
