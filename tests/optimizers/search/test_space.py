from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution
from optuna.trial import FixedTrial
from pydantic import ValidationError

from routedk.errors import DataError
from routedk.optimizers.search.corners import corners
from routedk.optimizers.search.dimensions import Range, dimension_of
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.space import SUBSETS, SearchSpace
from routedk.optimizers.search.space_file import read_space


class DrawnTrial:
    """Lets hypothesis choose; keeps what each parameter could be."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.choices: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        CategoricalDistribution(choices)  # refuses what a storage cannot keep
        self.choices[name] = tuple(choices)
        return self.data.draw(st.sampled_from(choices), label=name)

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        self.choices[name] = (low, high, step, log)
        return self.data.draw(st.sampled_from(range(low, high + 1, step)), label=name)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self.choices[name] = (low, high, step, log)
        return self.data.draw(st.floats(low, high), label=name)


RANGES = SearchSpace(
    neighbours={"low": 0, "high": 4},
    rules={"low": 0, "high": 8, "step": 4},
    learning_rate={"low": 1e-4, "high": 1e-2, "log": True},
)


@pytest.mark.parametrize("space", [SearchSpace(), RANGES], ids=["default", "ranges"])
def test_nothing_impossible_is_proposed_and_choices_never_change(space: SearchSpace) -> None:
    seen: dict[str, Any] = {}

    @settings(max_examples=250, deadline=None, derandomize=True, database=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        trial = DrawnTrial(data)
        chosen = space.suggest(trial)  # a TrialSettings refuses what cannot be
        if not chosen.use.trains:
            assert not {"fusion", "experts", "r", "epochs"} & {*map(dimension_of, trial.choices)}
        if chosen.experts and len(chosen.experts) == 1:
            assert "fusion" not in trial.choices
        if chosen.fusion and chosen.fusion.startswith("single:"):
            assert (
                chosen.fusion == f"single:{(chosen.experts or ())[-1]}"
            )  # none is trained in vain
        if chosen.ratio == 1:
            assert "strategy" not in trial.choices  # all of them sample all
        for name, choices in trial.choices.items():
            assert seen.setdefault(name, choices) == choices

    check()


def test_every_kind_of_trial_can_be_proposed() -> None:
    found = {(shape.utilization, shape.formats) for shape in SearchSpace()._shapes}
    assert {formats for use, formats in found if use == "ICL"} == {"none", *SUBSETS}
    # Without an expert of rules or thoughts patterns have no place in training.
    assert {formats for use, formats in found if use == "SFT"} == {
        "none",
        "rule",
        "thought",
        "pattern+rule",
        "rule+thought",
        "pattern+rule+thought",
    }
    assert {formats for use, formats in found if use == "SFT+ICL"} == {*SUBSETS}


def test_one_of_three_experts_alone_is_chosen_where_there_is_no_other_way() -> None:
    space = SearchSpace(utilization="SFT", formats="rule+thought", fusion="single", ratio=1.0)
    params = {"experts": "base+rule+thought", "single": "thought", "enhancement": "greedy"}
    params |= {"r": 4, "learning_rate": 1e-3, "epochs": 2.0}
    params["experts without base, base+rule, base+thought"] = params["experts"]
    assert space.suggest(FixedTrial(params)).fusion == "single:thought"


def test_cheap_corners_come_in_order() -> None:
    space = SearchSpace()
    found = [space.suggest(FixedTrial(params)) for params in corners(space)]
    assert found == [
        TrialSettings(),
        TrialSettings(neighbours=1),
        TrialSettings(formats=("rule",), ratio=0.1, rules=4),
        TrialSettings(formats=("pattern",), ratio=0.1),
        TrialSettings(formats=("thought",), ratio=0.1, neighbours=1),
        TrialSettings(
            utilization="SFT",
            experts=("base",),
            fusion="single:base",
            r=4,
            learning_rate=2e-3,
            epochs=2,
        ),
    ]


def test_corners_outside_a_narrowed_space_are_left_out() -> None:
    space = SearchSpace(utilization="ICL", formats=["none", "rule"], neighbours=2, rules=[8, 16])
    found = [space.suggest(FixedTrial(params)) for params in corners(space)]
    assert found == [TrialSettings(neighbours=2)]
    for params in corners(RANGES):
        RANGES.suggest(FixedTrial(params))


def test_a_space_in_toml(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(
        'utilization = "SFT+ICL"\nformats = ["thought+rule"]\nexperts = "base+rule"\n'
        "rules = [32]\nratio = { low = 0.1, high = 1.0 }\n"
    )
    space = read_space(path)
    assert space.formats == ("rule+thought",)
    assert space.ratio == Range[float](low=0.1, high=1.0)
    params = {
        "strategy": "length",
        "ratio": 0.7,
        "fusion": "single",
        "r": 4,
        "enhancement": "greedy",
    }
    params |= {"learning_rate": 1e-3, "epochs": 2.0, "neighbours without 0": 2}
    assert space.suggest(FixedTrial(params)) == TrialSettings(
        formats=("rule", "thought"),
        strategy="length",
        ratio=0.7,
        utilization="SFT+ICL",
        experts=("base", "rule"),
        fusion="single:rule",
        r=4,
        learning_rate=1e-3,
        epochs=2,
        neighbours=2,
        rules=32,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fusions = 'softmax'", "unknown key 'fusions' (allowed are utilization, formats"),
        ("strategy = ['length', 'size']", "strategy = 'size': input should be 'random', 'length'"),
        ("formats = ['rules']", "formats = ['rules']: 'rules' is none of none, pattern, rule"),
        ("experts = 'rule'", "experts = 'rule': 'rule' is none of base, base+rule"),
        ("r = 0", "r = 0: 0 must be at least 1"),
        ("ratio = [0.5, 1.5]", "ratio = [0.5, 1.5]: 1.5 must be above 0 and at most 1"),
        ("rules = []", "rules = []: "),
        ("rules = ['many']", "rules = 'many': input should be a valid integer"),
        # What could be read as a number, and is none.
        ("rules = [true]", "rules = True: input should be a valid integer"),
        ("rules = true", "rules = True: input should be a valid integer"),
        ("rules = ['4']", "rules = '4': input should be a valid integer"),
        ("ratio = [true]", "ratio = True: input should be a valid number"),
        ("r = { low = true, high = 4 }", "r.low = True: input should be a valid integer"),
        ("r = { low = 1, high = 4, log = 1 }", "r.log = 1: input should be a valid boolean"),
        ("r = { low = 8, high = 4 }", "r = {'low': 8, 'high': 4}: low=8 is above high=4"),
        ("r = { low = 8, hi = 4 }", "r.high = {'low': 8, 'hi': 4}: field required"),
        ("rules = { low = 0, high = 4, log = true }", "log needs low above 0, and no step"),
        (
            "utilization = 'ICL'\nexperts = 'base'",
            "experts: 'base' can never be chosen beside the other dimensions",
        ),
        ("formats = 'none'\nutilization = 'SFT+ICL'", "no combination of these values can be"),
        ("r = ", "not TOML: Invalid value (at end of document)"),
    ],
)
def test_a_broken_space_names_file_key_value_and_what_is_allowed(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_space(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_missing_space_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_space(tmp_path / "space.toml")


def test_in_python_a_value_fixes_a_dimension() -> None:
    assert SearchSpace(r=8).r == (8,)
    with pytest.raises(ValidationError, match="Extra inputs"):
        SearchSpace(rank=8)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_are_finite(number: float) -> None:
    with pytest.raises(ValidationError, match="must be above 0"):
        SearchSpace(epochs=[number])
