"""Routed experts under fixed gates as one plain PEFT LoRA, which any LoRA server loads.

Experts fused by gates that do not change are one LoRA: its A are the experts' A stacked, its B
their B side by side, each times its gate. The sum is exact, at the sum of the ranks. No
`modules_to_save`, no bias, no DoRA, no rsLoRA: servers take none of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from routedk.adapters.experts.fused import FusedLinear
from routedk.adapters.experts.routed import RoutedStudent
from routedk.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class PlainLora:
    """One LoRA with scaling 1.

    Args:
        tensors: By the names that PEFT saves them under; A *shape* (rank, in), B (out, rank).
        config: As PEFT writes it.
        error: Of a truncation: the Frobenius norm of what it lost in all products B A, over their
            norm; 0 where nothing was cut.
    """

    tensors: Mapping[str, Tensor]
    config: LoraConfig
    error: float

    @property
    def rank(self) -> int:
        """The same in all layers."""
        rank: int = self.config.r
        return rank

    def write(self, folder: Path) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors`` into a folder."""
        path = folder / "adapter_model.safetensors"
        save_file(dict(self.tensors), path, metadata={"format": "pt"})
        self.config.save_pretrained(str(folder))


@torch.no_grad()
def fold(
    routed: RoutedStudent,
    gates: Sequence[float],
    *,
    max_rank: int | None = None,
    truncate: bool = False,
) -> PlainLora:
    """The experts, fused by fixed gates; those with gate 0 are left out.

    Args:
        routed: The experts; its own fusion is not asked.
        gates: One per expert.
        max_rank: Highest rank allowed, at least 1; None for any.
        truncate: Whether a higher rank is cut down to ``max_rank``, to the nearest LoRA of that
            rank (SVD of each product B A), or refused.

    Raises:
        SettingError: The rank is above ``max_rank``, or there is none to truncate to, or the
            experts are active from the session on only, which no plain LoRA can be.
    """
    settings = routed.settings
    if settings.experts_from != "start":
        raise SettingError(
            f"experts_from={settings.experts_from!r}: a plain LoRA is active from the prompt's "
            "first token on, where these experts were not trained to be: train with "
            "experts_from='start' to export them"
        )
    scale_R = torch.tensor(gates).repeat_interleave(settings.r)
    columns = scale_R.nonzero()[:, 0]
    rank = len(columns)
    _check_rank(rank, max_rank, truncate)
    cut = max_rank if max_rank is not None and max_rank < rank else None
    tensors: dict[str, Tensor] = {}
    lost = whole = 0.0
    for name, module in routed.model.named_modules():
        if isinstance(module, FusedLinear):
            down, up = (matrix.detach().cpu() for matrix in module.stacked())
            down, up = down[columns], (up * scale_R.to(up.dtype))[:, columns]
            if cut is not None:
                down, up, values = truncate_product(down, up, cut)
                lost += float(values[cut:].square().sum())
                whole += float(values.square().sum())
            tensors[f"{name}.lora_A.weight"] = down.contiguous()
            tensors[f"{name}.lora_B.weight"] = up.contiguous()
    config = LoraConfig(
        r=cut or rank,
        lora_alpha=cut or rank,  # The experts' own scaling is in B.
        target_modules=list(settings.target_modules),
        layers_to_transform=list(
            range(routed.first_layer, routed.student.model.config.num_hidden_layers)
        ),
        layers_pattern="layers",
        task_type="CAUSAL_LM",
        base_model_name_or_path=routed.student.name,
        inference_mode=True,
    )
    return PlainLora(tensors=tensors, config=config, error=(lost / whole) ** 0.5 if whole else 0.0)


def _check_rank(rank: int, max_rank: int | None, truncate: bool) -> None:
    if max_rank is None:
        if truncate:
            raise SettingError("truncate: to which rank? Give max_rank, at least 1, too")
        return
    if max_rank < 1:
        raise SettingError(f"max_rank={max_rank}: at least 1")
    if rank > max_rank and not truncate:
        raise SettingError(
            f"the experts' ranks sum to {rank}, above max_rank={max_rank}: truncate it (an SVD, "
            "whose error the card states), fuse fewer experts, or export full weights"
        )


def truncate_product(down: Tensor, up: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest product of lower rank.

    Args:
        down: A. *Shape:* (rank of the product, in).
        up: B. *Shape:* (out, rank of the product).
        rank: What is wanted, below both.

    Returns:
        A of ``rank`` rows, B of ``rank`` columns, and all singular values of B A.

    Source: Eckart and Young, 1936; by QR of both factors, so that B A is never made.
    """
    left, left_small = torch.linalg.qr(up.double())
    right, right_small = torch.linalg.qr(down.double().T)
    turned_left, values, turned_right = torch.linalg.svd(
        left_small @ right_small.T, full_matrices=False
    )
    root = values[:rank].sqrt()
    new_up = left @ turned_left[:, :rank] * root
    new_down = root[:, None] * (turned_right[:rank] @ right.T)
    more = rank - len(root)  # A layer narrower than the rank; PEFT wants one rank in all.
    new_up = nn.functional.pad(new_up, (0, more))
    new_down = nn.functional.pad(new_down, (0, 0, 0, more))
    return new_down.to(down.dtype), new_up.to(up.dtype), values
