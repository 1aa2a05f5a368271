"""`run_study`: one Optuna study, from its making or joining until its budget is used up."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from routedk.errors import SettingError
from routedk.optimizers.search.budget import Budget
from routedk.optimizers.search.corners import corners
from routedk.optimizers.search.failure import TrialFailure
from routedk.optimizers.search.identity import IDENTITY, check_identity, not_ours
from routedk.optimizers.search.objective import DIRECTIONS, Objective, ObjectiveName, TrialPipeline
from routedk.optimizers.search.progress import trial_line
from routedk.optimizers.search.samplers import (
    SeededSampler,
    check_pruner,
    check_sampler,
    make_pruner,
)
from routedk.optimizers.search.space import SearchSpace
from routedk.optimizers.search.storage import (
    HEARTBEAT,
    check_file,
    open_existing,
    open_storage,
    storage_errors,
)
from routedk.optimizers.search.storage_url import (
    JOURNAL,
    check_name,
    shown_url,
    storage_url,
)
from routedk.optimizers.search.workers import Watch, Worker, give_back, is_retried, worker_of
from routedk.types import Session

logger = logging.getLogger(__name__)

OnTrial = Callable[[optuna.Study, FrozenTrial], None]
_WAIT = 1.0
_PATIENCE = 10.0


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """How a study is run.

    Args:
        name: Its name in its storage.
        storage: See `open_storage`; None for an SQLite file of its name.
        objective: ``both``: matched F1 up and tokens per session down; ``f1``: the first alone.
        sampler: A name in the table of `routedk.optimizers.search.samplers`.
        pruner: Likewise; None for ``wilcoxon`` where there is one objective, and for ``none``
            where there are two.
        seed: Base seed of all proposals, at least 0.
        resume: Go on with the study of this name, or join its workers; it is made where there is
            none. Without it such a study is an error.
        heartbeat: Seconds between two signs of life, at least 1.

    Raises:
        SettingError: A value is not allowed.
    """

    name: str
    storage: str | None = None
    objective: ObjectiveName = "both"
    sampler: str = "tpe"
    pruner: str | None = None
    seed: int = 0
    resume: bool = False
    heartbeat: int = HEARTBEAT

    def __post_init__(self) -> None:
        check_name(self.name)
        storage_url(self.storage, self.name)
        if self.objective not in DIRECTIONS:
            raise SettingError(f"objective {self.objective!r}: allowed are {', '.join(DIRECTIONS)}")
        check_sampler(self.sampler)
        check_pruner(self.pruner, self.objective)
        if self.seed < 0:
            raise SettingError(f"seed={self.seed}: must be at least 0")
        if self.heartbeat < 1:
            raise SettingError(f"heartbeat={self.heartbeat}: must be at least 1 second")

    @property
    def url(self) -> str:
        """The URL of the storage."""
        return storage_url(self.storage, self.name)


def run_study(
    pipeline: TrialPipeline,
    sessions: Sequence[Session],
    space: SearchSpace,
    settings: StudySettings,
    budget: Budget,
    *,
    identity: Mapping[str, Any] | None = None,
    on_trial: Sequence[OnTrial] = (),
) -> optuna.Study:
    """Make a study, or join it, and run trials until the budget is used up.

    A trial that fails for a reason of its own is recorded with it; any other error ends the study
    here, and the trial is queued again for whoever goes on. A log line tells of every trial.

    Args:
        pipeline: Carries out settings.
        sessions: Validation sessions; those with gold are scored.
        space: What is chosen from.
        settings: How the study is run.
        budget: How long.
        identity: What else has to be the same wherever the study goes on, ready for JSON: the
            data, the student.
        on_trial: Called with every trial that ended here, e.g. a tracker.

    Raises:
        SettingError: The study exists and is not to be resumed, or was made with another space,
            objective or identity; the message names it.
        RouteDKError: The storage failed.
    """
    started = time.monotonic()
    pruner = check_pruner(settings.pruner, settings.objective)
    objective = Objective(
        pipeline,
        space,
        sessions,
        objective=settings.objective,
        report="score" if pruner == "wilcoxon" else "mean",
    )
    mine = _identity(settings, space, sessions, identity)
    if settings.url.startswith(JOURNAL):
        logger.info("a journal keeps no heartbeats: only workers on this machine are replaced")
    if settings.objective == "both":
        logger.info("two objectives: Optuna prunes no trial")
    with storage_errors(settings.url):
        storage = open_storage(settings.url, heartbeat=settings.heartbeat)
        study = _open(storage, settings, mine)
        study.sampler = SeededSampler(study, settings.sampler, settings.seed, space, corners(space))
        study.pruner = make_pruner(pruner, len(objective.sessions))
        _run(study, objective, budget, started, on_trial)
    return study


def check_study(
    settings: StudySettings,
    space: SearchSpace,
    sessions: Sequence[Session],
    *,
    identity: Mapping[str, Any] | None = None,
) -> None:
    """Say what `run_study` would refuse for its storage's sake, and make nothing.

    Args:
        settings: How the study is to be run.
        space: What is to be chosen from.
        sessions: Validation sessions.
        identity: See `run_study`.

    Raises:
        RouteDKError: As `run_study`.
    """
    check_file(settings.url)
    with storage_errors(settings.url):
        storage = open_existing(settings.url)
        if storage is None or settings.name not in optuna.get_all_study_names(storage):
            return
        if not settings.resume:
            raise _is_there(settings)
        study = optuna.load_study(storage=storage, study_name=settings.name)
        _check_ours(study, settings)
        if theirs := study.user_attrs.get(IDENTITY):
            mine = _identity(settings, space, sessions, identity)
            check_identity(settings.name, theirs, mine)


def _identity(
    settings: StudySettings,
    space: SearchSpace,
    sessions: Sequence[Session],
    others: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "objective": settings.objective,
        "space": space.model_dump(mode="json"),
        "sessions": [session.id for session in sessions if session.gold],
        **(others or {}),
    }


def _is_there(settings: StudySettings) -> SettingError:
    return SettingError(
        f"study {settings.name!r} is in {shown_url(settings.url)} already: add --resume to go on "
        "with it or to join it, or name another"
    )


def _check_ours(study: optuna.Study, settings: StudySettings) -> None:
    """A study without trials may be one that another worker is making."""
    trials = study.get_trials(deepcopy=False)
    directions = [direction.name.lower() for direction in study.directions]
    foreign = trials or directions != [*DIRECTIONS[settings.objective]]
    if foreign and IDENTITY not in study.user_attrs:
        raise not_ours(settings.name, settings.url)


def _open(storage: BaseStorage, settings: StudySettings, mine: Mapping[str, Any]) -> optuna.Study:
    name, shown = settings.name, shown_url(settings.url)
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, directions=DIRECTIONS[settings.objective]
        )
    except DuplicatedStudyError:
        if not settings.resume:
            raise _is_there(settings) from None
        study = optuna.load_study(storage=storage, study_name=name)
        _check_ours(study, settings)
        # Another worker may be about to write it.
        deadline = time.monotonic() + _PATIENCE
        while IDENTITY not in study.user_attrs and time.monotonic() < deadline:
            time.sleep(_WAIT / 10)
        if IDENTITY in study.user_attrs:
            check_identity(name, study.user_attrs[IDENTITY], mine)
            logger.info("study %s in %s: %d trials so far", name, shown, len(study.trials))
            return study
    else:
        logger.info("study %s is made in %s", name, shown)
    study.set_user_attr(IDENTITY, dict(mine))
    return study


def _run(
    study: optuna.Study,
    objective: Objective,
    budget: Budget,
    started: float,
    on_trial: Sequence[OnTrial],
) -> None:
    """Trial after trial; where all that is left is under way elsewhere, wait how it ends."""
    watch = Watch(study)
    waited = False
    while True:
        watch.retry_dead()
        trials = study.get_trials(deepcopy=False)
        if reason := budget.used_up(trials, time.monotonic() - started):
            logger.info("study %s: %s", study.study_name, reason)
            return
        if watch.nameless():
            time.sleep(_WAIT / 10)
        elif not budget.is_taken(trials):
            _run_one(study, objective, on_trial)
        elif watch.nothing_to_wait_for():
            logger.info("the last trials are under way elsewhere, and a journal cannot tell how")
            return
        else:
            if not waited:
                logger.info("the last trials are under way, waiting for their workers")
            waited = True
            time.sleep(_WAIT)


def _run_one(study: optuna.Study, objective: Objective, on_trial: Sequence[OnTrial]) -> None:
    begun: list[int] = []

    def attempt(trial: optuna.Trial) -> float | tuple[float, float]:
        begun.append(trial.number)
        return objective(trial)

    def say(study: optuna.Study, trial: FrozenTrial) -> None:
        logger.info("%s", trial_line(trial))

    try:
        study.optimize(attempt, n_trials=1, catch=(TrialFailure,), callbacks=[say, *on_trial])
    except BaseException:
        # One that was interrupted before it began is under way for ever, else.
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if worker_of(trial) == Worker.here():
                begun.append(study.tell(trial.number, state=TrialState.FAIL).number)
        for number in begun:
            trial = study.trials[number]
            # Another worker may have taken this one for dead.
            if trial.state == TrialState.FAIL and not is_retried(trial, study.trials):
                give_back(study, trial, most=None)
                logger.info("trial %d is queued again", number)
        raise
