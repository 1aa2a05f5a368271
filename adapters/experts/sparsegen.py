"""Sparsegen: gates that are sparse, differentiable, and as sparse as each token asks for."""

import torch
from torch import Tensor, nn

# Keeps lambda below 1.
_LEAST_ROOM = 1e-3


def sparsegen(scores: Tensor, lam: Tensor | float) -> Tensor:
    r"""Project scores onto the simplex, more or less sparsely.

    .. math:: p_i = \max\left(0, \frac{u_i - \tau}{1 - \lambda}\right), \quad
        \tau = \frac{U_K - 1 + \lambda}{K}, \quad
        K = \max\{k : 1 - \lambda + k\,u_{(k)} > U_k\}

    with :math:`u_{(k)}` the k-th largest score and :math:`U_k` the sum of the k largest. At
    :math:`\lambda = 0` it is sparsemax, towards 1 one-hot, towards minus infinity uniform.

    Source: LD-MoLE (arXiv 2509.25684), after sparsegen-lin.

    Args:
        scores: Any finite scores. *Shape:* (..., experts).
        lam: Below 1. *Shape:* one number, or (..., 1).

    Returns:
        Non-negative, summing to one over the experts. *Shape:* (..., experts).
    """
    room = 1.0 - torch.as_tensor(lam, dtype=scores.dtype, device=scores.device)
    # Only differences count; with the largest at 0, no sum suffers from cancellation.
    scores = scores - scores.amax(dim=-1, keepdim=True).detach()
    ranked = scores.sort(dim=-1, descending=True).values
    sums = ranked.cumsum(dim=-1)
    counts = torch.arange(1, scores.shape[-1] + 1, dtype=scores.dtype, device=scores.device)
    inside = room + counts * ranked > sums
    kept = inside.sum(dim=-1, keepdim=True)
    tau = (sums.gather(-1, kept - 1) - room) / kept
    return ((scores - tau) / room).clamp(min=0.0)


class SparsegenRouter(nn.Module):
    r"""Gates per token and layer, by `sparsegen`.

    Scores are a linear map, one per layer, of the hidden state that enters a decoder layer,
    normalized to length 1; :math:`\lambda = 1 - \mathrm{softplus}(w \cdot \bar h + b)` is
    predicted per token by a map that all layers share, after LD-MoLE's shared predictor (its
    exact form is an assumption). At first gates are uniform, and :math:`\lambda \approx 0`.

    Args:
        hidden_size: Width of the student.
        num_experts: Number of experts.
        num_layers: Decoder layers with experts.
    """

    def __init__(self, hidden_size: int, num_experts: int, num_layers: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, elementwise_affine=False)
        self.scores = nn.ModuleList(nn.Linear(hidden_size, num_experts) for _ in range(num_layers))
        self.room = nn.Linear(hidden_size, 1)
        for linear in (*self.scores, self.room):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        nn.init.constant_(self.room.bias, float(torch.tensor(1.0).expm1().log()))

    def forward(self, pooled_BH: Tensor) -> "SparsegenRouter":
        """Return the router itself, for `at`: its gates do not depend on the pooled prompt."""
        return self

    def at(self, layer: int, hidden_BTH: Tensor) -> Tensor:
        """Gates of each token at one layer.

        Args:
            layer: Counted from the lowest layer that has experts.
            hidden_BTH: Its input. *Shape:* (batch, tokens, hidden).

        Returns:
            *Shape:* (batch, tokens, experts).
        """
        # In bfloat16 a lambda near 1 would become 1, and gates would not sum to one.
        with torch.autocast(hidden_BTH.device.type, enabled=False):
            # Of length 1: else one optimizer step moves the scores to where gradients vanish.
            normed_BTH = self.norm(hidden_BTH.float()) / hidden_BTH.shape[-1] ** 0.5
            room_BT1 = nn.functional.softplus(self.room(normed_BTH)) + _LEAST_ROOM
            return sparsegen(self.scores[layer](normed_BTH), 1.0 - room_BT1)
