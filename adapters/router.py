"""Fusions: how the gates over the experts come about."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from routedk.errors import SettingError


class Fusion(Protocol):
    """Turns each session's pooled prompt into gates over the experts."""

    def __call__(self, pooled_BH: Tensor) -> Tensor:
        """Compute gates.

        Args:
            pooled_BH: Mean input embedding of each session's tokens. *Shape:* (batch, hidden).

        Returns:
            Finite, non-negative gates that sum to one per row. *Shape:* (batch, experts).
        """
        ...


class FixedFusion(nn.Module):
    """The same gates for every session: one expert alone, or all alike."""

    weights: Tensor

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))

    def forward(self, pooled_BH: Tensor) -> Tensor:
        """Repeat the fixed gates for each sample."""
        return self.weights.to(pooled_BH.device).expand(pooled_BH.shape[0], -1)


class SoftmaxRouter(nn.Module):
    r"""Input-aware gates per session.

    .. math:: g = \mathrm{softmax}(V\, \mathrm{LayerNorm}(\bar x) + c)

    where :math:`\bar x` is the mean input embedding of the session's tokens. V starts at zero,
    so training starts from uniform fusion.

    Source: RouteDK (arXiv 2508.17250), input-aware router; that it is a softmax over the pooled
    prompt is our assumption, the paper's text could not be had.
    """

    def __init__(self, hidden_size: int, num_experts: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, elementwise_affine=False)
        self.project = nn.Linear(hidden_size, num_experts)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, pooled_BH: Tensor) -> Tensor:
        """Compute gates; *shape* (batch, hidden) to (batch, experts)."""
        logits_BE: Tensor = self.project(self.norm(pooled_BH.float()))
        return logits_BE.softmax(dim=-1)


def make_fusion(name: str, experts: Sequence[str], hidden_size: int) -> nn.Module:
    """Build a fusion by its public name.

    Args:
        name: ``softmax``, ``uniform`` or ``single:<expert>``.
        experts: Expert names, in gate order.
        hidden_size: Width of the student's embeddings.

    Raises:
        SettingError: For another name, or an expert that is not there.
    """
    count = len(experts)
    if name == "softmax":
        return SoftmaxRouter(hidden_size, count)
    if name == "uniform":
        return FixedFusion([1 / count] * count)
    kind, _, expert = name.partition(":")
    if kind == "single" and expert in experts:
        return FixedFusion([float(expert == other) for other in experts])
    allowed = ", ".join(["softmax", "uniform", *(f"single:{expert}" for expert in experts)])
    raise SettingError(f"fusion {name!r}: allowed are {allowed}")
