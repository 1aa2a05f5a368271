"""The contract of every fusion."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from routedk.adapters.experts.fused import fused_layers
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.router import FUSIONS, ROUTERS, make_fusion
from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.prompts import EncodedPrompt
from routedk.adapters.student import Student
from routedk.errors import SettingError
from routedk.types import Session
from tests.adapters.conftest import HIDDEN, assert_same_scores, copy_of, encoded, randomise

EXPERTS = ("base", "rule", "thought")
EVERY = (*FUSIONS, *(f"single:{name}" for name in EXPERTS))
MEANS = [0.5, 0.2, 0.3]


def build(name: str, student: Student) -> RoutedStudent:
    """A routed student with random experts and a random router."""
    routed = RoutedStudent(copy_of(student), ExpertSettings(r=4, layers=2), name, MEANS)
    randomise(routed)
    routed.freeze()
    return routed


@pytest.fixture(params=EVERY)
def routed(request: pytest.FixtureRequest, loaded: Student) -> RoutedStudent:
    return build(request.param, loaded)


@pytest.fixture
def prompts(loaded: Student, sessions: list[Session]) -> list[EncodedPrompt]:
    return [encoded(loaded, session) for session in sessions]


def per_layer(routed: RoutedStudent, prompts: list[EncodedPrompt]) -> list[Tensor]:
    """The gates that each decoder layer uses, *shape* (batch, 1 or tokens, experts)."""
    hidden = torch.randn(len(prompts), 5, HIDDEN, generator=torch.Generator().manual_seed(3))
    found = []
    with torch.no_grad(), routed.gate_state.use(routed.gates(prompts)):
        for layer in range(2):
            routed.gate_state.enter(layer, 10 * hidden)
            settled = routed.gate_state.settled[layer]
            assert settled is not None
            found.append(settled[..., :: routed.settings.r])
    return found


def test_gates_are_shares(routed: RoutedStudent, prompts: list[EncodedPrompt]) -> None:
    for gates in per_layer(routed, prompts):
        tokens = 5 if routed.fusion_name == "sparsegen" else 1
        assert gates.shape == (len(prompts), tokens, len(EXPERTS))
        assert bool(gates.isfinite().all())
        assert bool((gates >= 0).all())
        torch.testing.assert_close(gates.sum(dim=-1), torch.ones(len(prompts), tokens))


def test_gates_differ_where_they_should(
    routed: RoutedStudent, prompts: list[EncodedPrompt]
) -> None:
    lower, upper = per_layer(routed, prompts)
    by_layer = routed.fusion_name in ("layerwise", "sparsegen")
    by_session = routed.fusion_name == "softmax" or by_layer
    assert torch.equal(lower, upper) != by_layer
    if routed.fusion_name == "top1":  # Few sessions may have one favourite.
        assert bool(((lower == 0) | (lower == 1)).all())
        return
    assert any(not torch.equal(lower[0], row) for row in lower[1:]) == by_session


@pytest.mark.parametrize("name", ROUTERS)
def test_an_untrained_router_prefers_no_expert(name: str) -> None:
    gates: Any = make_fusion(name, EXPERTS, HIDDEN, 2)(torch.randn(4, HIDDEN))
    if name == "top1":
        torch.testing.assert_close(gates.sum(dim=-1), torch.ones(4))
        return
    if not isinstance(gates, Tensor):
        gates = gates.at(0, torch.randn(4, 6, HIDDEN))
    torch.testing.assert_close(gates, torch.full_like(gates, 1 / 3))


# Of the embedded student: what a step of the optimizer does grows with it.
WIDTH = 576


def alike(sessions: int) -> Tensor:
    """Pooled prompts like a student's: one common direction plus small differences."""
    torch.manual_seed(0)
    return 5 * torch.randn(WIDTH) + 0.1 * torch.randn(sessions, WIDTH)


@pytest.mark.parametrize("name", ["softmax", "layerwise", "sparsegen"])
def test_one_step_of_training_leaves_every_expert_a_gradient(name: str) -> None:
    router: Any = make_fusion(name, EXPERTS, WIDTH, 2)
    pooled = alike(8)

    def gates() -> Tensor:
        if name == "sparsegen":
            return router.at(0, pooled[None])[0]
        return router(pooled).view(8, -1, 3)[:, 0]

    if name != "sparsegen":
        router.fit_inputs(pooled)
    optimizer = torch.optim.Adam(router.parameters(), lr=2e-2)
    gates()[:, 0].sum().neg().backward()
    optimizer.step()
    assert bool((gates()[:, 0] > 1 / 3).any())
    assert bool((gates() > 0.05).all())


