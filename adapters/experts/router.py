"""Fusions: where the gates over the experts come from.

| name              | gates                                             | learned |
|-------------------|---------------------------------------------------|--------|
| `single:<expert>` | one expert alone                                  | no     |
| `uniform`         | the same for all experts                          | no     |
| `static`          | the same for every session                        | yes    |
| `softmax`         | per session, from its pooled prompt               | yes    |
| `top1`            | the likeliest expert of `softmax` alone           | yes    |
| `layerwise`       | per session and layer, from the pooled prompt     | yes    |
| `sparsegen`       | per token and layer, from the hidden state        | yes    |
| `merged`          | the router's mean over the rows it was trained on | no     |

The pooled prompt is the mean input embedding of the session's tokens, or of all; training is
described in `routedk.adapters.training.objectives`.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from routedk.adapters.experts.sparsegen import SparsegenRouter
from routedk.errors import SettingError


class TokenGates(Protocol):
    """Gates that depend on each token's hidden state."""

    def at(self, layer: int, hidden_BTH: Tensor) -> Tensor:
        """Gates at one layer, counted from the lowest with experts.

        *Shape:* (batch, tokens, hidden) to (batch, tokens, experts).
        """
        ...


# Per session, shape (batch, experts); per session and layer, (batch, layers, experts); per token.
Gates: TypeAlias = Tensor | TokenGates


class FixedFusion(nn.Module):
    """The same gates for every session: one expert alone, all equal, or a mean."""

    weights: Tensor

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))

    def forward(self, pooled_BH: Tensor) -> Tensor:
        """Repeat the fixed gates for each sample."""
        return self.weights.to(pooled_BH.device).expand(pooled_BH.shape[0], -1)


class StaticFusion(nn.Module):
    """Learned gates that do not depend on the input; uniform at first."""

    def __init__(self, num_experts: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_experts))

    def forward(self, pooled_BH: Tensor) -> Tensor:
        """Repeat the gates for each sample."""
        return self.log_shares(pooled_BH).exp()

    def log_shares(self, pooled_BH: Tensor) -> Tensor:
        """The logarithm of the gates."""
        return self.logits.log_softmax(dim=-1).expand(pooled_BH.shape[0], -1)


