"""Workers of one study, killed in the middle of trials: what becomes of every trial.

python -m benchmarks.search_workers --storage postgresql://USER@HOST/NAME
python -m benchmarks.search_workers --storage sqlite:///study.db --workers 1 --kills 10
"""

import json
import multiprocessing
import random
import secrets
import signal
import time
from collections import Counter
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import optuna
import typer
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from benchmarks.command import run_command
from routedk.errors import SettingError
from routedk.optimizers.search.budget import Budget
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.space import SearchSpace
from routedk.optimizers.search.storage import open_storage
from routedk.optimizers.search.storage_url import shown_url
from routedk.optimizers.search.study import StudySettings, run_study
from routedk.optimizers.search.testing import FastPipeline, small_sessions
from routedk.optimizers.search.workers import counts, position, retry_of, worker_of

SPACE = SearchSpace(utilization="ICL", strategy="random")
SESSIONS = small_sessions(4)
_LIBRARIES = ("routedk.optimizers.search.study", "routedk.optimizers.search.testing")
# A worker ends a trial before it is killed, so that waves of them get on.
_ATTEMPTS = (2, 4)
_PATIENCE = 240.0


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a worker stops until it is killed.

    Args:
        attempt: In this trial of its own, counted from 1.
        session: Before this session of it, counted from 0; -1 for before the knowledge is made.
    """

    attempt: int
    session: int


@dataclass(frozen=True, kw_only=True)
class Kill:
    """A kill, and what came of it.

    Args:
        worker: Who was killed.
        moment: Where.
        trial: Number of the trial that it was at.
        exit_code: Of the process.
        retried_as: Number of the trial that repeats it.
        retried_by: Who ran that.
        same_parameters: Whether both have the same.
    """

    worker: int
    moment: Moment
    trial: int | None
    exit_code: int | None
    retried_as: int | None
    retried_by: int | None
    same_parameters: bool


class _Worker:
    """A process that runs trials, and tells what it carries out."""

    def __init__(self, name: int, moment: Moment | None, job: tuple[str, str, int, int]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(_LIBRARIES))
        self.name, self.moment = name, moment
        self.begun: list[str] = []
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, moment, *job), daemon=True)
        self._process.start()
        theirs.close()
        self.pid = self._process.pid

    def wait_until_held(self) -> None:
        """Read what it says until it is held within a trial."""
        if not self._read(until="held"):
            raise RuntimeError(f"worker {self.name} ended before the moment of its kill")

    def go_on(self) -> None:
        """Let it go on where it is held."""
        self._pipe.send("go on")

    def kill(self) -> None:
        """Send it SIGKILL."""
        self._process.kill()

    def wait_until_ended(self) -> int | None:
        """Its exit code, after the last it said."""
        self._read(until="")
        self._process.join(_PATIENCE)
        return self._process.exitcode

    def _read(self, until: str) -> bool:
        deadline = time.monotonic() + _PATIENCE
        while self._pipe.poll(max(0.0, deadline - time.monotonic())):
            try:
                said = self._pipe.recv()
            except (EOFError, ConnectionResetError):
                return False
            if said == until:
                return True
            self.begun.append(said)
        raise RuntimeError(f"worker {self.name} says nothing for {_PATIENCE:.0f} seconds")


def _work(
    pipe: Connection, moment: Moment | None, url: str, study: str, trials: int, seed: int
) -> None:
    """Run trials; be held at the moment, or, where there is none, in the first trial."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    held = moment or Moment(attempt=1, session=0)
    attempts = 0

    def hook(settings: TrialSettings, place: int) -> None:
        nonlocal attempts
        if place == -1:
            attempts += 1
            pipe.send(_settings(settings.to_dict()))
        if (attempts, place) == (held.attempt, held.session):
            pipe.send("held")
            pipe.recv()

    settings = StudySettings(name=study, storage=url, seed=seed, resume=True)
    run_study(FastPipeline(hook), SESSIONS, SPACE, settings, Budget(trials=trials))


def kill_workers(
    url: str, *, workers: int, kills: int, trials: int, seed: int, study: str
) -> dict[str, Any]:
    """Run one study with so many workers at once, kill some of them, and account for all trials.

    A wave of workers begins; those that are to be killed stop each within a trial, the others
    within their first. Once all of them stand there, the ones are killed; then the others go on.
    Where kills are no fewer than workers, a whole wave is killed and the next resumes the study.

    Args:
        url: The storage.
        workers: Processes at once, at least 1.
        kills: How many are killed with SIGKILL, at least 0.
        trials: Trials of the study, enough to kill workers within.
        seed: Of the study and of the moments of the kills.
        study: A name that the storage does not hold yet.

    Raises:
        SettingError: There are too few trials for so many kills.
        RuntimeError: A worker ended early, or does not end.
    """
    least = _ATTEMPTS[1] * kills + workers
    if trials < least:
        raise SettingError(f"trials={trials}: {kills} kills need at least {least}")
    chance = random.Random(seed)
    began = time.monotonic()
    team: list[_Worker] = []
    codes: dict[int, int | None] = {}
    left = kills
    try:
        while True:
            victims = min(left, workers)
            moments: list[Moment | None] = [
                Moment(
                    attempt=chance.randint(*_ATTEMPTS), session=chance.randrange(-1, len(SESSIONS))
                )
                for _ in range(victims)
            ]
            moments += [None] * (workers - victims)
            job = (url, study, trials, seed)
            wave = [_Worker(len(team) + k, moment, job) for k, moment in enumerate(moments)]
            team += wave
            for worker in wave:
                worker.wait_until_held()
            for worker in wave[:victims]:
                worker.kill()
            codes |= {worker.name: worker.wait_until_ended() for worker in wave[:victims]}
            for worker in wave[victims:]:
                worker.go_on()
            codes |= {worker.name: worker.wait_until_ended() for worker in wave[victims:]}
            left -= victims
            if victims < workers:
                break
    finally:
        for worker in team:
            worker.kill()
    seconds = time.monotonic() - began
    return {
        "storage": shown_url(url).partition(":")[0],
        "workers_at_once": workers,
        "kills": kills,
        "budget": trials,
        "seed": seed,
        "seconds": round(seconds, 1),
        **_account(read_trials(url, study), team, codes),
    }