def test_inputs_without_any_difference_are_fitted_too() -> None:
    router: Any = make_fusion("softmax", EXPERTS, WIDTH)
    router.fit_inputs(alike(1))
    assert bool(router(alike(3)).isfinite().all())


@pytest.mark.parametrize("name", ROUTERS)
def test_gradients_reach_the_router_and_no_expert(name: str, loaded: Student) -> None:
    routed = build(name, loaded)
    routed.fusion.requires_grad_(True).train()
    ids = torch.randint(5, 200, (3, 11))
    with routed.gate_state.use(routed.fusion(torch.randn(3, HIDDEN))):
        routed.model(input_ids=ids, labels=ids).loss.backward()
    for parameter in routed.fusion.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.abs().sum() > 0)
    assert all(parameter.grad is None for parameter in routed.model.parameters())


def test_save_and_load_keep_the_gates(
    routed: RoutedStudent, loaded: Student, prompts: list[EncodedPrompt], tmp_path: Path
) -> None:
    routed.save(tmp_path / "experts")
    again = RoutedStudent.load(tmp_path / "experts", student=copy_of(loaded))
    assert again.fusion_name == routed.fusion_name
    assert again.fingerprint() == routed.fingerprint()
    for ours, theirs in zip(per_layer(again, prompts), per_layer(routed, prompts), strict=True):
        assert torch.equal(ours, theirs)


def test_a_batch_equals_one_by_one(routed: RoutedStudent, prompts: list[EncodedPrompt]) -> None:
    """Logits of rows of unequal length, padded on the right."""
    longest = max(len(prompt.ids) for prompt in prompts)
    ids = torch.tensor([[*p.ids, *[0] * (longest - len(p.ids))] for p in prompts])
    mask = torch.tensor([[1] * len(p.ids) + [0] * (longest - len(p.ids)) for p in prompts])
    with torch.no_grad():
        with routed.gate_state.use(routed.gates(prompts)):
            together = routed.model(input_ids=ids, attention_mask=mask).logits
        for row, prompt in enumerate(prompts):
            with routed.gate_state.use(routed.gates([prompt])):
                alone = routed.model(input_ids=torch.tensor([prompt.ids])).logits[0]
            found = together[row, : len(prompt.ids)]
            torch.testing.assert_close(found, alone, rtol=1e-3, atol=1e-3)


def test_steps_with_a_cache_equal_one_pass(
    routed: RoutedStudent, prompts: list[EncodedPrompt]
) -> None:
    ids = torch.tensor([prompts[0].ids])
    with torch.no_grad(), routed.gate_state.use(routed.gates(prompts[:1])):
        whole = routed.model(input_ids=ids).logits
        first = routed.model(input_ids=ids[:, :-4], use_cache=True)
        rest = routed.model(input_ids=ids[:, -4:], past_key_values=first.past_key_values).logits
    assert_same_scores(torch.cat([first.logits, rest], dim=1), whole)


def test_merged_is_the_mean_of_what_was_learnt(loaded: Student) -> None:
    routed = build("merged", loaded)
    torch.testing.assert_close(routed.fusion(torch.randn(2, HIDDEN))[1], torch.tensor(MEANS))
    with pytest.raises(SettingError, match="mean gates are not known: take uniform"):
        RoutedStudent(copy_of(loaded), ExpertSettings(layers=2), "merged")


def test_gates_per_layer_reach_their_layer(loaded: Student) -> None:
    """Gates of one layer alone change what that layer's experts do, and nothing below."""
    routed = build("layerwise", loaded)
    ids = torch.randint(5, 200, (1, 7))
    seen: list[Tensor] = []
    fused = fused_layers(routed.model)
    handles = [
        layer.register_forward_hook(lambda module, args, output: seen.append(output))
        for layer in (fused[0], fused[-1])
    ]
    gates = torch.full((1, 2, 3), 1 / 3)
    outputs = []
    for upper in ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]):
        gates[:, 1] = torch.tensor(upper)
        with torch.no_grad(), routed.gate_state.use(gates.clone()):
            routed.model(input_ids=ids)
        outputs.append((seen[-2], seen[-1]))
    for handle in handles:
        handle.remove()
    assert torch.equal(outputs[0][0], outputs[1][0])
    assert not torch.allclose(outputs[0][1], outputs[1][1], atol=1e-3)
