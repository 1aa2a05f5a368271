import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from routedk.errors import RouteDKError, SettingError
from routedk.optimizers.search.config import ReportConfig, SearchConfig, StudyConfig
from routedk.optimizers.search.objective import TrialFailure, own_reason
from routedk.optimizers.search.space import SearchSpace, TrialSettings
from routedk.optimizers.search.study import SAMPLERS, is_done, read_study, run_study
from tests.optimizers.search.answers import SESSIONS, FakeAnswers, run, small_sessions

ROOT = Path(__file__).parents[3]


def work(url: str, trials: int, killed: int = 0) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.optimizers.search.study_worker"]
    path = os.pathsep.join([*filter(None, sys.path), str(ROOT)])
    return subprocess.Popen(
        [*command, url, str(trials), str(killed)],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )


def kept(study: optuna.Study) -> list[Any]:
    return [(t.user_attrs["settings"], t.values) for t in study.trials]


def test_a_study_resumed_between_trials_has_the_same_ones(url: str) -> None:
    whole = run(url, 14)
    for trials in (3, 12, 14):  # then TPE proposes
        cut = run(f"{url}.cut", trials)
        assert len(cut.trials) == trials
    assert kept(cut) == kept(whole)


def test_a_killed_workers_trial_is_tried_again_with_its_parameters(url: str) -> None:
    worker = work(url, 4, killed=2)
    said = worker.communicate()[1]
    assert worker.returncode == -signal.SIGKILL, said.decode()
    trials = run(url, 4, heartbeat=1).trials
    (dead,) = [trial for trial in trials if trial.state == TrialState.FAIL]
    (again,) = [t for t in trials if t.system_attrs.get("failed_trial") == dead.number]
    assert dead.number == 1
    assert (again.state, again.params) == (TrialState.COMPLETE, dead.params)
    assert sum(map(is_done, trials)) == len(trials) - 1 == 4
    assert [t.number for t in run(url, 4).trials] == [t.number for t in trials]  # none is left


def test_workers_that_start_at_once_share_the_trials(url: str) -> None:
    for worker in [work(url, 8), work(url, 8)]:
        said = worker.communicate()[1]
        assert worker.returncode == 0, said.decode()
    study = optuna.load_study(study_name="mine", storage=url)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    assert len(study.trials) in (8, 9)  # both may have seen room for the last one
    assert len({str(trial.params) for trial in study.trials[:2]}) == 2


def test_a_trial_that_chose_nothing_is_not_waited_for(url: str) -> None:
    run(url, 1)
    study = optuna.load_study(study_name="mine", storage=url)
    study.ask()  # its worker is killed before its first heartbeat
    run(url, 2, heartbeat=1)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "RUNNING", "COMPLETE"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler(sampler: str, url: str) -> None:
    study = run(url, 12, sampler=sampler)
    assert len({str(trial.params) for trial in study.trials}) > 8
    other = run(f"{url}.other", 3, sampler=sampler, seed=9)
    assert kept(other) != kept(study)[:3]


def test_one_objective_prunes_by_session(url: str) -> None:
    sessions, asked = small_sessions(10), []
    answers = FakeAnswers(sessions, lambda settings, place: asked.append(place))
    config = SearchConfig(storage=url, objective="f1", trials=8)
    study = run_study(answers, sessions, SearchSpace(utilization="ICL"), config)
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert pruned
    assert complete
    assert len(asked) < 8 * 10  # what is pruned is not asked to its end
    for trial in pruned:
        assert 0 <= (trial.value or 0) <= 1
    assert sum(map(is_done, study.trials)) == 8


@pytest.mark.parametrize("objective", ["both", "f1"])
def test_equal_settings_are_carried_out_once(objective: str, url: str) -> None:
    sessions, asked = small_sessions(8), []
    answers = FakeAnswers(sessions, lambda settings, place: asked.append((settings, place)))
    config = SearchConfig(storage=url, objective=objective, trials=6)  # type: ignore[arg-type]
    space = SearchSpace(utilization="ICL", formats="none", neighbours=[0, 1])
    study = run_study(answers, sessions, space, config)
    assert len(study.trials) == 6
    assert len(asked) == len(set(asked)) <= 2 * 8
    values: dict[str, Any] = {}
    for trial in study.trials:
        assert trial.state == TrialState.COMPLETE
        found = (trial.values, trial.user_attrs["f1"], trial.user_attrs["tokens"])
        assert values.setdefault(str(trial.user_attrs["settings"]), found) == found
    if objective == "f1":
        assert all(trial.intermediate_values for trial in study.trials)


def test_a_long_difference_is_only_named(url: str) -> None:
    config = SearchConfig(study="mine", storage=url, trials=1)
    space, answers = SearchSpace(utilization="ICL"), FakeAnswers(SESSIONS)
    run_study(answers, SESSIONS, space, config, identity={"systems": ["a"] * 100})
    with pytest.raises(SettingError, match="was made with a different systems; resume it with"):
        run_study(answers, SESSIONS, space, config, identity={"systems": ["b"] * 100})