def read_trials(url: str, study: str) -> list[FrozenTrial]:
    """All trials of a study.

    Args:
        url: Its storage, whose connections are closed afterwards.
        study: Its name.
    """
    storage = open_storage(url)
    try:
        return optuna.load_study(study_name=study, storage=storage).trials
    finally:
        if isinstance(storage, RDBStorage):
            storage.remove_session()
            storage.engine.dispose()


def _account(
    trials: list[FrozenTrial], team: list[_Worker], codes: dict[int, int | None]
) -> dict[str, Any]:
    """What the workers carried out, beside what the storage holds."""
    names = {worker.pid: worker.name for worker in team}
    whose = {t.number: names[w.pid] for t in trials if (w := worker_of(t)) is not None}
    begun = Counter((worker.name, said) for worker in team for said in worker.begun)
    held = Counter(
        (whose[t.number], _settings(t.user_attrs["settings"]))
        for t in trials
        if t.number in whose and "settings" in t.user_attrs
    )
    places = Counter(position(t, trials) for t in trials if t.state == TrialState.COMPLETE)
    return {
        "states": dict(Counter(t.state.name for t in trials)),
        "done": sum(counts(t, trials) for t in trials),
        "carried_out": begun.total(),
        "carried_out_but_not_recorded": (begun - held).total(),
        "recorded_but_not_carried_out": (held - begun).total(),
        "completed_twice": sum(times - 1 for times in places.values()),
        "never_ended": sum(not t.state.is_finished() for t in trials),
        "killed": [
            asdict(_kill(worker, worker.moment, codes[worker.name], trials, whose))
            for worker in team
            if worker.moment is not None
        ],
        "exit_codes": [codes[worker.name] for worker in team],
        "trials_of_each": {
            worker.name: [number for number, name in whose.items() if name == worker.name]
            for worker in team
        },
        "log": [
            {
                "trial": t.number,
                "state": t.state.name,
                "worker": whose.get(t.number),
                "retry_of": retry_of(t),
                "values": t.values,
                "settings": t.user_attrs.get("settings"),
            }
            for t in trials
        ],
    }


def _kill(
    worker: _Worker,
    moment: Moment,
    code: int | None,
    trials: list[FrozenTrial],
    whose: dict[int, int],
) -> Kill:
    cut = next(
        (t for t in trials if whose.get(t.number) == worker.name and t.state == TrialState.FAIL),
        None,
    )
    again = cut and next(
        (t for t in trials if cut.number in t.system_attrs.get("retry_history", ())[-1:]), None
    )
    return Kill(
        worker=worker.name,
        moment=moment,
        trial=cut and cut.number,
        exit_code=code,
        retried_as=again and again.number,
        retried_by=again and whose.get(again.number),
        same_parameters=bool(cut and again and cut.params == again.params),
    )


def _settings(record: dict[str, Any]) -> str:
    return json.dumps(record, sort_keys=True)


def is_clean(found: dict[str, Any]) -> bool:
    """Whether every trial is accounted for, none was run twice and all kills were made up for.

    Args:
        found: What `kill_workers` found.
    """
    killed = found["killed"]
    return (
        not found["carried_out_but_not_recorded"]
        and not found["recorded_but_not_carried_out"]
        and not found["completed_twice"]
        and not found["never_ended"]
        and all(kill["exit_code"] == -signal.SIGKILL for kill in killed)
        and all(kill["same_parameters"] for kill in killed)
        and found["states"].get("FAIL", 0) == len(killed)
        and found["budget"] <= found["done"] < found["budget"] + found["workers_at_once"]
    )


def main(
    storage: Annotated[str, typer.Option(help="URL of the study's storage.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes at once.")] = 4,
    kills: Annotated[int, typer.Option(min=0)] = 2,
    trials: Annotated[int, typer.Option(min=1)] = 24,
    seed: Annotated[int, typer.Option(help="Of the study and of the moments of kills.")] = 0,
    study: Annotated[str | None, typer.Option(help="A new study's name; None: any.")] = None,
    output: Annotated[Path | None, typer.Option(help="All of it, with the log, as JSON.")] = None,
) -> None:
    """Print what became of all trials, as JSON; exit code 1 where any is lost or was run twice."""
    name = study or f"workers-{secrets.token_hex(4)}"
    found = kill_workers(
        storage, workers=workers, kills=kills, trials=trials, seed=seed, study=name
    )
    if output is not None:
        output.write_text(json.dumps(found, indent=2) + "\n")
    short = {name: value for name, value in found.items() if name not in ("log", "trials_of_each")}
    typer.echo(json.dumps(short, indent=2))
    if not is_clean(found):
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
