"""Workers of a study: who runs a trial, and what becomes of it when the worker is killed."""

import copy
import logging
import os
import platform
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.storages._heartbeat import BaseHeartbeat, is_heartbeat_enabled
from optuna.trial import FrozenTrial, TrialState

logger = logging.getLogger(__name__)

MAX_RETRIES = 3
# A clock that is set moves the time at which a process seems to have begun.
_CLOCK = 60.0


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A process that runs trials.

    Args:
        place: Where its id holds: host, boot and, on Linux, namespace of process ids.
        pid: Its process id there.
        started: When it began, in seconds since 1970, since ids are used again.
    """

    place: str
    pid: int
    started: float

    @staticmethod
    @cache
    def here() -> "Worker":
        """This process."""
        return Worker(place=_place(), pid=os.getpid(), started=psutil.Process().create_time())

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def is_dead(self) -> bool:
        """Whether it ran here and does no more; of other places nothing is known."""
        if self.place != _place():
            return False
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            started: float = process.create_time()
            return abs(started - self.started) > _CLOCK
        except psutil.NoSuchProcess:
            return True


@cache
def _place() -> str:
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    booted = boot.read_text().strip() if boot.exists() else str(round(psutil.boot_time(), -2))
    inside = str(namespace.readlink()) if namespace.is_symlink() else ""
    return f"{platform.node()}/{booted}/{inside}"


def retry_of(trial: FrozenTrial) -> int | None:
    """The number of the trial that this one repeats, the first of them; None for no retry."""
    number: int | None = trial.system_attrs.get("failed_trial")
    return number


def give_back(study: optuna.Study, trial: FrozenTrial, most: int | None = MAX_RETRIES) -> bool:
    """Queue a trial again that did not end for a reason of its own, with the same parameters.

    Args:
        study: Its study.
        trial: A trial in the state FAIL.
        most: Tries after which nothing is queued: what kills every worker must not go on for
            ever. None where an error has stopped the study, so that somebody has seen it.

    Returns:
        Whether it was queued.
    """
    again = copy.deepcopy(trial)
    # Whose worker it was, above all, says nothing about the next try.
    again.user_attrs = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        RetryHeartbeatStaleTrialCallback(max_retry=most)(study, again)
    return most is None or len(trial.system_attrs.get("retry_history", ())) < most


class Watch:
    """Looks after the trials that other workers run.

    Args:
        study: The study.
        patience: Seconds after which a trial that began and never said who runs it counts as
            dead.
    """

    def __init__(self, study: optuna.Study, patience: float = 10.0) -> None:
        self._study = study
        self._patience = patience
        self._nameless_since: dict[int, float] = {}

    def nameless(self) -> bool:
        """Whether a trial began and has not yet said who runs it: a moment later it has."""
        return any(worker_of(trial) is None for trial in self._running())

    def nothing_to_wait_for(self) -> bool:
        """Whether all that runs is elsewhere, in a storage that cannot tell whether it lives."""
        here = Worker.here().place
        beats = is_heartbeat_enabled(self._study._storage)
        workers = [worker_of(trial) for trial in self._running()]
        return not beats and all(worker and worker.place != here for worker in workers)

    def retry_dead(self) -> None:
        """Give the trials of dead workers back: at once those of this machine, others when stale.

        A worker elsewhere counts as dead when its heartbeat stops, which databases keep and a
        journal file does not.
        """
        for trial in self._running():
            worker = worker_of(trial)
            if worker is None:
                since = self._nameless_since.setdefault(trial.number, time.monotonic())
                dead = time.monotonic() - since > self._patience
            else:
                dead = worker.is_dead()
            if dead:
                self._retry(trial)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._study)

    def _retry(self, trial: FrozenTrial) -> None:
        try:
            told = self._study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, UpdateFinishedTrialError):
            return  # another worker was faster
        queued = "it is queued again" if give_back(self._study, told) else "once too often"
        logger.info("trial %d: its worker died, %s", trial.number, queued)

    def _running(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def claim(study: optuna.Study, trial: FrozenTrial) -> None:
    """Say that this process runs a trial: one that says nothing soon counts as dead."""
    storage, record = study._storage, Worker.here().to_dict()
    storage.set_trial_user_attr(trial._trial_id, "worker", record)
    # Optuna's begin after the parameters are chosen, and nobody misses what never was.
    if isinstance(storage, BaseHeartbeat) and is_heartbeat_enabled(storage):
        storage.record_heartbeat(trial._trial_id)


def worker_of(trial: FrozenTrial) -> Worker | None:
    """Who runs, or ran, a trial; None where that is not known (yet)."""
    record = trial.user_attrs.get("worker")
    return None if record is None else Worker(**record)


def counts(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
    """Whether a trial is finished for good: ended, or failed without another try.

    Args:
        trial: One of them.
        trials: All of the study.
    """
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        return True
    if trial.state != TrialState.FAIL:
        return False
    return "failure" in trial.user_attrs or not is_retried(trial, trials)


def is_retried(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
    """Whether there is another try of a trial, done, under way or queued.

    Args:
        trial: One of them.
        trials: All of the study.
    """
    return any(trial.number in t.system_attrs.get("retry_history", ()) for t in trials)


def position(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int:
    """A trial's place in the study as it would be had no worker been killed.

    Args:
        trial: Any trial; a retry has the place of what it repeats.
        trials: All of the study.
    """
    first = retry_of(trial)
    number = trial.number if first is None else first
    return number - sum(retry_of(t) is not None for t in trials if t.number < number)
