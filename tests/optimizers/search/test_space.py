from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution
from optuna.trial import FixedTrial
from pydantic import ValidationError

from routedk.errors import DataError
from routedk.optimizers.search.space import SearchSpace, TrialSettings, read_space
from routedk.programs.knowledge.utilization import is_shown, is_trained


class DrawnTrial:
    """Lets hypothesis choose; keeps what each parameter could be."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.choices: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        CategoricalDistribution(choices)  # refuses what a storage cannot keep
        self.choices[name] = tuple(choices)
        return self.data.draw(st.sampled_from(choices), label=name)


def test_nothing_impossible_is_proposed_and_choices_never_change() -> None:
    space = SearchSpace()
    seen: dict[str, Any] = {}

    @settings(max_examples=250, deadline=None, derandomize=True, database=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        trial = DrawnTrial(data)
        chosen = space.suggest(trial)  # type: ignore[arg-type]
        asked = {name.partition(" without ")[0] for name in trial.choices}
        if not is_trained(chosen.utilization):
            assert not {"fusion", "experts", "r", "epochs"} & asked
        for name in chosen.formats:  # none is made in vain
            shown = {"pattern": True, "rule": chosen.rules > 0, "thought": chosen.neighbours > 0}
            assert name in (chosen.experts or ()) or (is_shown(chosen.utilization) and shown[name])
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
    space = SearchSpace()
    possible: dict[str, dict[str, None]] = {}
    for utilization, formats, _ in space._combinations():
        possible.setdefault(utilization, {})[formats] = None
    assert {name: tuple(formats) for name, formats in possible.items()} == {
        "ICL": space.formats,
        # Patterns are shown in prompts; no expert learns from them.
        "SFT": ("none", "rule", "thought", "rule+thought"),
        "SFT+ICL": space.formats[1:],
    }


def test_a_space_in_toml(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(
        'utilization = "SFT+ICL"\nformats = ["rule+thought"]\nexperts = "base+rule"\n'
        "rules = [32]\nratio = [0.1, 0.7]\n"
    )
    space = read_space(path)
    assert space.formats == ("rule+thought",)
    assert space.ratio == (0.1, 0.7)
    params = {
        "strategy": "length",
        "ratio": 0.7,
        "fusion": "single",
        "r": 4,
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
        ("fusions = 'softmax'", "fusions: Extra inputs are not permitted"),
        ("fusions = 'softmax'", "dimensions are utilization, formats, strategy"),
        ("strategy = ['length', 'size']", "strategy.2: Input should be 'random', 'length'"),
        ("formats = ['rules']", "formats.1: Input should be 'none', 'pattern', 'rule'"),
        ("experts = 'rule'", "experts.1: Input should be 'base', 'base+rule'"),
        ("r = 0", "greater than or equal to 1, found 0"),
        ("ratio = [0.5, 1.5]", "less than or equal to 1, found 1.5"),
        ("rules = []", "at least 1 item"),
        ("rules = ['many']", "Input should be a valid integer, found 'many'"),
        # What could be read as a number, and is none.
        ("rules = true", "Input should be a valid integer, found True"),
        ("ratio = [true]", "Input should be a valid number, found True"),
        ("epochs = [nan]", "not TOML: nan is not a number"),
        ("r = { low = 1, high = 4 }", "Input should be a valid tuple"),
        ("formats = 'pattern'\nutilization = 'SFT'", "no combination of these values is possible"),
        ("formats = 'rule'\nrules = 0\nutilization = 'ICL'", "no combination of these values"),
        (f"r = {'[' * 500}", "not TOML: nested too deeply"),
        (f"{'a.' * 500}b = 1", "not TOML: nested more than 64 deep"),
        (f"r = {'9' * 5000}", "not TOML: Exceeds the limit (4300 digits)"),
        (f"r = {'9' * 50}", "not TOML: a number of more than 128 bits"),
        (f"r = '{'x' * 5000}'", "found 'xxxx"),
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
    assert len(str(caught.value)) <= 300


def test_a_missing_space_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_space(tmp_path / "space.toml")


def test_in_python_a_value_fixes_a_dimension() -> None:
    assert SearchSpace(r=8).r == (8,)
    with pytest.raises(ValidationError, match="Extra inputs"):
        SearchSpace(rank=8)
