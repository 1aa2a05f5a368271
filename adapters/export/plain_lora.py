"""Routed experts under fixed gates as one plain PEFT LoRA, which any LoRA server loads.

Experts fused by gates that do not change are one LoRA: its A are the experts' A stacked, its B
their B side by side, each times its gate (of its layer, where layers have gates of their own).
The sum is exact, at the sum of the ranks. No `modules_to_save`, no bias, no DoRA, no rsLoRA:
servers take none of them.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from routedk.adapters.experts.fused import FusedLinear
from routedk.adapters.experts.routed import RoutedStudent
from routedk.errors import SettingError

WEIGHTS_FILE = "adapter_model.safetensors"
# What vLLM allows for --max-lora-rank (its LoRAConfig), from 8 on.
SERVER_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True, kw_only=True)
class PlainLora:
    """One LoRA with scaling 1.

    Args:
        tensors: By the names that PEFT saves them under; A *shape* (rank, in), B (out, rank).
        rank: The same in all layers.
        error: Of a truncation to that rank: the Frobenius norm of what it lost in all products
            B A, over their norm; 0 where nothing was cut.
        target_modules: Linear layers with experts, by the end of their names.
        layers: Decoder layers with experts.
        student: Name of the student.
        fingerprint: Of the student's weights.
    """

    tensors: Mapping[str, Tensor]
    rank: int
    error: float
    target_modules: tuple[str, ...]
    layers: range
    student: str
    fingerprint: str

    @cached_property
    def content_hash(self) -> str:
        """Sixteen hex digits that name its tensors, shape and the student's weights."""
        shape = (self.rank, sorted(self.target_modules), list(self.layers), self.fingerprint)
        digest = hashlib.sha256(repr(shape).encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def config(self) -> LoraConfig:
        """As PEFT writes it."""
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.rank,  # The experts' own scaling is in B.
            target_modules=list(self.target_modules),
            layers_to_transform=list(self.layers),
            layers_pattern="layers",
            task_type="CAUSAL_LM",
            base_model_name_or_path=self.student,
            inference_mode=True,
        )

    def write(self, folder: Path) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors`` into a folder."""
        save_file(dict(self.tensors), folder / WEIGHTS_FILE, metadata={"format": "pt"})
        self.config.save_pretrained(str(folder))


@torch.no_grad()
def fold(
    routed: RoutedStudent,
    gates: Sequence[float] | Tensor,
    *,
    max_rank: int | None = None,
    truncate: bool = False,
) -> PlainLora:
    """The experts, fused by fixed gates.

    Experts whose gates are 0 in every layer are left out, so one expert alone keeps its rank.

    Args:
        routed: The experts; its own fusion is not asked.
        gates: One per expert, or a row of them per layer with experts. *Shape:* (experts) or
            (layers, experts).
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
    first, depth = routed.first_layer, routed.student.model.config.num_hidden_layers
    gates_LE = torch.as_tensor(gates, dtype=torch.float32).cpu()
    gates_LE = gates_LE.expand(depth - first, -1) if gates_LE.ndim == 1 else gates_LE
    kept = [place for place in range(len(settings.experts)) if bool(gates_LE[:, place].any())]
    rank = settings.r * len(kept)
    check_rank(rank, max_rank, truncate)
    cut = max_rank if max_rank is not None and max_rank < rank else None
    columns = [place * settings.r + k for place in kept for k in range(settings.r)]
    tensors: dict[str, Tensor] = {}
    lost = whole = 0.0
    for name, module in routed.model.named_modules():
        if isinstance(module, FusedLinear):
            down, up = (matrix.detach().cpu() for matrix in module.stacked())
            scale = gates_LE[_layer(name) - first].to(up.dtype).repeat_interleave(settings.r)
            down, up = down[columns], (up * scale)[:, columns]
            if cut is not None:
                down, up, values = truncate_product(down, up, cut)
                lost += float(values[cut:].square().sum())
                whole += float(values.square().sum())
            tensors[f"{name}.lora_A.weight"] = down.contiguous()
            tensors[f"{name}.lora_B.weight"] = up.contiguous()
    return PlainLora(
        tensors=tensors,
        rank=cut or rank,
        error=(lost / whole) ** 0.5 if whole else 0.0,
        target_modules=settings.target_modules,
        layers=range(first, depth),
        student=routed.student.name,
        fingerprint=routed.student.fingerprint,
    )


def check_rank(rank: int, max_rank: int | None, truncate: bool) -> None:
    """Check a LoRA's rank against what is allowed.

    Raises:
        SettingError: It is above it and may not be truncated, or there is nothing to check
            against.
    """
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


def server_rank(rank: int) -> int | None:
    """The lowest ``--max-lora-rank`` of vLLM that serves this rank; None where none does."""
    return next((allowed for allowed in SERVER_RANKS if allowed >= rank), None)


def _layer(name: str) -> int:
    found = re.search(r"\.layers\.(\d+)\.", name)
    assert found is not None, f"{name} is in no decoder layer"
    return int(found[1])
