"""One stage of training: its loss, its gradients with and without checkpointing, its sample."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from routedk.adapters.experts.fused import fused_layers
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.student import Student
from routedk.adapters.train import TrainConfig
from routedk.adapters.training.examples import TrainingRow
from routedk.adapters.training.fit import fit
from routedk.adapters.training.stage import expert_stage, router_stage
from routedk.adapters.training.trainer import RoutedTrainer
from routedk.errors import TrainingDivergedError
from routedk.files import read_json
from tests.adapters.conftest import LAYERS, copy_of, randomise

CONFIG = TrainConfig(epochs=1, learning_rate=1e-3, batch_size=8, bf16=False)
STAGE = expert_stage(CONFIG, first=True)


def build(student: Student, fusion: str, *experts: str) -> RoutedStudent:
    settings = ExpertSettings(r=4, lora_alpha=8, layers=2, experts=experts or ("a", "b", "c"))
    return randomise(RoutedStudent(copy_of(student), settings, fusion))


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The gradients of the latest step, by parameter."""
    found: dict[str, Tensor] = {}
    whole = RoutedTrainer.training_step

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = whole(self, *args, **kwargs)
        found.update((n, p.grad.clone()) for n, p in self.model.named_parameters())
        return loss

    monkeypatch.setattr(RoutedTrainer, "training_step", training_step)
    return found


@pytest.mark.parametrize("fusion", ["expert", "softmax", "layerwise", "sparsegen"])
def test_checkpointing_changes_no_gradient(
    fusion: str,
    loaded: Student,
    rows: list[TrainingRow],
    gradients: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    """Of an expert, and of routers with gates per session, per layer and per token."""
    seen = []
    for recompute in (False, True):
        alone = fusion == "expert"
        routed = build(loaded, "uniform", "base") if alone else build(loaded, fusion)
        runs: list[int] = []
        lowest = fused_layers(routed.model)[0]
        lowest.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        stage = replace(STAGE, gradient_checkpointing=recompute)
        folder = tmp_path / str(recompute)
        folder.mkdir()
        fit(routed, rows[:2], stage, folder, folder)
        assert len(runs) == 1 + recompute
        record: Any = read_json(folder / "training.json")
        seen.append((record["curve"][0]["loss"], dict(gradients)))
        assert not routed.student.model.is_activation_checkpointing
    assert seen[0][0] == pytest.approx(seen[1][0], rel=1e-5)
    assert seen[0][1].keys() == seen[1][1].keys()
    for name, gradient in seen[0][1].items():
        torch.testing.assert_close(seen[1][1][name], gradient, rtol=1e-4, atol=1e-6)


def test_the_loss_is_that_of_separate_rows(
    loaded: Student, rows: list[TrainingRow], tmp_path: Path
) -> None:
    """The first step's loss, from prepared layers and a tree, against plain forward passes."""
    routed, row = build(loaded, "uniform", "base"), rows[8]
    total, count = 0.0, 0
    for line, given in row.lines:
        ids = torch.tensor([[*row.prompt.ids, *line]])
        with torch.no_grad():
            scores = routed.model(input_ids=ids).logits[0].log_softmax(-1)
        for place in range(len(row.prompt.ids) + given, ids.shape[1]):
            total -= float(scores[place - 1, ids[0, place]])
            count += 1
    fit(routed, [row], STAGE, tmp_path, tmp_path)
    record: Any = read_json(tmp_path / "training.json")
    point = record["curve"][0]
    assert point["loss"] == pytest.approx(total / count, rel=1e-3)
    assert point["tokens"] == len(row.prompt.ids) + sum(len(line) for line, _ in row.lines)


def test_the_student_is_as_before(loaded: Student, rows: list[TrainingRow], tmp_path: Path) -> None:
    routed = build(loaded, "uniform", "base")
    expert = [p.clone() for n, p in routed.model.named_parameters() if "lora_" in n]
    fit(routed, rows, STAGE, tmp_path, tmp_path)
    assert not any(p.requires_grad for p in routed.model.parameters())
    after = [p for n, p in routed.model.named_parameters() if "lora_" in n]
    assert all(not torch.equal(*pair) for pair in zip(expert, after, strict=True))
    model = routed.unload().model
    assert "forward" not in model.__dict__
    assert len(model.model.layers) == LAYERS
    before = loaded.model.state_dict()
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_student_in_bfloat16_is_trained(
    loaded: Student, rows: list[TrainingRow], tmp_path: Path
) -> None:
    base = copy_of(loaded)
    base.model.to(torch.bfloat16)
    routed = build(base, "softmax")
    routed.use_fusion("softmax")
    stage = router_stage(replace(CONFIG, router_share=1.0))
    fit(routed, rows, stage, tmp_path, tmp_path)
    assert routed.student.model.dtype == torch.bfloat16
    assert any(bool(p.any()) for p in routed.fusion.parameters())
    assert all(bool(p.isfinite().all()) for p in routed.fusion.parameters())


def test_a_share_of_the_rows() -> None:
    rows = list(range(10))
    assert STAGE.sample(rows) == rows
    some = replace(STAGE, share=0.3, seed=1).sample(rows)
    assert len(some) == 3
    assert some == sorted(some)
    assert len(replace(STAGE, share=0.01).sample(rows)) == 1


def test_training_that_diverges_is_not_kept(
    loaded: Student, rows: list[TrainingRow], tmp_path: Path
) -> None:
    routed = build(loaded, "uniform", "base")
    with pytest.raises(TrainingDivergedError, match=r"at step \d .*lower --learning-rate"):
        fit(routed, rows, replace(STAGE, learning_rate=1e30, epochs=3), tmp_path, tmp_path)
    assert not (tmp_path / "training.json").exists()
