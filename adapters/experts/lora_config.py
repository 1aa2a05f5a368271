"""``adapter_config.json`` as every version of PEFT and every LoRA server reads it."""

from pathlib import Path
from typing import Any

from peft import LoraConfig

from routedk.files import write_json

CONFIG_FILE = "adapter_config.json"


def write_lora_config(config: LoraConfig, base: str, folder: Path) -> None:
    """Write what differs from PEFT's defaults: PEFT rejects a file with a key it does not know.

    Args:
        config: The LoRA's config.
        base: Name or folder of the weights that it was trained on.
        folder: The folder of ``adapter_model.safetensors``.
    """
    usual = LoraConfig().to_dict()
    told: dict[str, Any] = {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in config.to_dict().items()
        if value != usual[name]
    }
    # Servers have no defaults for the shape.
    shape = {"r": config.r, "lora_alpha": config.lora_alpha}
    named = {"peft_type": "LORA", "base_model_name_or_path": base, "inference_mode": True}
    write_json(folder / CONFIG_FILE, {**told, **shape, **named})
