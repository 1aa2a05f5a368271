"""Puts LoRA experts on a student, as adapters of one PEFT model."""

import warnings
from collections.abc import Sequence
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn

from routedk.adapters.experts.fused import FusedLinear, fused_layers
from routedk.adapters.experts.routing_file import TARGET_MODULES, ExpertSettings
from routedk.adapters.student import Student
from routedk.errors import SettingError


def check_student(student: Student) -> None:
    """Check that a student can get experts.

    Raises:
        SettingError: It has experts already.
    """
    if fused_layers(student.model):
        raise SettingError(f"the student {student.name!r} has experts already: load it again")


def linear_layers(layers: Sequence[nn.Module], wanted: Sequence[str]) -> list[str]:
    """The linear layers that get experts, by the last part of their names.

    Args:
        layers: The decoder layers.
        wanted: The requested ones. If these are the default ones, and the student lacks some, all
            its linear layers are used: some students fuse them.
    """
    modules = (named for layer in layers for named in layer.named_modules())
    found = {name.rpartition(".")[2] for name, each in modules if isinstance(each, nn.Linear)}
    return list(wanted) if wanted != TARGET_MODULES or found >= {*wanted} else sorted(found)


def add_experts(
    model: Any, settings: ExpertSettings, adapters: Sequence[str], first_layer: int
) -> PeftModel:
    """Add fresh experts, which change nothing, to the layers from ``first_layer`` on.

    Args:
        model: The student's; it is modified.
        settings: The shape of the experts.
        adapters: Adapter names of the experts.
        first_layer: The lowest decoder layer that gets experts.

    Raises:
        SettingError: Their rank is above the student's hidden size.
    """
    if settings.r > model.config.hidden_size:
        raise SettingError(
            f"r={settings.r}: at most {model.config.hidden_size}, the student's hidden size"
        )
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        target_modules=linear_layers(model.base_model.layers, settings.target_modules),
        layers_to_transform=list(range(first_layer, model.config.num_hidden_layers)),
        layers_pattern="layers",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers for it by its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        wrapped: PeftModel = get_peft_model(model, config, adapter_name=adapters[0])
    for adapter in adapters[1:]:
        wrapped.add_adapter(adapter, config)
    for module in wrapped.modules():
        # PEFT has no public way to register our own layer class, which adds no state.
        if type(module) is LoraLinear:
            module.__class__ = FusedLinear
    return wrapped
