"""The weights of an encoder grouping on disk."""

from pathlib import Path
from typing import Any

import torch

from routedk.artifacts import content_hash
from routedk.files import open_file, read_json, read_tensors

HEADS = "heads.safetensors"
LORA = "adapter_model.safetensors"


def weights_hashes(folder: Path) -> dict[str, str]:
    """A hash of each file of weights in a grouping's folder; a missing one is a DataError."""
    with open_file(folder / LORA) as lora, open_file(folder / HEADS) as heads:
        return {
            name: content_hash(f.read().hex()) for name, f in (("lora", lora), ("heads", heads))
        }


def fold_lora(encoder: Any, folder: Path) -> None:
    """Add a saved LoRA to the weights of an encoder, so that it costs nothing in use.

    Raises:
        ValueError: It is of another encoder, or has weights that are not finite.
    """
    config: Any = read_json(folder / "adapter_config.json")
    tensors = read_tensors(folder / LORA, "pt")
    scale = config["lora_alpha"] / config["r"]
    with torch.no_grad():
        for key in filter(lambda name: name.endswith(".lora_A.weight"), tensors):
            name = key.removesuffix(".lora_A.weight").removeprefix("base_model.model.")
            weight = encoder.transformers_model.get_submodule(name).weight
            change = tensors[key.replace("lora_A", "lora_B")].float() @ tensors[key].float() * scale
            if change.shape != weight.shape or not bool(change.isfinite().all()):
                raise ValueError(f"{name}: a weight of another encoder, or one that is not finite")
            weight += change
