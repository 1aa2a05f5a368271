"""The trainer: gradients with and without checkpointing, precision, one run or several."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from routedk.adapters.experts.fused import fused_layers
from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent
from routedk.adapters.student import Student
from routedk.adapters.training.examples import training_rows
from routedk.adapters.training.fit import FitSettings, fit
from routedk.adapters.training.router_training import RouterTraining
from routedk.adapters.training.stages import (
    PreparedRow,
    RoutedTrainer,
    TrainingSettings,
    prepare,
    train_experts,
    train_router,
)
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import KnowledgeBase, Session

from .conftest import copy_of, randomise

ONCE = TrainingSettings(
    epochs=1, learning_rate=1e-3, batch_size=8, save_steps=9, warmup_steps=0, bf16=False
)


@pytest.fixture
def prepared(
    loaded: Student, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> list[PreparedRow]:
    """Two rows of each expert."""
    routed = build(loaded, "softmax")
    shown = CompiledKnowledge(
        rules=tuple(rule.text for rule in knowledge.rules),
        sessions=tuple(sessions),
        thoughts={thought.session_id: thought.text for thought in knowledge.thoughts},
    )
    rows = training_rows(routed.tokenizer, sessions[:2], shown, routed.settings.experts)
    return prepare(routed, rows, tmp_path / "prepared", ONCE)


def build(student: Student, fusion: str) -> RoutedStudent:
    settings = ExpertSettings(r=4, lora_alpha=8, layers=2)
    return randomise(RoutedStudent(copy_of(student), settings, fusion))


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Of the latest step, by parameter."""
    found: dict[str, Tensor] = {}
    whole = RoutedTrainer.training_step

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = whole(self, *args, **kwargs)
        found.clear()
        found.update((n, p.grad.clone()) for n, p in self._trained().items() if p.grad is not None)
        return loss

    monkeypatch.setattr(RoutedTrainer, "training_step", training_step)
    return found


