"""What a router learns from, by hand and by effect."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent
from routedk.adapters.experts.sparsegen import SparsegenRouter, sparsegen, sparsity_lack
from routedk.adapters.student import Student
from routedk.adapters.training.examples import training_rows
from routedk.adapters.training.fit import FitSettings
from routedk.adapters.training.router_training import (
    RouterTraining,
    balance_loss,
    divergence,
    entropy,
    penalty,
    router_targets,
)
from routedk.adapters.training.stages import (
    PreparedRow,
    RoutedTrainer,
    TrainingSettings,
    expert_losses,
    prepare,
    train_router,
)
from routedk.errors import SettingError
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import KnowledgeBase, Session

from .conftest import HIDDEN, copy_of, randomise

ONCE = TrainingSettings(
    epochs=1, learning_rate=3e-2, batch_size=6, save_steps=2, warmup_steps=0, bf16=False
)


def test_balance_by_hand() -> None:
    assert balance_loss(torch.full((3,), 1 / 3)).item() == pytest.approx(0, abs=1e-6)
    assert balance_loss(torch.tensor([1.0, 0.0, 0.0])).item() == pytest.approx(2)
    # Deviation: the root of ((1/6)^2 + 2 (1/12)^2) / 3; over the mean of 1/3 and squared: 1/8.
    assert balance_loss(torch.tensor([0.5, 0.25, 0.25])).item() == pytest.approx(1 / 8)


def test_entropy_by_hand() -> None:
    gates = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    expected = torch.tensor([math.log(2), 0.0, math.log(3)])
    torch.testing.assert_close(entropy(gates), expected)


def test_sparsity_lack_by_hand() -> None:
    scores, zero = torch.tensor([[0.5, 0.2, -1.0]]), torch.zeros(1, 1)
    # One expert alone from lambda = 1 - (.5 - .2) = .7 on, two from 1 - (.7 + 2) = -1.7 on.
    torch.testing.assert_close(sparsity_lack(scores, zero, 1), torch.tensor([[0.7]]))
    torch.testing.assert_close(sparsity_lack(scores, zero, 2), zero)
    torch.testing.assert_close(sparsity_lack(scores, zero - 2, 2), torch.tensor([[0.3]]))


def test_without_lack_at_most_so_many_experts_are_active() -> None:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(500, 5, generator=draw, dtype=torch.float64)
    lam = 1 - 10 ** (4 * torch.rand(500, 1, generator=draw, dtype=torch.float64) - 2)
    for most in (1, 2, 4):
        active = (sparsegen(scores, lam) > 0).sum(dim=-1)
        lack = sparsity_lack(scores, lam, most)[:, 0]
        assert torch.equal(lack > 0, active > most)
        assert 0 < int((lack > 0).sum()) < 500


def test_targets_by_hand() -> None:
    losses = torch.tensor([[1.0, 1.0 + 0.5 * math.log(2), 1.0 + 0.5 * math.log(4)]])
    torch.testing.assert_close(router_targets(losses, 0.5), torch.tensor([[4.0, 2.0, 1.0]]) / 7)


def test_divergence_by_hand() -> None:
    wanted = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    log_gates = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log()
    expected = torch.tensor([0.5 * math.log(2) + 0.5 * math.log(2 / 3), math.log(2)])
    torch.testing.assert_close(divergence(log_gates, wanted), expected)
    by_layer = torch.stack([log_gates, wanted.clamp(min=1e-30).log()], dim=1)
    torch.testing.assert_close(divergence(by_layer, wanted), expected / 2)


@pytest.mark.parametrize("name", ["static", "softmax", "top1", "layerwise"])
def test_the_penalty_of_a_batch(name: str, student: Student) -> None:
    """Rows that do not count change nothing; all weights are applied."""
    routed = randomise(RoutedStudent(student, ExpertSettings(layers=2), name))
    fusion: Any = routed.fusion
    pooled, present = torch.randn(5, HIDDEN), torch.ones(5, 4, dtype=torch.bool)
    present[3:] = False
    gates = fusion.log_shares(pooled[:3]).exp().reshape(3, -1, 3)
    balance = torch.stack([balance_loss(layer.mean(dim=0)) for layer in gates.unbind(dim=1)]).mean()
    found = penalty(RouterTraining(balance=2, sparsity=0.5), fusion, pooled, present)
    torch.testing.assert_close(found, 2 * balance + 0.5 * entropy(gates).mean())
    assert penalty(RouterTraining(), fusion, pooled, present) == 0


def test_the_penalty_of_gates_per_token() -> None:
    router = SparsegenRouter(HIDDEN, 3, 2)
    for parameter in router.parameters():
        torch.nn.init.normal_(parameter)
    hidden, present = torch.randn(2, 3, HIDDEN), torch.tensor([[1, 1, 0], [0, 0, 0]]).bool()
    router.watched = []
    gates = [router.at(layer, hidden)[0, :2] for layer in range(2)]
    lacks = [sparsity_lack(s.scores_BTE, s.lam_BT1, 1)[0, :2].mean() for s in router.watched]
    how = RouterTraining(balance=2, sparsity=0.5, most_experts=1)
    expected = [
        2 * balance_loss(mine.mean(dim=0)) + 0.5 * lack
        for mine, lack in zip(gates, lacks, strict=True)
    ]
    found = penalty(how, router, hidden[:, 0], present)
    torch.testing.assert_close(found, torch.stack(expected).mean())


Prepare = Callable[[RoutedStudent], list[PreparedRow]]


@pytest.fixture
def rows(sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path) -> Prepare:
    shown = CompiledKnowledge(
        rules=tuple(rule.text for rule in knowledge.rules),
        sessions=tuple(sessions),
        thoughts={thought.session_id: thought.text for thought in knowledge.thoughts},
    )

    def make(routed: RoutedStudent) -> list[PreparedRow]:
        found = training_rows(routed.tokenizer, sessions[:4], shown, routed.settings.experts)
        return prepare(routed, found, tmp_path / "prepared", ONCE)

    return make


def build(student: Student, fusion: str) -> RoutedStudent:
    settings = ExpertSettings(r=4, lora_alpha=8, layers=2)
    return randomise(RoutedStudent(copy_of(student), settings, fusion))


def weights(routed: RoutedStudent) -> dict[str, Tensor]:
    return {name: p.clone() for name, p in routed.model.named_parameters()}


def test_losses_of_each_expert_are_those_of_plain_forward_passes(
    routed: RoutedStudent, rows: Prepare, tmp_path: Path
) -> None:
    prepared = rows(routed)
    found = expert_losses(routed, prepared, tmp_path / "router", ONCE)
    assert found.shape == (12, 3)
    row = prepared[7]
    prompt = row.tree.branch_ids.count(0)
    for place in range(3):
        losses = []
        for branch in range(1, max(row.tree.branch_ids) + 1):
            inside = [k for k, b in enumerate(row.tree.branch_ids) if b == branch]
            ids = torch.tensor(
                [row.tree.input_ids[:prompt] + row.tree.input_ids[inside[0] : inside[-1] + 1]]
            )
            with torch.no_grad(), routed.gate_state.use(torch.eye(3)[[place]]):
                scores = routed.model(input_ids=ids).logits[0].log_softmax(-1)
            learnt = [k for k, at in enumerate(inside) if row.tree.labels[at] >= 0]
            losses += [-scores[prompt + k - 1, ids[0, prompt + k]] for k in learnt]
        torch.testing.assert_close(
            found[7, place], torch.stack(losses).mean(), rtol=1e-4, atol=1e-4
        )
    with torch.no_grad():  # Kept: a run that resumes does not compute them again.
        for parameter in routed.model.parameters():
            parameter.zero_()
    assert torch.equal(expert_losses(routed, prepared, tmp_path / "router", ONCE), found)


@pytest.mark.parametrize("fusion", ["softmax", "layerwise", "top1", "static"])
def test_supervised_gates_come_near_their_targets(
    fusion: str, loaded: Student, rows: Prepare, tmp_path: Path
) -> None:
    routed = build(loaded, fusion)
    routed.use_fusion(fusion)
    prepared, before = rows(routed), weights(routed)
    wanted = router_targets(expert_losses(routed, prepared, tmp_path / "seen", ONCE), 0.5)
    runs: list[int] = []
    hook = routed.student.model.model.register_forward_hook(lambda *_: runs.append(1))
    how = RouterTraining(method="supervised", temperature=0.5)
    losses = train_router(
        routed, prepared, tmp_path, replace(ONCE, epochs=20, learning_rate=0.2), how
    )
    hook.remove()
    # Two batches of rows, three experts each; the forty steps run no model.
    assert (len(losses), len(runs)) == (40, 6)
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert losses[-1]["tokens"] == 3 * sum(len(row.tree.input_ids) for row in prepared)
    after = weights(routed)
    assert all(torch.equal(after[name], before[name]) for name in before)
    pooled = torch.stack([row.pooled_H for row in prepared])
    router: Any = routed.fusion
    with torch.no_grad():
        apart = divergence(router.log_shares(pooled), wanted).mean()
    if fusion == "static":  # It can know the mean only.
        best = divergence(wanted.mean(dim=0).log().expand(12, -1), wanted).mean()
        assert float(apart) < 1.2 * float(best)
    else:
        uniform = divergence(torch.full((12, 3), 1 / 3).log(), wanted).mean()
        assert float(apart) < 0.2 * float(uniform)


def test_joint_training_moves_experts_and_router_alone(
    routed: RoutedStudent, rows: Prepare, tmp_path: Path
) -> None:
    before = weights(routed)
    router = {name: p.clone() for name, p in routed.fusion.named_parameters()}
    how = RouterTraining(method="joint", expert_learning_rate=1e-3)
    train_router(routed, rows(routed), tmp_path, ONCE, how)
    for name, parameter in weights(routed).items():
        assert torch.equal(parameter, before[name]) == ("lora_" not in name)
        if "lora_" in name:  # Adam moves a weight by its rate at most, in each of two steps.
            assert float((parameter - before[name]).abs().max()) < 2.1e-3
    for name, parameter in routed.fusion.named_parameters():
        assert not torch.equal(parameter, router[name])
    assert not any(p.requires_grad for p in routed.model.parameters())


def after_training(
    how: RouterTraining, fusion: str, student: Student, rows: Prepare, folder: Path
) -> Any:
    routed = build(student, fusion)
    routed.use_fusion(fusion)
    train_router(routed, rows(routed), folder, replace(ONCE, epochs=10, learning_rate=0.2), how)
    return routed.fusion


@pytest.mark.parametrize("fusion", ["softmax", "static"])
def test_weights_up_gates_more_balanced_and_sparser(
    fusion: str, loaded: Student, rows: Prepare, tmp_path: Path
) -> None:
    pooled = torch.stack([row.pooled_H for row in rows(build(loaded, fusion))])

    def gates(name: str, **weight: float) -> Tensor:
        how = RouterTraining(method="supervised", temperature=0.5, **weight)  # type: ignore[arg-type]
        found: Tensor = after_training(how, fusion, loaded, rows, tmp_path / name)(pooled)
        return found.detach()

    plain = gates("plain")
    balanced, sparse = gates("balanced", balance=10.0), gates("sparse", sparsity=3.0)
    assert balance_loss(balanced.mean(dim=0)) < 0.5 * balance_loss(plain.mean(dim=0))
    assert entropy(sparse).mean() < 0.7 * entropy(plain).mean()


def test_sparsegen_is_sparser_with_its_loss(loaded: Student, rows: Prepare, tmp_path: Path) -> None:
    hidden = torch.randn(1, 200, HIDDEN)

    def active(sparsity: float) -> float:
        how = RouterTraining(sparsity=sparsity, most_experts=1)
        folder = tmp_path / str(sparsity)
        router = after_training(how, "sparsegen", loaded, rows, folder)
        with torch.no_grad():
            counts = torch.stack([(router.at(k, hidden) > 0).sum(dim=-1) for k in range(2)])
        assert router.watched is None
        return float(counts.float().mean())

    assert active(10.0) < active(0.0)


class Killed(Exception):
    pass


@pytest.mark.parametrize("method", ["supervised", "joint"])
def test_a_killed_run_resumed_equals_an_uninterrupted_one(
    method: str,
    loaded: Student,
    rows: Prepare,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    how = RouterTraining(method=method, balance=0.1, sparsity=0.1)
    settings = replace(ONCE, epochs=2)
    straight, cut = build(loaded, "softmax"), build(loaded, "softmax")
    curve = train_router(straight, rows(straight), tmp_path / "straight", settings, how)
    whole, left = RoutedTrainer.compute_loss, [4]

    def compute_loss(self: Any, *args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(RoutedTrainer, "compute_loss", compute_loss)
    with pytest.raises(Killed):  # In step 4; the checkpoint is of step 2.
        train_router(cut, rows(cut), tmp_path / "cut", settings, how)
    again = build(loaded, "softmax")
    torch.manual_seed(99)
    assert (
        train_router(again, rows(again), tmp_path / "cut", settings, how)[-1]["tokens"]
        == (curve[-1]["tokens"])
    )
    ours, theirs = weights(again), weights(straight)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
    mine, other = again.fusion.state_dict(), straight.fusion.state_dict()
    for name in other:
        torch.testing.assert_close(mine[name], other[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "luck"}, "router training 'luck': allowed are answer, supervised, joint"),
        ({"temperature": 0.0}, "temperature=0.0: must be above 0 and finite"),
        ({"expert_learning_rate": math.inf}, "expert_learning_rate=inf: must be above 0"),
        ({"balance": -1.0}, "balance=-1.0: must be at least 0 and finite"),
        ({"sparsity": math.nan}, "sparsity=nan: must be at least 0"),
        ({"most_experts": 0}, "most_experts=0: at least 1"),
    ],
)
def test_settings(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        RouterTraining(**values)


def test_settings_that_do_not_fit_the_fusion(student: Student, tmp_path: Path) -> None:
    supervised = RouterTraining(method="supervised")
    with pytest.raises(SettingError, match=r"fusion 'sparsegen' are per token.*use answer"):
        FitSettings(fusion="sparsegen", router_training=supervised)
    routed = RoutedStudent(student, ExpertSettings(layers=2), "sparsegen")
    with pytest.raises(SettingError, match=r"fusion 'sparsegen' are per token"):
        train_router(routed, [], tmp_path, ONCE, supervised)
    many = RouterTraining(sparsity=1.0, most_experts=3)
    with pytest.raises(SettingError, match="most_experts=3: of 3 experts nothing is discouraged"):
        FitSettings(fusion="sparsegen", router_training=many)
    FitSettings(fusion="softmax", router_training=many)


def test_what_no_router_would_notice_is_refused() -> None:
    RouterTraining().check("uniform", 3)
    for how in (RouterTraining(method="supervised"), RouterTraining(balance=0.1)):
        with pytest.raises(SettingError, match="fusion 'uniform' has no router"):
            how.check("uniform", 3)
