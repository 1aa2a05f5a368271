import pytest
import torch
from torch import Tensor

from routedk.adapters.experts.sparsegen import SparsegenRouter, sparsegen


def projected(scores: Tensor, lam: Tensor) -> Tensor:
    """The minimum of |p - u|^2 - lam |p|^2 over the simplex, by bisection, in double precision.

    Where p is positive, p = (u - tau) / (1 - lam); the right tau makes p sum to one.
    """
    room = 1 - lam
    low, high = scores.amin(-1, keepdim=True) - room, scores.amax(-1, keepdim=True)
    for _ in range(200):
        tau = (low + high) / 2
        above = ((scores - tau).clamp(min=0) / room).sum(-1, keepdim=True) > 1
        low, high = torch.where(above, tau, low), torch.where(above, high, tau)
    return (scores - low).clamp(min=0) / room


def test_the_closed_form_is_the_projection() -> None:
    draw = torch.Generator().manual_seed(0)
    for experts in (2, 3, 4, 8):
        scores = 3 * torch.randn(2500, experts, generator=draw, dtype=torch.float64)
        lam = 1 - 10 ** (4 * torch.rand(2500, 1, generator=draw, dtype=torch.float64) - 2)
        ours = sparsegen(scores, lam)
        torch.testing.assert_close(ours, projected(scores, lam), rtol=0, atol=1e-9)
        torch.testing.assert_close(ours.sum(-1), torch.ones(2500, dtype=torch.float64))


def test_at_zero_it_is_sparsemax() -> None:
    scores = torch.tensor([[0.5, 0.2, -1.0], [3.0, 0.0, 0.0], [0.1, 0.1, 0.1]])
    expected = torch.tensor([[0.65, 0.35, 0.0], [1.0, 0.0, 0.0], [1 / 3] * 3])
    torch.testing.assert_close(sparsegen(scores, 0.0), expected)


def test_only_differences_count_and_large_scores_do_no_harm() -> None:
    scores = torch.randn(50, 3, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        sparsegen(scores + 1000, 0.2), sparsegen(scores, 0.2), rtol=0, atol=1e-3
    )
    huge = sparsegen(torch.tensor([[1e30, -1e30, 0.0]]), 0.0)
    torch.testing.assert_close(huge, torch.tensor([[1.0, 0.0, 0.0]]))


def test_gradients_are_those_of_differences() -> None:
    scores = torch.tensor([[0.4, 0.1, -0.2, -3.0]], dtype=torch.float64, requires_grad=True)
    lam = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sparsegen, (scores, lam))


@pytest.mark.parametrize("bias", [-9.0, 0.5])
def test_the_router_keeps_its_precision_under_autocast(bias: float) -> None:
    router = SparsegenRouter(8, 3, 1)
    with torch.no_grad():
        router.room.bias.fill_(bias)
        router.scores[0].weight.normal_(generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gates = router.at(0, hidden)
    torch.testing.assert_close(gates, router.at(0, hidden))
    torch.testing.assert_close(gates.sum(-1), torch.ones(2, 50))


def test_the_router_starts_uniform_at_lambda_zero() -> None:
    router = SparsegenRouter(8, 3, 2)
    hidden = torch.randn(2, 5, 8)
    torch.testing.assert_close(router.at(1, hidden), torch.full((2, 5, 3), 1 / 3))
    with torch.no_grad():
        router.scores[1].bias.copy_(torch.tensor([0.5, 0.2, -1.0]))
    expected = torch.tensor([0.65, 0.35, 0.0]).expand(2, 5, 3)
    torch.testing.assert_close(router.at(1, hidden), expected, rtol=0, atol=1e-3)
