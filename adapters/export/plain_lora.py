"""Routed experts under fixed gates as one plain PEFT LoRA, which any LoRA server loads.

Experts fused by gates that do not change are one LoRA: its A is the experts' A stacked, its B
their B side by side, each times its gate. The sum is exact; its rank is the sum of the ranks. No
`modules_to_save`, no bias, no DoRA, no rsLoRA: servers support none of them.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import save_file
from torch import Tensor

from routedk.adapters.experts.fused import FusedLinear
from routedk.adapters.experts.lora_config import write_lora_config
from routedk.adapters.experts.routed import RoutedStudent
from routedk.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class PlainLora:
    """One LoRA with scaling 1.

    Args:
        tensors: By the names that PEFT saves them under; A *shape* (rank, in), B (out, rank).
        config: Its shape.
        base: Name or folder of the weights that it belongs to.
    """

    tensors: Mapping[str, Tensor]
    config: LoraConfig
    base: str

    def write(self, folder: Path) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors`` into a folder."""
        path = folder / "adapter_model.safetensors"
        save_file(dict(self.tensors), path, metadata={"format": "pt"})
        write_lora_config(self.config, self.base, folder)

    def merge(self, routed: RoutedStudent, folder: Path) -> None:
        """Write the student with this LoRA merged into its weights; its experts are removed."""
        with tempfile.TemporaryDirectory() as scratch:
            self.write(Path(scratch))
            model: Any = PeftModel.from_pretrained(routed.unload().model, scratch)
        model.merge_and_unload().save_pretrained(folder)
        routed.tokenizer.save_pretrained(folder)


@torch.no_grad()
def fold(routed: RoutedStudent, gates: Sequence[float]) -> PlainLora:
    """The experts, fused by fixed gates; those with gate 0 are left out.

    Args:
        routed: The experts; its own fusion is not used.
        gates: One per expert.

    Raises:
        SettingError: The experts are only active from the session on, which no plain LoRA can be.
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
    tensors: dict[str, Tensor] = {}
    for name, module in routed.model.named_modules():
        if isinstance(module, FusedLinear):
            down, up = (matrix.detach().cpu() for matrix in module.stacked())
            tensors[f"{name}.lora_A.weight"] = down[columns].contiguous()
            tensors[f"{name}.lora_B.weight"] = (up * scale_R)[:, columns].contiguous()
    config = replace(
        routed.model.peft_config[routed.adapters[0]],
        r=len(columns),
        lora_alpha=len(columns),  # The experts' own scaling is in B.
    )
    return PlainLora(tensors=tensors, config=config, base=routed.student.weights_name)
