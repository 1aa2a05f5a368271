import logging
from typing import Any

import optuna
import pytest
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.trial import FrozenTrial, TrialState

from routedk.optimizers.search.corners import corners
from routedk.optimizers.search.proposal import Proposal
from routedk.optimizers.search.samplers import SAMPLERS, SeededSampler
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.space import SearchSpace
from routedk.optimizers.search.storage import open_storage
from routedk.optimizers.search.workers import Worker, give_back, retry_of, worker_of

# Without rules: two. With rules: of a sample by two strategies, or of all sessions; zero or two
# neighbours, four or eight rules.
CONFIGURATIONS = 14
SMALL = SearchSpace(
    utilization="ICL",
    formats=["none", "rule"],
    strategy=["random", "diversity"],
    ratio=[0.5, 1.0],
    neighbours=[0, 2],
    rules=[0, 4, 8],
    enhancement="greedy",
)


def ask(study: optuna.Study, space: SearchSpace = SMALL) -> optuna.Trial:
    trial = study.ask()
    trial.set_user_attr("settings", space.suggest(trial).to_dict())
    return trial


def seeded(sampler: str = "tpe", seed: int = 0, space: SearchSpace = SMALL) -> optuna.Study:
    study = optuna.create_study(directions=["maximize"])
    study.sampler = SeededSampler(study, sampler, seed, space, corners(space))
    return study


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_nothing_is_proposed_twice_while_there_is_something_new(
    sampler: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "routedk")
    study = seeded(sampler)
    for place in range(CONFIGURATIONS + 2):
        trial = ask(study)
        # One is better by far: a sampler alone would propose it again and again.
        study.tell(trial, float(place == 1))
        assert ("repeats" in caplog.text) == (place >= CONFIGURATIONS)
    new = [trial.user_attrs["settings"] for trial in study.trials[:CONFIGURATIONS]]
    assert all(settings not in new[:place] for place, settings in enumerate(new))


def test_a_seed_makes_the_same_trials_and_another_makes_others() -> None:
    def first(seed: int) -> list[dict[str, object]]:
        study = seeded(seed=seed, space=SearchSpace())
        return [ask(study, SearchSpace()).params for _ in range(12)]

    assert first(0) == first(0)
    assert first(0) != first(1)
    # Not those of the other, one place further.
    assert not [params for params in first(1)[6:] if params in first(0)]


def test_a_queued_trial_keeps_its_values_and_gets_what_it_lacks() -> None:
    space = SearchSpace()
    study = seeded(space=space)
    for _ in range(8):
        study.tell(ask(study, space), 0.5)
    for utilization in ("ICL", "SFT"):
        study.enqueue_trial({"utilization": utilization, "enhancement": "consensus"})
        trial = ask(study, space)
        assert trial.params["utilization"] == utilization
        assert trial.params["enhancement"] == "consensus"
        assert ("epochs" in trial.params) == (utilization == "SFT")
    assert [trial.state for trial in study.trials[8:]] == [TrialState.RUNNING] * 2


class Killed(Exception):
    pass


class CutTrial:
    """Is killed when it asks for one parameter too many."""

    def __init__(self, trial: optuna.Trial, after: int) -> None:
        self._trial = trial
        self._left = after

    def __getattr__(self, name: str) -> Any:
        if not self._left:
            raise Killed
        self._left -= 1
        return getattr(self._trial, name)


@pytest.mark.parametrize("others", [0, 2], ids=["alone", "others end meanwhile"])
@pytest.mark.parametrize("after", [1, 2, 4])
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_trial_that_was_cut_between_two_parameters_goes_on_with_them(
    sampler: str, after: int, others: int
) -> None:
    space = SearchSpace()

    def begun() -> optuna.Study:
        study = seeded(sampler, space=space)
        for place in range(8):
            study.tell(ask(study, space), place / 8)
        return study

    whole = ask(begun(), space).params
    study = begun()
    cut = study.ask()
    with pytest.raises(Killed):
        space.suggest(CutTrial(cut, after))
    for _ in range(others):
        study.tell(ask(study, space), 0.9)
    give_back(study, study.tell(cut, state=TrialState.FAIL))
    again = ask(study, space)
    assert retry_of(study.trials[again.number]) == cut.number
    assert dict(list(again.params.items())[:after]) == dict(list(whole.items())[:after])
    if not others:
        assert again.params == whole


def test_a_trial_that_was_cut_is_not_what_another_tried(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "routedk")
    study = seeded()
    for _ in range(CONFIGURATIONS - 1):
        study.tell(ask(study), 0.5)
    cut = ask(study)
    give_back(study, study.tell(cut, state=TrialState.FAIL))
    assert ask(study).params == cut.params
    assert "repeats" not in caplog.text


@pytest.mark.parametrize("seed", range(5))
def test_a_trial_that_was_queued_in_part_is_new(seed: int) -> None:
    study = seeded(seed=seed)
    for _ in range(8):
        study.tell(ask(study), 0.5)
    study.enqueue_trial({"neighbours": 0})
    tried = [trial.user_attrs["settings"] for trial in study.trials[:8]]
    queued = ask(study)
    assert queued.params["neighbours"] == 0
    assert queued.user_attrs["settings"] not in tried


def test_trials_under_way_at_once_differ() -> None:
    study = seeded()
    for _ in range(CONFIGURATIONS // 2):
        one, other = study.ask(), study.ask()
        settings = [SMALL.suggest(one), SMALL.suggest(other)]
        for trial in (one, other):
            study.tell(trial, 0.5)
        assert settings[0] != settings[1]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_trial_has_a_worker_and_a_heartbeat_before_anything_is_proposed(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(url)
    assert isinstance(storage, BaseHeartbeat)
    seen: list[Any] = []
    monkeypatch.setattr(storage, "record_heartbeat", seen.append)

    def proposed(self: SeededSampler, study: optuna.Study, trial: FrozenTrial, *_: object) -> Any:
        seen.append(worker_of(study.trials[trial.number]))
        return {}, TrialSettings()

    monkeypatch.setattr(SeededSampler, "_proposed", proposed)
    study = optuna.create_study(storage=storage)
    study.sampler = SeededSampler(study, "tpe", 0, SMALL, [])
    trial = study.ask()
    assert seen == [trial._trial_id, Worker.here()]


def test_a_proposal_tells_the_trial_nothing() -> None:
    study = optuna.create_study()
    study.ask()
    (trial,) = study.trials
    proposal = Proposal(optuna.samplers.RandomSampler(seed=0), study, trial, {"a": 3})
    asked = [
        proposal.suggest_int("a", 0, 9),
        proposal.suggest_int("b", 0, 8, step=2),
        proposal.suggest_float("c", 1e-3, 1.0, log=True),
        proposal.suggest_categorical("d", ("x", "y")),
    ]
    assert asked == list(proposal.params.values())
    assert asked[0] == 3
    assert asked[1] in range(0, 9, 2)
    assert 1e-3 <= asked[2] <= 1.0
    assert asked[3] in "xy"
    assert study.trials[0].params == {}
