import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from routedk.adapters.experts.joined import join_experts, merge_gates
from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent
from routedk.adapters.student import Student
from routedk.adapters.training.examples import training_rows
from routedk.adapters.training.fit import FitSettings, fit_rows
from routedk.adapters.training.stages import TrainingSettings
from routedk.errors import ArtifactError, SettingError
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import KnowledgeBase, Session

from .conftest import copy_of, randomise

SHAPE = ExpertSettings(r=4, lora_alpha=8, layers=2)


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / f"expert_{name}" / "adapter_model.safetensors")


@pytest.fixture
def apart(loaded: Student, tmp_path: Path) -> list[Path]:
    """Two experts, each in a folder of its own."""
    folders = []
    for seed, name in enumerate(("base", "rule")):
        routed = RoutedStudent(copy_of(loaded), replace(SHAPE, experts=(name,)), "uniform")
        folders.append(tmp_path / name)
        randomise(routed, seed=seed).save(
            folders[-1], {"training": {"answer_form": "bundles", "sessions": seed}}
        )
    return folders


def test_experts_are_what_they_were(loaded: Student, apart: list[Path], tmp_path: Path) -> None:
    joined = join_experts(copy_of(loaded), apart, tmp_path / "both", "single:rule")
    assert (joined.settings, joined.fusion_name) == (
        replace(SHAPE, experts=("base", "rule")),
        "single:rule",
    )
    for folder, name in zip(apart, ("base", "rule"), strict=True):
        mine, theirs = weights(tmp_path / "both", name), weights(folder, name)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    training = json.loads((tmp_path / "both" / "routing.json").read_text())["training"]
    assert training["answer_form"] == "bundles"
    assert [one["sessions"] for one in training["apart"]] == [0, 1]
    again = RoutedStudent.load(tmp_path / "both", student=copy_of(loaded))
    assert again.fingerprint() == joined.fingerprint()


def test_what_does_not_fit(
    loaded: Student, student: Student, apart: list[Path], tmp_path: Path
) -> None:
    other = RoutedStudent(
        copy_of(loaded), replace(SHAPE, experts=("thought",), lora_alpha=4), "uniform"
    )
    other.save(tmp_path / "other")
    with pytest.raises(SettingError, match=r"other: experts of the shape .*lora_alpha=4"):
        join_experts(student, [*apart, tmp_path / "other"], tmp_path / "all")
    with pytest.raises(SettingError, match="no name twice"):
        join_experts(student, [apart[0], apart[0]], tmp_path / "all")
    with pytest.raises(SettingError, match="fusion 'softmax': it is uniform or single:EXPERT"):
        join_experts(student, apart, tmp_path / "all", "softmax")
    with pytest.raises(SettingError, match="fusion 'merged': the router's mean gates"):
        merge_gates(student, apart[0], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_an_expert_starts_from_another(
    loaded: Student,
    sessions: list[Session],
    knowledge: KnowledgeBase,
    apart: list[Path],
    tmp_path: Path,
) -> None:
    # A rate at which nothing moves: what is saved is what it started from.
    stage = TrainingSettings(epochs=1, learning_rate=1e-30, batch_size=8, bf16=False)
    alone = FitSettings(experts=replace(SHAPE, experts=("rule",)), base=stage, fusion="uniform")
    shown = CompiledKnowledge(
        rules=tuple(rule.text for rule in knowledge.rules),
        thoughts={thought.session_id: thought.text for thought in knowledge.thoughts},
    )
    rows = training_rows(loaded.tokenizer, sessions, shown, ("rule",))
    start = apart[0] / "expert_base"
    fit_rows(copy_of(loaded), rows, tmp_path / "trained", alone, start=start)
    mine, theirs = weights(tmp_path / "trained", "rule"), weights(apart[0], "base")
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    with pytest.raises(SettingError, match="the first must be base"):
        fit_rows(copy_of(loaded), rows, tmp_path / "no", alone)
    with pytest.raises(ArtifactError, match="missing or damaged"):
        fit_rows(copy_of(loaded), rows, tmp_path / "no", alone, start=tmp_path / "nowhere")
    other = replace(alone, experts=replace(alone.experts, r=2))
    with pytest.raises(ArtifactError, match="missing or damaged"):
        fit_rows(copy_of(loaded), rows, tmp_path / "no", other, start=start)
