"""What a router learns from, by hand and by effect."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.experts.sparsegen import (
    SparsegenRouter,
    TokenRouting,
    sparsegen,
    sparsity_lack,
)
from routedk.adapters.student import Student
from routedk.adapters.train import TrainConfig
from routedk.adapters.training.examples import TrainingRow
from routedk.adapters.training.fit import expert_losses, fit_router
from routedk.adapters.training.router_losses import balance_loss, divergence, penalty
from routedk.adapters.training.rows import prepare
from routedk.adapters.training.stage import router_stage
from routedk.files import read_json
from tests.adapters.conftest import HIDDEN, copy_of, randomise

CONFIG = TrainConfig(router_share=1.0, router_epochs=1, bf16=False)
STAGE = replace(router_stage(CONFIG), learning_rate=0.2, batch_size=6)


def test_balance_by_hand() -> None:
    assert balance_loss(torch.full((3,), 1 / 3)).item() == pytest.approx(0, abs=1e-6)
    assert balance_loss(torch.tensor([1.0, 0.0, 0.0])).item() == pytest.approx(2)
    # Deviation: the root of ((1/6)^2 + 2 (1/12)^2) / 3; over the mean of 1/3 and squared: 1/8.
    assert balance_loss(torch.tensor([0.5, 0.25, 0.25])).item() == pytest.approx(1 / 8)


def lack(scores: Tensor, lam: Tensor, most: int) -> Tensor:
    return sparsity_lack(TokenRouting(sparsegen(scores, lam), scores, lam), most)


def test_sparsity_lack_by_hand() -> None:
    scores, zero = torch.tensor([[0.5, 0.2, -1.0]]), torch.zeros(1, 1)
    # One expert alone from lambda = 1 - (.5 - .2) = .7 on, two from 1 - (.7 + 2) = -1.7 on.
    torch.testing.assert_close(lack(scores, zero, 1), torch.tensor([0.7]))
    torch.testing.assert_close(lack(scores, zero, 2), zero[0])
    torch.testing.assert_close(lack(scores, zero - 2, 2), torch.tensor([0.3]))


def test_without_lack_at_most_so_many_experts_are_active() -> None:
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(500, 5, generator=random, dtype=torch.float64)
    lam = 1 - 10 ** (4 * torch.rand(500, 1, generator=random, dtype=torch.float64) - 2)
    for most in (1, 2, 4):
        active = (sparsegen(scores, lam) > 0).sum(dim=-1)
        lacking = lack(scores, lam, most) > 0
        assert torch.equal(lacking, active > most)
        assert 0 < int(lacking.sum()) < 500


def test_divergence_by_hand() -> None:
    wanted = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    log_gates = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log()
    expected = torch.tensor([0.5 * math.log(2) + 0.5 * math.log(2 / 3), math.log(2)])
    torch.testing.assert_close(divergence(log_gates, wanted), expected)
    by_layer = torch.stack([log_gates, wanted.clamp(min=1e-30).log()], dim=1)
    torch.testing.assert_close(divergence(by_layer, wanted), expected / 2)


def entropy(gates: Tensor) -> Tensor:
    return -(gates * gates.clamp(min=1e-30).log()).sum(dim=-1)


@pytest.mark.parametrize("name", ["static", "softmax", "top1", "layerwise"])
def test_the_penalty_of_a_batch(name: str, student: Student) -> None:
    """Rows that do not count change nothing; all weights are applied."""
    routed = randomise(RoutedStudent(student, ExpertSettings(layers=2), name))
    fusion: Any = routed.fusion
    pooled, present = torch.randn(5, HIDDEN), torch.ones(5, 4, dtype=torch.bool)
    present[3:] = False
    gates = fusion.log_shares(pooled[:3]).exp().reshape(3, -1, 3)
    balance = torch.stack([balance_loss(layer.mean(dim=0)) for layer in gates.unbind(dim=1)]).mean()
    found = penalty(TrainConfig(balance=2, sparsity=0.5), fusion, pooled, present)
    torch.testing.assert_close(found, 2 * balance + 0.5 * entropy(gates).mean())
    assert penalty(TrainConfig(), fusion, pooled, present) == 0


def test_the_penalty_of_gates_per_token() -> None:
    router = SparsegenRouter(HIDDEN, 4, 2)
    for parameter in router.parameters():
        torch.nn.init.normal_(parameter)
    hidden, present = torch.randn(2, 3, HIDDEN), torch.tensor([[1, 1, 0], [0, 0, 0]]).bool()
    router.watched = []
    gates = [router.at(layer, hidden)[0, :2] for layer in range(2)]
    lacks = [sparsity_lack(seen)[0, :2].mean() for seen in router.watched]
    expected = [
        2 * balance_loss(mine.mean(dim=0)) + 0.5 * lack
        for mine, lack in zip(gates, lacks, strict=True)
    ]
    config = TrainConfig(fusion="sparsegen", balance=2, sparsity=0.5)
    found = penalty(config, router, hidden[:, 0], present)
    torch.testing.assert_close(found, torch.stack(expected).mean())


def build(student: Student, fusion: str) -> RoutedStudent:
    """Experts that matter, under an untrained router."""
    settings = ExpertSettings(r=4, lora_alpha=8, layers=2)
    routed = randomise(RoutedStudent(copy_of(student), settings, fusion))
    routed.use_fusion(fusion)
    return routed


def test_losses_of_each_expert_are_those_of_plain_forward_passes(
    routed: RoutedStudent, rows: list[TrainingRow], tmp_path: Path
) -> None:
    prepared = prepare(routed, rows, tmp_path, STAGE)
    found = expert_losses(routed, prepared, tmp_path, STAGE)
    assert found.shape == (len(rows), 3)
    row = rows[7]
    for place in range(3):
        losses = []
        for line, given in row.lines:
            ids = torch.tensor([[*row.prompt, *line]])
            with torch.no_grad(), routed.gate_state.use(torch.eye(3)[[place]]):
                scores = routed.model(input_ids=ids).logits[0].log_softmax(-1)
            for at in range(len(row.prompt) + given, ids.shape[1]):
                losses.append(-scores[at - 1, ids[0, at]])
        torch.testing.assert_close(
            found[7, place], torch.stack(losses).mean(), rtol=1e-4, atol=1e-4
        )
    with torch.no_grad():  # Kept: a run that resumes does not compute them again.
        for parameter in routed.model.parameters():
            parameter.zero_()
    assert torch.equal(expert_losses(routed, prepared, tmp_path, STAGE), found)


Fit = Callable[..., RoutedStudent]


@pytest.fixture
def fit(loaded: Student, rows: list[TrainingRow], tmp_path: Path) -> Fit:
    """Trains the router of fresh random experts; its record is in ``out``."""

    def run(fusion: str, epochs: float = 10, **settings: Any) -> RoutedStudent:
        routed = build(loaded, fusion)
        folders = [tmp_path / f"{len(list(tmp_path.iterdir()))}", tmp_path / "out"]
        for folder in folders:
            folder.mkdir(exist_ok=True)
        config = replace(CONFIG, fusion=fusion, **settings)
        fit_router(routed, rows, replace(STAGE, epochs=epochs), config, folders[1], folders[0])
        return routed

    return run


@pytest.mark.parametrize("fusion", ["softmax", "layerwise", "top1", "static"])
def test_supervised_gates_come_near_their_targets(
    fusion: str, fit: Fit, loaded: Student, rows: list[TrainingRow], tmp_path: Path
) -> None:
    fresh = build(loaded, fusion)
    prepared = prepare(fresh, rows, tmp_path, STAGE)
    wanted = (-expert_losses(fresh, prepared, tmp_path, STAGE) / 0.5).softmax(dim=-1)
    routed = fit(fusion, 20, router_training="supervised", temperature=0.5)
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


def test_weights_make_gates_more_balanced_and_sparser(
    fit: Fit, loaded: Student, rows: list[TrainingRow], tmp_path: Path
) -> None:
    prepared = prepare(build(loaded, "softmax"), rows, tmp_path, STAGE)
    pooled = torch.stack([row.pooled_H for row in prepared])
    plain, balanced, sparse = (
        fit("softmax", router_training="supervised", temperature=0.5, **weight)
        .fusion(pooled)
        .detach()
        for weight in ({}, {"balance": 10.0}, {"sparsity": 3.0})
    )
    assert balance_loss(balanced.mean(dim=0)) < 0.5 * balance_loss(plain.mean(dim=0))
    assert entropy(sparse).mean() < 0.7 * entropy(plain).mean()


def test_sparsegen_is_sparser_with_its_loss(fit: Fit) -> None:
    hidden = torch.randn(1, 200, HIDDEN)

    def active(sparsity: float) -> float:
        router: Any = fit("sparsegen", sparsity=sparsity).fusion
        with torch.no_grad():
            counts = torch.stack([(router.at(k, hidden) > 0).sum(dim=-1) for k in range(2)])
        assert router.watched is None
        return float(counts.float().mean())

    assert active(10.0) < active(0.0)
