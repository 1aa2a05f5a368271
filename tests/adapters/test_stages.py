"""Single stages of training, without `fit`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.training.examples import training_rows
from routedk.adapters.training.stages import (
    TrainingSettings,
    prepare,
    train_experts,
    train_router,
)
from routedk.errors import SettingError
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import KnowledgeBase, Session

STAGE = TrainingSettings(
    epochs=4, learning_rate=3e-2, batch_size=2, save_steps=3, warmup_steps=1, bf16=False
)


def rows_of(routed: RoutedStudent, sessions: list[Session], knowledge: KnowledgeBase) -> Any:
    shown = CompiledKnowledge(
        rules=tuple(rule.text for rule in knowledge.rules),
        sessions=tuple(sessions),
        thoughts={thought.session_id: thought.text for thought in knowledge.thoughts},
    )
    return training_rows(routed.tokenizer, sessions, shown, routed.settings.experts)


def test_router_training_leaves_experts_alone(
    routed: RoutedStudent, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    routed.use_fusion("softmax")
    before = {n: p.clone() for n, p in routed.model.named_parameters()}
    prepared = prepare(routed, rows_of(routed, sessions, knowledge), tmp_path, STAGE)
    losses = train_router(routed, prepared, tmp_path, replace(STAGE, epochs=2))
    assert [record["step"] for record in losses] == list(range(1, 19))
    assert all(torch.equal(p, before[n]) for n, p in routed.model.named_parameters())
    assert any(p.any() for p in routed.fusion.parameters())


def test_expert_training_leaves_the_router_alone(
    routed: RoutedStudent, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    before = {n: p.clone() for n, p in routed.model.named_parameters()}
    router = {n: p.clone() for n, p in routed.fusion.named_parameters()}
    rows = [row for row in rows_of(routed, sessions, knowledge) if row.expert == 1]
    train_experts(
        routed, prepare(routed, rows, tmp_path, STAGE), tmp_path, replace(STAGE, epochs=1)
    )
    for name, parameter in routed.model.named_parameters():
        assert torch.equal(parameter, before[name]) == (".expert_rule." not in name)
    assert all(torch.equal(p, router[n]) for n, p in routed.fusion.named_parameters())


def test_the_loss_is_that_of_separate_rows(
    routed: RoutedStudent, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    """The first step's loss, from cached layers and a tree, against plain forward passes."""
    row = rows_of(routed, sessions, knowledge)[8]
    total, count = 0.0, 0
    for line, given in row.lines:
        ids = torch.tensor([[*row.prompt, *line]])
        with torch.no_grad(), routed.gate_state.use(torch.eye(3)[[row.expert]]):
            scores = routed.model(input_ids=ids).logits[0].log_softmax(-1)
        for place in range(len(row.prompt) + given, ids.shape[1]):
            total -= float(scores[place - 1, ids[0, place]])
            count += 1
    losses = train_experts(
        routed, prepare(routed, [row], tmp_path, STAGE), tmp_path, replace(STAGE, epochs=1)
    )
    assert losses[0]["loss"] == pytest.approx(total / count, rel=1e-3)
    assert losses[0]["tokens"] == len(row.prompt) + sum(len(line) for line, _ in row.lines)


def test_a_fixed_fusion_has_nothing_to_train(routed: RoutedStudent, tmp_path: Path) -> None:
    routed.use_fusion("uniform")
    with pytest.raises(
        SettingError, match="fusion 'uniform' has nothing to train: softmax, static"
    ):
        train_router(routed, [], tmp_path, STAGE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs=0: must be above 0"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0: must be above 0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"save_steps": 0}, "save_steps=0"),
        ({"share": 0.0}, "share=0.0: must be above 0 and at most 1"),
        ({"share": 1.5}, "share=1.5"),
    ],
)
def test_training_settings(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        TrainingSettings(**values)


def test_a_share_of_the_rows() -> None:
    rows: Any = list(range(10))
    assert TrainingSettings().sample(rows) == rows
    some = TrainingSettings(share=0.3, seed=1).sample(rows)
    assert len(some) == 3
    assert some == sorted(some)
    assert TrainingSettings(share=0.01).sample(rows)
    assert TrainingSettings().sample([]) == []
