import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from routedk.errors import SettingError
from routedk.optimizers.search import study as study_module
from routedk.optimizers.search.budget import Budget
from routedk.optimizers.search.corners import corners
from routedk.optimizers.search.identity import (
    data_record,
)
from routedk.optimizers.search.samplers import SAMPLERS
from routedk.optimizers.search.space import SearchSpace
from routedk.optimizers.search.storage import open_storage
from routedk.optimizers.search.study import StudySettings, run_study
from routedk.optimizers.search.testing import FastPipeline, small_sessions
from routedk.optimizers.search.workers import MAX_RETRIES, Worker, position
from routedk.types import Session
from tests.optimizers.search.study_worker import SESSIONS, SPACE, run

# For training, validation and test.
SPLIT = (small_sessions(4)[:2], small_sessions(4)[2:3], small_sessions(4)[3:])
WORKER = Path(__file__).parent / "study_worker.py"


def work(url: str, trials: int, killed: int = 0) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(WORKER), url, str(trials), str(killed)]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def kept(study: optuna.Study) -> list[tuple[Any, Any]]:
    """What counts of a study: settings and values, in order, without attempts that were cut."""
    return [
        (trial.user_attrs["settings"], trial.values)
        for trial in study.trials
        if trial.state == TrialState.COMPLETE
    ]


def test_a_study_that_was_killed_and_resumed_has_the_same_trials(url: str, tmp_path: Path) -> None:
    whole = run(f"sqlite:///{tmp_path}/whole.db", 13)
    for trials, killed in ((13, 3), (13, 10)):  # in a corner; then where TPE proposes
        worker = work(url, trials, killed)
        said = worker.communicate()[1]
        assert worker.returncode == -signal.SIGKILL, said.decode()
    run(url, 12)  # ends between two trials
    cut = run(url, 13)
    assert kept(cut) == kept(whole)
    assert len(kept(whole)) == 13
    states = [trial.state.name for trial in cut.trials]
    assert states == [*["COMPLETE"] * 2, "FAIL", *["COMPLETE"] * 9, "FAIL", *["COMPLETE"] * 2]
    assert cut.trials[3].params == cut.trials[2].params
    assert [position(trial, cut.trials) for trial in cut.trials] == [
        *(0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11, 12)
    ]
    first = [trial.params for trial in whole.trials[:5]]
    assert first == corners(SPACE)


