"""Workers of one study, some of them killed within a trial: what becomes of every trial.

python -m benchmarks.search_workers --storage postgresql://USER@HOST/NAME
python -m benchmarks.search_workers --storage sqlite:///study.db --workers 2 --kills 1
"""

import json
import multiprocessing
import random
import secrets
import signal
import time
import warnings
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import optuna
import typer
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from benchmarks.command import run_command
from routedk.errors import SettingError
from routedk.optimizers.search.config import SearchConfig
from routedk.optimizers.search.space import SearchSpace, TrialSettings
from routedk.optimizers.search.storage import open_storage
from routedk.optimizers.search.study import run_study
from routedk.types import Answer, Bundle, Item, Session

SPACE = SearchSpace(utilization="ICL", strategy="random")
ITEMS = tuple(Item(name, f"thing {name}") for name in "abc")
SESSIONS = [Session(f"s{k}", ITEMS, (Bundle(("a", "b")),)) for k in range(4)]
HEARTBEAT = 1
# In which of its own trials a worker is killed: it ends at least one before.
_ATTEMPTS = (2, 3)
_PATIENCE = 240.0


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a worker stops until it is killed.

    Args:
        attempt: In which of its own trials, counted from 1.
        session: Before which session of that trial, counted from 0.
    """

    attempt: int
    session: int


class _Worker:
    """A process that runs trials, and reports each one it begins."""

    def __init__(self, moment: Moment | None, config: SearchConfig) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["routedk.optimizers.search.study"])
        self.moment = moment
        self.begun = 0
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, moment, config), daemon=True)
        self.process.start()
        theirs.close()

    def wait_until_held(self) -> None:
        """Read its messages until it is held within a trial."""
        if not self._read(until="held"):
            raise RuntimeError("a worker ended before the moment of its kill")

    def resume(self) -> None:
        """Let it continue where it is held."""
        self._pipe.send("continue")

    def wait_until_ended(self) -> int | None:
        """Its exit code, after its last message."""
        self._read(until="")
        self.process.join(_PATIENCE)
        return self.process.exitcode

    def _read(self, until: str) -> bool:
        deadline = time.monotonic() + _PATIENCE
        while self._pipe.poll(max(0.0, deadline - time.monotonic())):
            try:
                said = self._pipe.recv()
            except (EOFError, ConnectionResetError):
                return False
            if said == until:
                return True
            self.begun += 1
        raise RuntimeError(f"a worker says nothing for {_PATIENCE:.0f} seconds")


def _work(pipe: Connection, moment: Moment | None, config: SearchConfig) -> None:
    """Run trials; be held at the moment or, if there is none, in the first trial."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    held = moment or Moment(attempt=1, session=0)
    attempts = 0

    def answers(settings: TrialSettings) -> Generator[Answer]:
        nonlocal attempts
        attempts += 1
        pipe.send("begun")
        for place, session in enumerate(SESSIONS):
            if (attempts, place) == (held.attempt, held.session):
                pipe.send("held")
                pipe.recv()
            right = place < settings.neighbours + settings.rules
            bundle = Bundle(("a", "b") if right else ("b", "c"))
            yield Answer(session.id, (bundle,), input_tokens=50 + settings.rules)

    run_study(lambda settings: closing(answers(settings)), SESSIONS, SPACE, config)


