"""What a router learns from, by hand and by effect."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.student import Student
from routedk.adapters.train import TrainConfig
from routedk.adapters.training import fit as fit_module
from routedk.adapters.training.examples import TrainingRow
from routedk.adapters.training.fit import expert_losses
from routedk.adapters.training.objectives import divergence
from routedk.adapters.training.rows import prepare
from routedk.adapters.training.stage import router_stage
from routedk.files import read_json
from tests.adapters.conftest import copy_of, randomise

CONFIG = TrainConfig(router_share=1.0, router_epochs=1, bf16=False)
STAGE = replace(router_stage(CONFIG), learning_rate=0.2, batch_size=6)


def test_divergence_by_hand() -> None:
    wanted = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    log_gates = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log()
    expected = torch.tensor([0.5 * math.log(2) + 0.5 * math.log(2 / 3), math.log(2)])
    torch.testing.assert_close(divergence(log_gates, wanted), expected)
    by_layer = torch.stack([log_gates, wanted.clamp(min=1e-30).log()], dim=1)
    torch.testing.assert_close(divergence(by_layer, wanted), expected / 2)


def build(student: Student, fusion: str) -> RoutedStudent:
    """Random experts under an untrained router."""
    settings = ExpertSettings(r=4, lora_alpha=8, layers=2)
    routed = randomise(RoutedStudent(copy_of(student), settings, fusion))
    routed.use_fusion(fusion)
    return routed


def test_losses_of_each_expert_are_those_of_plain_forward_passes(
    routed: RoutedStudent, rows: list[TrainingRow], tmp_path: Path
) -> None:
    prepared = prepare(routed, rows, STAGE)
    found = expert_losses(routed, prepared, STAGE)
    assert found.shape == (len(rows), 3)
    row = rows[7]
    for place in range(3):
        losses = []
        for line, given in row.lines:
            ids = torch.tensor([[*row.prompt.ids, *line]])
            with torch.no_grad(), routed.gate_state.use(torch.eye(3)[[place]]):
                scores = routed.model(input_ids=ids).logits[0].log_softmax(-1)
            for at in range(len(row.prompt.ids) + given, ids.shape[1]):
                losses.append(-scores[at - 1, ids[0, at]])
        torch.testing.assert_close(
            found[7, place], torch.stack(losses).mean(), rtol=1e-4, atol=1e-4
        )


Fit = Callable[..., RoutedStudent]


@pytest.fixture
def fit(loaded: Student, rows: list[TrainingRow], tmp_path: Path) -> Fit:
    """Trains the router of fresh random experts; its record is in ``out``."""

    def run(fusion: str, epochs: float, temperature: float) -> RoutedStudent:
        routed = build(loaded, fusion)
        folders = [tmp_path / f"{len(list(tmp_path.iterdir()))}", tmp_path / "out"]
        for folder in folders:
            folder.mkdir(exist_ok=True)
        stage = replace(STAGE, epochs=epochs, temperature=temperature)
        fit_module.fit(routed, rows, stage, folders[1], folders[0])
        return routed

    return run


@pytest.mark.parametrize("fusion", ["softmax", "layerwise", "top1", "static"])
def test_supervised_gates_come_near_their_targets(
    fusion: str, fit: Fit, loaded: Student, rows: list[TrainingRow], tmp_path: Path
) -> None:
    fresh = build(loaded, fusion)
    prepared = prepare(fresh, rows, STAGE)
    wanted = (-expert_losses(fresh, prepared, STAGE) / 0.5).softmax(dim=-1)
    routed = fit(fusion, 20, 0.5)
    curve: Any = read_json(tmp_path / "out" / "training.json")
    losses = [record["loss"] for record in curve["curve"]]
    assert len(losses) == 20 * math.ceil(len(rows) / 6)
    assert losses[-1] < losses[0]
    for (name, after), before in zip(
        routed.model.named_parameters(), fresh.model.parameters(), strict=True
    ):
        assert torch.equal(after, before), name
    assert not any(p.requires_grad for p in routed.fusion.parameters())
    pooled = torch.stack([row.pooled_H for row in prepared])
    router: Any = routed.fusion
    with torch.no_grad():
        apart = divergence(router.log_shares(pooled), wanted).mean()
    if fusion == "static":  # It can know the mean only.
        best = divergence(wanted.mean(dim=0).log().expand(len(rows), -1), wanted).mean()
        assert float(apart) < 1.2 * float(best)
    else:
        uniform = divergence(torch.full((len(rows), 3), 1 / 3).log(), wanted).mean()
        assert float(apart) < 0.2 * float(uniform)
