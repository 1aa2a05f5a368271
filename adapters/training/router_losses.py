r"""What a router learns from, and which gates are discouraged.

| router training | learns from                                    |
|-----------------|------------------------------------------------|
| `answer`        | the answer's cross-entropy under its own gates |
| `supervised`    | each expert's own loss on each training prompt |

The experts are frozen.

`supervised` computes once, without gradients, the loss of each expert alone on each prompt that
the router is to be trained on: all experts on the same prompt and answer, whatever knowledge
stands in the prompt, so that their losses compare. The experts were trained on some of these
prompts, which flatters those that saw them more often. The gates are then fitted to
:math:`\mathrm{softmax}(-\mathrm{loss} / T)`. A step costs next to nothing, since neither student
nor experts are run, so that all rows can be used many times.

Source: FactorLLM (arXiv 2408.11855), prior-approximate router, whose pseudo labels come from
what each expert gets wrong; that we take the loss of the answer instead of the distance to a
teacher's features, and soft labels, is ours.

Two losses may be added, each with a weight:

- *balance*, the squared coefficient of variation of the batch's mean gates (Shazeer et al., arXiv
  1701.06538, importance loss): for gates that sum to one it is :math:`E \sum_e \bar g_e^2 - 1`,
  0 where all experts are used equally and E - 1 where one is used alone.
- *sparsity*, the mean entropy :math:`-\sum_e g_e \ln g_e` of the gates; for `sparsegen`, whose
  gates may be 0, LD-MoLE's loss (`routedk.adapters.experts.sparsegen.sparsity_lack`).

Both look at the softmax of `top1`, not at its hard choice; at each layer's gates where layers
have their own, and at each token's where tokens have.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from routedk.adapters.experts.sparsegen import SparsegenRouter, sparsity_lack
from routedk.adapters.training.processes import shared_mean

if TYPE_CHECKING:
    from routedk.adapters.train import TrainConfig


def router_targets(losses_NE: Tensor, temperature: float) -> Tensor:
    """The gates that `supervised` aims at; *shape* (rows, experts) to the same."""
    return (-losses_NE / temperature).softmax(dim=-1)


def divergence(log_shares: Tensor, targets_BE: Tensor) -> Tensor:
    r"""How far gates are from their targets, :math:`\sum_e t_e (\ln t_e - \ln g_e)` per row.

    Args:
        log_shares: *Shape:* (batch, experts) or (batch, layers, experts): then the layers' mean.
        targets_BE: *Shape:* (batch, experts).

    Returns:
        *Shape:* (batch,).
    """
    if log_shares.ndim == 3:
        targets_BE = targets_BE[:, None].expand_as(log_shares)
    apart = nn.functional.kl_div(log_shares, targets_BE, reduction="none").sum(dim=-1)
    return apart.flatten(start_dim=1).mean(dim=1) if apart.ndim > 1 else apart


def penalty(
    config: "TrainConfig", fusion: nn.Module, pooled_BH: Tensor, present_BT: Tensor
) -> Tensor:
    """The weighted balance and sparsity losses of a batch.

    Args:
        config: The weights.
        fusion: The router; a `SparsegenRouter` must have watched the batch.
        pooled_BH: What it sees of the batch's rows. *Shape:* (batch, hidden).
        present_BT: Which tokens are not padding, where gates are per token; all False in a row
            that does not count. *Shape:* (batch, tokens).

    Returns:
        A number.
    """
    if not config.balance and not config.sparsity:
        return pooled_BH.new_zeros(())
    if isinstance(fusion, SparsegenRouter):
        layers = [
            (seen.gates_BTE[present_BT], sparsity_lack(seen)[present_BT])
            for seen in fusion.watched or ()
        ]
    else:
        counts_B = present_BT.any(dim=-1)
        gates = fusion.log_shares(pooled_BH)[counts_B].exp()  # type: ignore[operator]
        rows = gates.unbind(dim=1) if gates.ndim == 3 else (gates,)
        layers = [(gates_NE, torch.special.entr(gates_NE).sum(dim=-1)) for gates_NE in rows]
    losses = [
        config.balance * balance_loss(shared_mean(gates_NE))
        + config.sparsity * shared_mean(sparsity_N)
        for gates_NE, sparsity_N in layers
    ]
    return torch.stack(losses).mean()


def balance_loss(mean_E: Tensor) -> Tensor:
    """The squared coefficient of variation of mean gates that sum to one; a number."""
    return len(mean_E) * mean_E.square().sum() - 1