def kill_workers(
    url: str, *, workers: int, kills: int, trials: int, seed: int, study: str
) -> dict[str, Any]:
    """Run one study with several workers, kill some of them, and account for all trials.

    Workers to be killed each stop within a trial, the others within their first. Once all have
    stopped, the former are killed and the latter continue.

    Args:
        url: The storage.
        workers: Concurrent processes, at least 1.
        kills: How many of them are killed with SIGKILL, fewer than all.
        trials: Trials of the study, enough to kill workers within.
        seed: Seed of the study and of the moments of the kills.
        study: A name that is not in the storage yet.

    Raises:
        SettingError: There are too few trials or workers for so many kills.
        RuntimeError: A worker ended early, or does not end.
    """
    if kills >= workers or trials < _ATTEMPTS[1] * kills + workers:
        raise SettingError(f"{kills} kills need more than {workers} workers or {trials} trials")
    chance = random.Random(seed)
    config = SearchConfig(study=study, storage=url, trials=trials, seed=seed, heartbeat=HEARTBEAT)
    moments = [
        Moment(attempt=chance.randint(*_ATTEMPTS), session=chance.randrange(len(SESSIONS)))
        for _ in range(kills)
    ]
    began = time.monotonic()
    team = [_Worker(moment, config) for moment in (*moments, *[None] * (workers - kills))]
    try:
        for worker in team:
            worker.wait_until_held()
        for worker in team[:kills]:
            worker.process.kill()
        for worker in team[kills:]:
            worker.resume()
        codes = [worker.wait_until_ended() for worker in team]
    finally:
        for worker in team:
            worker.process.kill()
    return {
        "storage": url.partition(":")[0],
        "workers": workers,
        "kills": kills,
        "asked_for": trials,
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "exit_codes": codes,
        "begun": sum(worker.begun for worker in team),
        **account(read_trials(url, study)),
    }


def read_trials(url: str, study: str) -> list[FrozenTrial]:
    """All trials of a study; the connections are closed afterwards.

    Args:
        url: URL of the storage.
        study: Name of the study.
    """
    storage = open_storage(url)
    try:
        return optuna.load_study(study_name=study, storage=storage).trials
    finally:
        if isinstance(storage, RDBStorage):
            storage.remove_session()
            storage.engine.dispose()


def account(trials: list[FrozenTrial]) -> dict[str, Any]:
    """What the storage holds: states, retries, and trials that were completed twice.

    Args:
        trials: All trials of a study.
    """
    again = {}
    retried_trial_number = RetryHeartbeatStaleTrialCallback.retried_trial_number
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        for trial in trials:
            for number in RetryHeartbeatStaleTrialCallback.retry_history(trial)[-1:]:
                again[number] = trial
        origins = Counter(
            trial.number if (first := retried_trial_number(trial)) is None else first
            for trial in trials
            if trial.state == TrialState.COMPLETE
        )
    return {
        "states": dict(Counter(trial.state.name for trial in trials)),
        "completed_twice": sum(times - 1 for times in origins.values()),
        "killed": [
            {
                "trial": trial.number,
                "retried_as": again[trial.number].number if trial.number in again else None,
                "same_parameters": trial.number in again
                and trial.params == again[trial.number].params,
            }
            for trial in trials
            if trial.state == TrialState.FAIL
        ],
    }


def is_clean(found: dict[str, Any]) -> bool:
    """Whether all trials asked for are complete, none ran twice and each killed one was retried.

    Args:
        found: What `kill_workers` returned.
    """
    states, kills = found["states"], found["kills"]
    return (
        found["exit_codes"] == [-signal.SIGKILL] * kills + [0] * (found["workers"] - kills)
        and states.keys() <= {"COMPLETE", "FAIL"}
        # A trial whose settings were scored before asks nothing.
        and kills <= found["begun"] <= sum(states.values())
        and not found["completed_twice"]
        and len(found["killed"]) == kills
        and all(kill["same_parameters"] for kill in found["killed"])
        and found["asked_for"] <= states["COMPLETE"] < found["asked_for"] + found["workers"]
    )


def main(
    storage: Annotated[str, typer.Option(help="URL of the study's storage.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes at once.")] = 4,
    kills: Annotated[int, typer.Option(min=0)] = 2,
    trials: Annotated[int, typer.Option(min=1)] = 24,
    seed: Annotated[int, typer.Option(help="Of the study and of the moments of kills.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Write it as JSON, too.")] = None,
) -> None:
    """Print what became of all trials, as JSON; exit code 1 if any is lost or was run twice."""
    study = f"workers-{secrets.token_hex(4)}"
    found = kill_workers(
        storage, workers=workers, kills=kills, trials=trials, seed=seed, study=study
    )
    text = json.dumps(found, indent=2)
    if output is not None:
        output.write_text(text + "\n")
    typer.echo(text)
    if not is_clean(found):
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
