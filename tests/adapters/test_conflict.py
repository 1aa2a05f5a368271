"""The parts of `benchmarks.conflict`, on the tiny student."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from routedk.adapters.student import Student
from routedk.adapters.training.examples import TrainingRow, training_rows
from routedk.errors import SettingError
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import KnowledgeBase, Session


@pytest.fixture
def conflict(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from benchmarks import conflict_report, conflict_systems

    return conflict_systems, conflict_report


@pytest.fixture
def rows(
    loaded: Student, sessions: list[Session], knowledge: KnowledgeBase
) -> dict[str, list[TrainingRow]]:
    shown = CompiledKnowledge(
        rules=tuple(rule.text for rule in knowledge.rules),
        sessions=tuple(sessions),
        thoughts={thought.session_id: thought.text for thought in knowledge.thoughts},
    )
    made = training_rows(loaded.tokenizer, sessions, shown, ("rule", "thought"))
    return {
        "rule": [row for row in made if row.expert == 0],
        "thought": [row for row in made if row.expert == 1],
    }


def _row(prompt: int, line: int) -> TrainingRow:
    return TrainingRow(tuple(range(prompt)), ((tuple(range(line)), 1),), (0, 1), 0)


def test_rows_are_taken_up_to_the_tokens_and_again_only_when_all_were(conflict: Any) -> None:
    systems, _ = conflict
    few = [_row(6, 4), _row(16, 4), _row(26, 4)]
    assert [systems.row_tokens(row) for row in few] == [10, 20, 30]
    assert sorted(map(few.index, systems.within(few, 60, 0))) == [0, 1, 2]
    twice = systems.within(few, 120, 0)
    assert sorted(map(few.index, twice[:3])) == sorted(map(few.index, twice[3:])) == [0, 1, 2]
    for tokens in range(10, 140):
        spent = sum(map(systems.row_tokens, systems.within(few, tokens, 1)))
        assert tokens - 30 < spent <= tokens
    with pytest.raises(SettingError, match="9 tokens are not enough for one row"):
        systems.within(few, 9, 0)


def test_every_system_gets_the_same_tokens_and_begins_alike(
    conflict: Any, rows: dict[str, list[TrainingRow]], student_folder: Path, tmp_path: Path
) -> None:
    systems, _ = conflict
    budget = systems.Budget(tokens=4000, r=2, layers=2, batch_size=2)
    shortest = min(systems.row_tokens(row) for mine in rows.values() for row in mine)
    trained = {
        name: systems.train_system(recipe, str(student_folder), rows, tmp_path / name, budget)
        for name, recipe in systems.RECIPES.items()
    }
    for name, training in trained.items():
        parts = 2 * len(training["tokens"]) if name == "routed" else 2
        assert 4000 - parts * 2 * shortest < sum(training["tokens"].values()) <= 4000
    assert trained["routed"]["tokens"]["router"] <= 600
    assert trained["routed"]["parameters"] == 2 * trained["mixed"]["parameters"]
    assert {path.name for path in tmp_path.iterdir()} == set(systems.RECIPES)
    before = _weights(tmp_path / "routed")
    again = systems.train_system(
        systems.RECIPES["routed"], str(student_folder), rows, tmp_path / "routed", budget
    )
    assert again == trained["routed"]
    assert all(torch.equal(before[name], tensor) for name, tensor in before.items())


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.name}:{name}": tensor
        for path in folder.glob("expert_*/*.safetensors")
        for name, tensor in load_file(path).items()
    }


def test_a_cut_training_ends_where_an_uncut_one_does(
    conflict: Any,
    rows: dict[str, list[TrainingRow]],
    student_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    systems, _ = conflict
    budget = systems.Budget(tokens=4000, r=2, layers=2, batch_size=2)
    recipe = systems.RECIPES["routed"]
    systems.train_system(recipe, str(student_folder), rows, tmp_path / "whole", budget)

    def cut(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(systems, "train_router", cut)
        with pytest.raises(KeyboardInterrupt):
            systems.train_system(recipe, str(student_folder), rows, tmp_path / "cut", budget)
    assert not (tmp_path / "cut").exists()
    systems.train_system(recipe, str(student_folder), rows, tmp_path / "cut", budget)
    whole, resumed = _weights(tmp_path / "whole"), _weights(tmp_path / "cut")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_differences_are_of_the_prompts_in_common(conflict: Any) -> None:
    systems, report = conflict
    level = {"rules": 0.1, "thoughts": 0.2, "mixed": 0.3, "routed": 0.5}
    scores = {
        (name, prompt, grouping): [level[name] + 0.1 * (prompt == "rule")] * 4
        for name, recipe in systems.RECIPES.items()
        for prompt in recipe.prompts
        for grouping in report.GROUPINGS
    }
    scores["routed", "base", "equal"] = [0.7, 0.5, 0.5, 0.3]
    found = {
        (d["system"], d["minus"], d["prompt"], d["grouping"]): d
        for d in report.differences(scores, 0)
    }
    prompts = {key[2] for key in found if key[:2] == ("routed", "rules")}
    assert prompts == {"base", "rule", report.EVERY}
    one = found["routed", "mixed", "thought", "equal"]
    assert one["value"] == one["low"] == one["high"] == pytest.approx(0.2)
    spread = found["routed", "mixed", "base", "equal"]
    assert spread["value"] == pytest.approx(0.2)
    assert spread["low"] < 0.2 < spread["high"]
    assert found["routed", "thoughts", report.EVERY, "similar"]["value"] == pytest.approx(0.3)
    means = {(m["system"], m["prompt"]): m["value"] for m in report.intervals(scores, 0)}
    assert means["mixed", "rule"] == pytest.approx(0.4)