@pytest.mark.parametrize("fusion", ["softmax", "layerwise", "sparsegen"])
def test_checkpointing_changes_no_gradient(
    fusion: str,
    loaded: Student,
    prepared: list[PreparedRow],
    gradients: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    """Of experts and router at once, with gates per session, per layer and per token."""
    how = RouterTraining(method="joint", balance=0.1, sparsity=0.1, most_experts=1)
    seen = []
    for again in (False, True):
        routed = build(loaded, fusion)
        runs: list[int] = []
        lowest = fused_layers(routed.model)[0]
        hook = lowest.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        settings = replace(ONCE, gradient_checkpointing=again)
        losses = train_router(routed, prepared, tmp_path / str(again), settings, how)
        hook.remove()
        assert len(runs) == 1 + again
        seen.append((losses[0]["loss"], dict(gradients)))
        assert not routed.student.model.is_gradient_checkpointing
    assert seen[0][0] == pytest.approx(seen[1][0], rel=1e-5)
    assert seen[0][1].keys() == seen[1][1].keys()
    assert any("router" in name for name in seen[0][1])
    for name, gradient in seen[0][1].items():
        torch.testing.assert_close(seen[1][1][name], gradient, rtol=1e-4, atol=1e-6)


def test_a_frozen_layer_stacks_nothing(loaded: Student) -> None:
    class Counter(TorchDispatchMode):
        stacked = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.stacked += func.overloadpacket is torch.ops.aten.cat
            return func(*args, **(kwargs or {}))

    routed = build(loaded, "softmax")
    routed.gate_state.settled = dict.fromkeys(range(2), torch.rand(2, 1, 3 * routed.settings.r))
    for frozen in (False, True):
        if frozen:
            routed.freeze()
        with torch.no_grad(), Counter() as counter:
            for layer in fused_layers(routed.model):
                layer(torch.randn(2, 4, layer.in_features))
        assert counter.stacked == (0 if frozen else 2 * 14)


def test_precision_follows_the_student(loaded: Student) -> None:
    """In bfloat16, sessions with different gates in one batch, one-hot ones among them."""
    base = copy_of(loaded)
    base.model.to(torch.bfloat16)
    routed = randomise(RoutedStudent(base, ExpertSettings(r=4, layers=2)))
    ids = torch.randint(5, 200, (3, 7))
    gates = torch.tensor([[0.0, 1.0, 0.0], [0.2, 0.3, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    outputs = []
    for frozen in (False, True):
        if frozen:
            routed.freeze()
        with torch.no_grad(), routed.gate_state.use(gates):
            outputs.append(routed.model(input_ids=ids).logits)
    assert outputs[0].dtype == torch.bfloat16
    assert torch.equal(*outputs)
    for layer in fused_layers(routed.model):
        assert layer.frozen_cat is not None
        weight = layer.get_base_layer().weight
        assert {t.dtype for t in layer.frozen_cat} == {weight.dtype}
        assert {t.device for t in layer.frozen_cat} == {weight.device}
    for row in range(3):
        with torch.no_grad(), routed.gate_state.use(gates[[row]]):
            alone = routed.model(input_ids=ids[[row]]).logits
        torch.testing.assert_close(outputs[0][[row]], alone, rtol=0.05, atol=0.5)


def test_a_student_in_bfloat16_is_trained(
    loaded: Student, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    base = copy_of(loaded)
    base.model.to(torch.bfloat16)
    settings = FitSettings(
        experts=ExpertSettings(r=4, layers=2), base=ONCE, knowledge=ONCE, router=ONCE
    )
    routed = fit(base, sessions[:2], knowledge, tmp_path / "e", settings)
    assert routed.student.model.dtype == torch.bfloat16
    assert all(bool(p.isfinite().all()) for p in routed.model.parameters())
    assert any(bool(p.any()) for p in routed.fusion.parameters())


def test_an_expert_in_a_mixed_batch_gets_its_own_gradient(
    loaded: Student, prepared: list[PreparedRow], gradients: dict[str, Tensor], tmp_path: Path
) -> None:
    """In one run, an expert's gradient is that of a run of its own, times its share of tokens."""
    rows = [row for row in prepared if row.expert > 0]
    labelled = [sum(label >= 0 for label in row.tree.labels) for row in rows]
    train_experts(build(loaded, "uniform"), rows, tmp_path / "together", ONCE)
    together = dict(gradients)
    for place, name in ((1, "rule"), (2, "thought")):
        own = [row for row in rows if row.expert == place]
        routed = build(loaded, "uniform")
        train_experts(routed, own, tmp_path / name, ONCE, only=name)
        mine = [n for n, row in zip(labelled, rows, strict=True) if row.expert == place]
        assert gradients
        assert all(f".expert_{name}." in parameter for parameter in gradients)
        for parameter, gradient in gradients.items():
            expected = gradient * sum(mine) / sum(labelled)
            torch.testing.assert_close(together[parameter], expected, rtol=1e-3, atol=1e-6)


def test_one_run_or_one_by_one(
    loaded: Student, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    """Where each step sees all rows, both ways give the same experts."""
    settings = FitSettings(
        experts=ExpertSettings(r=4, lora_alpha=8, layers=2),
        base=ONCE,
        knowledge=replace(ONCE, epochs=3, learning_rate=2e-3, batch_size=4),
        fusion="uniform",
    )
    found = []
    for name in ("together", "alone"):
        chosen = replace(settings, one_by_one=name == "alone")
        routed = fit(copy_of(loaded), sessions[:2], knowledge, tmp_path / name, chosen)
        found.append({n: p.clone() for n, p in routed.model.named_parameters() if "lora_" in n})
    moved = 0.0
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight, rtol=0, atol=3e-4)
        base = name.replace("expert_rule", "expert_base").replace("expert_thought", "expert_base")
        moved = max(moved, float((weight - found[0][base]).abs().max()))
    assert moved > 3e-3
