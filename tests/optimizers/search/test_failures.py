"""What a study does where a trial, or what it stands on, fails."""

import logging
from typing import Any

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from routedk.errors import SettingError
from routedk.optimizers.search import objective
from routedk.optimizers.search.corners import corners
from routedk.optimizers.search.failure import TrialFailure, own_reason
from routedk.optimizers.search.samplers import SeededSampler
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.testing import Hook
from routedk.optimizers.search.workers import give_back
from tests.optimizers.search.study_worker import SESSIONS, SPACE, run


def fail_with(error: Exception, *, times: int = 1) -> Hook:
    left = times

    def hook(settings: TrialSettings, place: int) -> None:
        nonlocal left
        if place == 1 and settings.formats == ("rule",) and left:
            left -= 1
            raise error

    return hook


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TrialFailure("the loss is nan at step 3"), "the loss is nan at step 3"),
        (SettingError("r=64: too much"), "r=64: too much"),
        (FloatingPointError("loss"), "not finite: loss"),
        (MemoryError("no more\nat all"), "out of memory: no more"),
        (MemoryError(), "out of memory"),
    ],
)
def test_a_trials_own_failure_is_told_by_its_reason(error: Exception, reason: str) -> None:
    assert own_reason(error) == reason


def test_a_language_models_error_is_looked_behind() -> None:
    from dspy.utils.exceptions import LMUnexpectedError

    outer = LMUnexpectedError("engine failed")
    assert own_reason(outer) is None
    outer.__cause__ = MemoryError()
    assert own_reason(outer) == "out of memory"
    assert own_reason(OSError("disk full")) is None


def test_a_trial_that_fails_for_its_own_reason_is_recorded_and_the_study_goes_on(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="routedk"):
        study = run(url, 4, fail_with(SettingError("r=64: too much")))
    assert [trial.state.name for trial in study.trials] == [
        *("COMPLETE", "COMPLETE", "FAIL", "COMPLETE")
    ]
    assert study.trials[2].user_attrs["failure"] == "r=64: too much"
    # Of the session that it answered before.
    assert study.trials[2].user_attrs["tokens_spent"] > 0
    assert "trial 2 fail, r=64: too much, " in caplog.text
    assert "trial 3 complete, f1 0." in caplog.text
    assert "tokens a session" in caplog.text
    assert "4 trials are done" in caplog.text


def test_a_broken_disk_stops_the_study_and_its_trial_is_first_afterwards(url: str) -> None:
    with pytest.raises(OSError, match="disk full"):
        run(url, 4, fail_with(OSError("disk full")))
    study = run(url, 4)
    assert [trial.state.name for trial in study.trials] == [
        *("COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE")
    ]
    assert study.trials[3].params == study.trials[2].params
    assert len(study.trials[3].user_attrs["scores"]) == len(SESSIONS)


def test_a_broken_metric_stops_the_study(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(gold: Any, found: Any) -> float:
        raise ZeroDivisionError("no bundle")

    with monkeypatch.context() as patch:
        patch.setattr(objective, "matched_f1", broken)
        with pytest.raises(ZeroDivisionError, match="no bundle"):
            run(url, 4)
    study = run(url, 4)
    assert [trial.state.name for trial in study.trials] == ["FAIL", *["COMPLETE"] * 4]


def test_a_trial_that_is_interrupted_before_it_begins_is_queued_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SeededSampler, "_proposed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(url, 2)
    study = run(url, 2)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert [trial.params for trial in study.trials[1:]] == corners(SPACE)[:2]


def test_a_trial_that_was_taken_for_dead_is_queued_once(url: str) -> None:
    def taken(settings: TrialSettings, place: int) -> None:
        if place == 0:
            study = optuna.load_study(study_name="mine", storage=url)
            give_back(study, study.tell(0, state=TrialState.FAIL))

    with pytest.raises((ValueError, UpdateFinishedTrialError)):
        run(url, 2, taken)
    study = run(url, 2)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]


def test_a_disk_may_be_broken_many_times_and_no_trial_is_lost(url: str) -> None:
    for _ in range(5):
        with pytest.raises(OSError, match="disk full"):
            run(url, 4, fail_with(OSError("disk full")))
    study = run(url, 4)
    states = [trial.state.name for trial in study.trials]
    assert states == [*["COMPLETE"] * 2, *["FAIL"] * 5, *["COMPLETE"] * 2]
    assert all(trial.params == study.trials[2].params for trial in study.trials[3:8])