def test_scores_are_the_means_over_sessions(url: str) -> None:
    study = run(url, 3)
    for trial in study.trials:
        with FakeAnswers(SESSIONS)(TrialSettings(**trial.user_attrs["settings"])) as given:
            answers = list(given)
        right = sum(answer.bundles == SESSIONS[0].bundles for answer in answers)
        whole = 0.5  # the Jaccard of two items among four
        assert trial.values[0] == pytest.approx((right + (4 - right) * whole) / 4)
        assert trial.values[1] == answers[0].input_tokens == trial.user_attrs["tokens"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objective": "f1"}, "study 'mine' was made with a different objective: both, not f1"),
        ({"identity": {"seed": 1}}, "different seed: 0, not 1; resume it with its own"),
        (
            {"space": SearchSpace(utilization="SFT")},
            r"different choice of utilization: \['ICL'\], not \['SFT'\]",
        ),
    ],
)
def test_what_a_study_was_made_with_must_stay(
    values: dict[str, Any], message: str, url: str
) -> None:
    def go(*, space: SearchSpace, identity: dict[str, Any], **settings: Any) -> None:
        config = SearchConfig(study="mine", storage=url, trials=1, **settings)
        run_study(FakeAnswers(SESSIONS), SESSIONS, space, config, identity=identity)

    first = {"space": SearchSpace(utilization="ICL"), "identity": {"seed": 0}}
    go(**first)
    go(**first)
    with pytest.raises(SettingError, match=message):
        go(**{**first, **values})


def test_a_study_that_something_else_made_is_left_alone(url: str) -> None:
    study = optuna.create_study(study_name="mine", storage=url)
    study.optimize(lambda trial: 1.0, n_trials=1)
    for attempt in (
        lambda: run(url, 3),
        lambda: read_study(StudyConfig(study="mine", storage=url)),
    ):
        with pytest.raises(
            SettingError, match="'mine' was not made by routedk search: choose anot"
        ):
            attempt()
    assert len(study.trials) == 1


def test_a_study_that_is_not_there(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"study 'mine' is not in .*study.db: there are none"):
        read_study(StudyConfig(study="mine", storage=url))
    assert not (tmp_path / "study.db").exists()
    run(url, 1)
    with pytest.raises(SettingError, match=r"study 'other' is not in .*: there are mine"):
        read_study(StudyConfig(study="other", storage=url))
    assert len(read_study(StudyConfig(study="mine", storage=url)).trials) == 1


@pytest.mark.parametrize(
    ("budget", "trials"),
    [({"minutes": 1e-9}, 0), ({"trials": 3}, 3)],
)
def test_a_budget_is_used_up_by_what_comes_first(
    budget: dict[str, Any], trials: int, url: str
) -> None:
    study = run(url, **{"trials": 5, **budget})
    assert len(study.trials) == trials


def test_a_failure_of_its_own_is_recorded_and_the_study_continues(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    failed: list[int] = []

    def hook(settings: TrialSettings, place: int) -> None:
        if place == 1 and not failed:
            failed.append(place)
            raise SettingError("these settings do not go together")

    with caplog.at_level("INFO", logger="routedk"):
        study = run(url, 3, hook)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[0].user_attrs["failure"] == "these settings do not go together"
    said = [record.message for record in caplog.records]
    assert said[0] == "trial 0 failed: these settings do not go together"
    f1, tokens = study.trials[1].values
    wanted = f"trial 1: matched F1 {f1:.3f}, {tokens:.0f} tokens per session (utilization ICL"
    assert said[1].startswith(wanted)
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt(), RouteDKError("teacher")])
def test_another_error_stops_the_study_and_its_trial_is_first_afterwards(
    error: BaseException, url: str
) -> None:
    def hook(settings: TrialSettings, place: int) -> None:
        if place == 1:
            raise error

    run(url, 1)
    with pytest.raises(type(error)):
        run(url, 3, hook)
    trials = run(url, 3).trials
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[2].params == trials[1].params


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TrialFailure("diverged"), "diverged"),
        (SettingError("no"), "no"),
        (FloatingPointError("loss is nan"), "not finite: loss is nan"),
        (MemoryError("12 GiB\nof 8"), "out of memory: 12 GiB"),
        (caused(RuntimeError("by DSPy"), SettingError("no")), "no"),
        (OSError("disk"), None),
        (RouteDKError("teacher"), None),
    ],
)
def test_which_errors_are_a_trials_own(error: Exception, reason: str | None) -> None:
    assert own_reason(error) == reason


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"study": "a b"}, "study 'a b': a name has letters, digits"),
        ({"trials": 0}, "trials=0: it must be at least 1"),
        ({"heartbeat": 0}, "heartbeat=0: it must be at least 1"),
        ({"max_validation": 0}, "max_validation=0: it must be at least 1"),
        ({"minutes": float("nan")}, "minutes=nan: must be above 0 and finite"),
        ({"seed": -1}, "seed=-1: it must be at least 0"),
        ({"objective": "cost"}, "objective='cost': allowed are both, f1"),
        ({"sampler": "grid"}, "sampler='grid': allowed are tpe, nsgaii, gp, random"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        SearchConfig(**values)


def test_a_study_is_kept_under_its_name() -> None:
    assert SearchConfig().url == "sqlite:///search.db"
    assert ReportConfig(study="mine").url == "sqlite:///mine.db"
    assert ReportConfig(storage="sqlite:///x").url == "sqlite:///x"