def test_workers_that_start_at_once_share_the_trials(url: str) -> None:
    both = [work(url, 8), work(url, 8)]
    for worker in both:
        said = worker.communicate()[1]
        assert worker.returncode == 0, said.decode()
    study = optuna.load_study(study_name="mine", storage=url)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    # Both may have seen room for one more.
    assert len(study.trials) in (8, 9)
    begun = [trial.params for trial in study.trials[:5]]
    assert begun == corners(SPACE)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_dead_workers_trial_is_retried_but_not_for_ever(kind: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db" if kind == "sqlite" else f"journal:{tmp_path}/s.log"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone = Worker(place=Worker.here().place, pid=ended.pid, started=0.0)
    run(url, 1)
    # Without heartbeats, of which Optuna warns where trials are asked for one by one.
    storage = url if kind == "sqlite" else open_storage(url)
    study = optuna.load_study(study_name="mine", storage=storage)
    for attempt in range(MAX_RETRIES + 1):
        trial = study.ask()
        trial.set_user_attr("worker", gone.to_dict())
        trial.suggest_categorical("formats", SPACE.formats)
        run(url, 1 + (attempt == MAX_RETRIES))
    states = [trial.state.name for trial in study.get_trials()]
    assert states == ["COMPLETE", *["FAIL"] * (MAX_RETRIES + 1)]
    assert len({str(trial.params) for trial in study.get_trials()[1:]}) == 1


def test_a_worker_here_is_known_to_live() -> None:
    here = Worker.here()
    assert here.pid == os.getpid()
    assert not here.is_dead()
    assert not Worker(place="elsewhere", pid=here.pid, started=0.0).is_dead()
    assert Worker(place=here.place, pid=here.pid, started=0.0).is_dead()  # its id, used again


def test_one_objective_prunes_by_session(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = small_sessions(20)

    class Worse(FastPipeline):
        def answers(self, prepared: Any, asked: Any) -> Any:
            for session, record, tokens in super().answers(prepared, asked):
                good = prepared.settings.formats == ()
                bundles = [{"items": ["a", "b"] if good else ["a", "b", "c", "d"], "intent": ""}]
                yield session, {**record, "bundles": bundles}, tokens

    chosen = StudySettings(name="mine", storage=url, objective="f1")
    study = run_study(Worse(), sessions, SPACE, chosen, Budget(trials=3))
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "COMPLETE", "PRUNED"]
    pruned = study.trials[2]
    assert 6 <= len(pruned.user_attrs["scores"]) < 20
    assert set(pruned.user_attrs["scores"]) == {0.5}
    assert pruned.value == 0.5  # what the sampler is told: the mean
    assert study.best_value == 1.0


def test_what_a_study_was_made_with_must_stay(url: str) -> None:
    chosen = StudySettings(name="mine", storage=url, resume=True)
    identity = {"student": "tiny", "data": data_record(*SPLIT, seed=0, options={"gold": "all"})}

    def go_on(
        space: SearchSpace = SPACE, sessions: list[Session] = SESSIONS, **changed: Any
    ) -> None:
        settings = StudySettings(
            name="mine", storage=url, resume=True, objective=changed.pop("objective", "both")
        )
        named = {**identity, **changed}
        run_study(FastPipeline(), sessions, space, settings, Budget(trials=1), identity=named)

    run_study(FastPipeline(), SESSIONS, SPACE, chosen, Budget(trials=1), identity=identity)
    go_on()
    # Test sessions are no trial's affair, and how equal sessions were read is nobody's.
    go_on(data=data_record(SPLIT[0], SPLIT[1], [], seed=0))
    for changed, message in (
        ({"student": "large"}, 'another student: "tiny", not "large"'),
        ({"data": data_record(*SPLIT, seed=1)}, "--seed 0, not 1: give --data and its options"),
        ({"data": data_record(SPLIT[0], [], [], seed=0)}, "other sessions: 1 validation sessions"),
        ({"objective": "f1"}, 'another objective: "both", not "f1"'),
        ({"space": SearchSpace(utilization="ICL")}, "another space enhancement: "),
        ({"sessions": small_sessions(3)}, 'another sessions: ["s0", "s1", "s2", "s3"], not ["s0"'),
    ):
        with pytest.raises(SettingError) as caught:
            go_on(**changed)
        assert f"study 'mine' was made with {message}" in str(caught.value)
    with pytest.raises(SettingError, match=r"is in sqlite:///.* already: add --resume"):
        run(url, 2, resume=False)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_goes_beyond_the_corners(
    sampler: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "corners", lambda space: [])
    space = SearchSpace(utilization="ICL", formats="rule", strategy="random", ratio=1.0)
    chosen = StudySettings(name="mine", storage=url, sampler=sampler)
    study = run_study(FastPipeline(), SESSIONS, space, chosen, Budget(trials=3))
    assert len(kept(study)) == 3


def test_a_budget_is_used_up_by_what_comes_first() -> None:
    def trial(state: TrialState, **attrs: Any) -> optuna.trial.FrozenTrial:
        values = [0.5] if state == TrialState.COMPLETE else None
        return create_trial(state=state, values=values, user_attrs=attrs)

    complete = trial(TrialState.COMPLETE, tokens_spent=70)
    failed = trial(TrialState.FAIL, failure="r", tokens_spent=30)
    running, waiting = trial(TrialState.RUNNING), trial(TrialState.WAITING)
    budget = Budget(trials=2, minutes=1.5, tokens=100)
    assert budget.used_up([complete], 89) is None
    assert budget.used_up([complete], 90) == "1.5 minutes are over"
    assert budget.used_up([complete, failed], 0) == "2 trials are done"
    assert Budget(tokens=100).used_up([complete, failed], 0) == "100 tokens are spent"
    assert not budget.is_taken([complete])
    assert budget.is_taken([complete, running])
    assert not budget.is_taken([complete, running, waiting])
    assert not Budget(tokens=5).is_taken([running])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "how long? give --trials N, --minutes M or --tokens T"),
        ({"trials": 0}, "trials=0: must be at least 1"),
        ({"tokens": 0}, "tokens=0: must be at least 1"),
        ({"minutes": 0.0}, "minutes=0.0: must be above 0"),
    ],
)
def test_a_wrong_budget_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        Budget(**values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a b"}, "study 'a b': a name has letters"),
        ({"objective": "cost"}, "objective 'cost': allowed are both, f1"),
        ({"sampler": "cma"}, "sampler 'cma': allowed are tpe, nsgaii, gp, random"),
        ({"pruner": "x", "objective": "f1"}, "pruner 'x': allowed are none, wilcoxon"),
        ({"pruner": "median"}, "Optuna prunes only where there is one objective"),
        ({"seed": -1}, "seed=-1: must be at least 0"),
        ({"storage": "sqlite://"}, "a database in memory is gone with the command"),
        ({"heartbeat": 0}, "heartbeat=0: must be at least 1 second"),
    ],
)
def test_wrong_settings_of_a_study_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        StudySettings(**{"name": "mine", **values})
    assert message in str(caught.value)


def test_a_study_needs_gold(url: str) -> None:
    blind = [Session("s", SESSIONS[0].items)]
    with pytest.raises(SettingError, match="no validation session has gold"):
        run_study(
            FastPipeline(), blind, SPACE, StudySettings(name="x", storage=url), Budget(trials=1)
        )
