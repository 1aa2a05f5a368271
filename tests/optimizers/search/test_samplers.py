import logging

import optuna
import pytest
from optuna.trial import TrialState

from routedk.optimizers.search.corners import corners
from routedk.optimizers.search.proposal import Proposal
from routedk.optimizers.search.samplers import SAMPLERS, SeededSampler
from routedk.optimizers.search.space import SearchSpace

# Without rules: two. With rules: two strategies, zero or two neighbours, four or eight rules.
CONFIGURATIONS = 10
SMALL = SearchSpace(
    utilization="ICL",
    formats=["none", "rule"],
    strategy=["random", "diversity"],
    ratio=1.0,
    neighbours=[0, 2],
    rules=[0, 4, 8],
    enhancement="greedy",
)


def ask(study: optuna.Study, space: SearchSpace = SMALL) -> optuna.Trial:
    trial = study.ask()
    space.suggest(trial)
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
    new = [trial.params for trial in study.trials[:CONFIGURATIONS]]
    assert all(params not in new[:place] for place, params in enumerate(new))


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
        study.enqueue_trial({"utilization": utilization, "enhancement": "likelihood"})
        trial = ask(study, space)
        assert trial.params["utilization"] == utilization
        assert trial.params["enhancement"] == "likelihood"
        assert ("epochs" in trial.params) == (utilization == "SFT")
    assert [trial.state for trial in study.trials[8:]] == [TrialState.RUNNING] * 2


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