class SoftmaxRouter(nn.Module):
    r"""Input-aware gates per session, or per session and layer.

    .. math:: g = \mathrm{softmax}(V z + c), \qquad
        z = \frac{\mathrm{LayerNorm}(\bar x) - \mu}{\sigma \sqrt{H}}

    where :math:`\bar x` is the pooled prompt, by default the mean input embedding of the session's
    tokens, and :math:`\mu` and :math:`\sigma` are the mean and the deviation of its normalized
    features over the sessions that the router is trained on (`fit_inputs`; 0 and 1 before).
    Sessions' mean embeddings differ little from each other: without :math:`\mu` one step of the
    optimizer moves all their gates equally, and without :math:`\sqrt{H}` it moves them to 0 and 1,
    where gradients vanish. V starts at zero, so training starts from uniform fusion.

    Source: RouteDK (arXiv 2508.17250), input-aware router; that it is a softmax over the pooled
    prompt is our assumption: the paper's text was not available.

    Args:
        hidden_size: Width H of the student's embeddings.
        num_experts: Number of experts.
        num_layers: Decoder layers with experts, each with its own gates; None for one row of
            gates per session.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, hidden_size: int, num_experts: int, num_layers: int | None = None) -> None:
        super().__init__()
        self.shape = (num_experts,) if num_layers is None else (num_layers, num_experts)
        self.norm = nn.LayerNorm(hidden_size, elementwise_affine=False)
        self.register_buffer("centre", torch.zeros(hidden_size))
        self.register_buffer("spread", torch.ones(hidden_size))
        self.project = nn.Linear(hidden_size, num_experts * (num_layers or 1))
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    @torch.no_grad()
    def fit_inputs(self, pooled_BH: Tensor) -> None:
        """Compute mean and deviation of the features over the sessions to train on.

        Args:
            pooled_BH: Their pooled prompts, at least one. *Shape:* (sessions, hidden).
        """
        normed_BH = self.norm(pooled_BH.float())
        self.centre.copy_(normed_BH.mean(dim=0))
        spread_H = normed_BH.std(dim=0, correction=0)
        # With few sessions some features hardly differ: they must not be amplified.
        least = float(spread_H.mean())
        self.spread.copy_(spread_H.clamp(min=least) if least else torch.ones_like(spread_H))

    def forward(self, pooled_BH: Tensor) -> Tensor:
        """Compute gates.

        *Shape:* (batch, hidden) to (batch, experts) or (batch, layers, experts).
        """
        return self.log_shares(pooled_BH).exp()

    def log_shares(self, pooled_BH: Tensor) -> Tensor:
        """The log-softmax, of which `top1` keeps the likeliest expert; shaped like gates."""
        scale = self.centre.shape[0] ** 0.5
        inputs_BH = (self.norm(pooled_BH.float()) - self.centre) / (self.spread * scale)
        logits: Tensor = self.project(inputs_BH)
        return logits.view(-1, *self.shape).log_softmax(dim=-1)


class Top1Router(SoftmaxRouter):
    """Only the likeliest expert of each session, with straight-through gradients to the softmax."""

    def forward(self, pooled_BH: Tensor) -> Tensor:
        """Compute gates; *shape* (batch, hidden) to (batch, experts), each row one-hot."""
        soft_BE = self.log_shares(pooled_BH).exp()
        hard_BE = nn.functional.one_hot(soft_BE.argmax(dim=-1), soft_BE.shape[-1]).float()
        return hard_BE + (soft_BE - soft_BE.detach()) if self.training else hard_BE


# Those that are learned, made from hidden size, experts and decoder layers with experts.
ROUTERS: Mapping[str, Callable[[int, int, int], nn.Module]] = MappingProxyType(
    {
        "softmax": lambda hidden, experts, layers: SoftmaxRouter(hidden, experts),
        "static": lambda hidden, experts, layers: StaticFusion(experts),
        "top1": lambda hidden, experts, layers: Top1Router(hidden, experts),
        "layerwise": SoftmaxRouter,
        "sparsegen": SparsegenRouter,
    }
)
FUSIONS = (*ROUTERS, "uniform", "merged")


def make_fusion(
    name: str,
    experts: Sequence[str],
    hidden_size: int,
    num_layers: int = 1,
    mean_gates: Sequence[float] | None = None,
) -> nn.Module:
    """Build a fusion by its public name.

    Args:
        name: One of the names in this module's table.
        experts: Expert names, in gate order.
        hidden_size: Width of the student.
        num_layers: Decoder layers with experts.
        mean_gates: For ``merged``: the router's mean gates, one per expert.

    Returns:
        A module that maps pooled prompts, *shape* (batch, hidden), to `Gates`: finite,
        non-negative, summing to one over the experts.

    Raises:
        SettingError: The name or its expert is unknown, or the mean gates are missing.
    """
    count = len(experts)
    if name in ROUTERS:
        return ROUTERS[name](hidden_size, count, num_layers)
    if name == "uniform":
        return FixedFusion([1 / count] * count)
    if name == "merged":
        if mean_gates is None or len(mean_gates) != count:
            raise SettingError(
                "fusion 'merged': the router's mean gates are not known: take uniform, "
                "single:EXPERT or gates of your own, or train with fusion softmax, top1 or static"
            )
        return FixedFusion(mean_gates)
    kind, _, expert = name.partition(":")
    if kind == "single" and expert in experts:
        return FixedFusion([float(expert == other) for other in experts])
    allowed = ", ".join([*FUSIONS, *(f"single:{expert}" for expert in experts)])
    raise SettingError(f"fusion {name!r}: allowed are {allowed}")
