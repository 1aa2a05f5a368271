"""Puts LoRA experts on a student, as adapters of one PEFT model."""

from collections.abc import Sequence
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Linear as LoraLinear

from routedk.adapters.experts.fused import FusedLinear, fused_layers
from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.student import Student
from routedk.errors import SettingError


def check_student(student: Student, settings: ExpertSettings) -> None:
    """Check that a student can get such experts.

    Raises:
        SettingError: It has experts already, or no decoder layers where they are sought, or the
            rank is above its hidden size.
    """
    if fused_layers(student.model):
        raise SettingError(f"the student {student.name!r} has experts already: load it again")
    if not hasattr(getattr(student.model, "model", None), "layers"):
        raise SettingError(
            f"the student {student.name!r} is a {type(student.model).__name__}, without "
            "decoder layers under model.layers: use a student like Llama, Qwen or SmolLM2"
        )
    check_rank(settings, student)


def check_rank(settings: ExpertSettings, student: Student) -> None:
    """Check the experts' rank against the student's width.

    Raises:
        SettingError: It is above it.
    """
    hidden = student.model.config.hidden_size
    if settings.r > hidden:
        raise SettingError(f"r={settings.r}: at most {hidden}, the hidden size of {student.name!r}")


def add_experts(
    model: Any, settings: ExpertSettings, adapters: Sequence[str], first_layer: int
) -> PeftModel:
    """Add fresh experts, which change nothing, to the layers from ``first_layer`` on.

    Args:
        model: The student's; it is changed.
        settings: The shape of the experts.
        adapters: Names of the experts as adapters.
        first_layer: The lowest decoder layer that gets experts.
    """
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        target_modules=list(settings.target_modules),
        layers_to_transform=list(range(first_layer, model.config.num_hidden_layers)),
        layers_pattern="layers",
        task_type="CAUSAL_LM",
    )
    wrapped: PeftModel = get_peft_model(model, config, adapter_name=adapters[0])
    for adapter in adapters[1:]:
        wrapped.add_adapter(adapter, config)
    for module in wrapped.modules():
        # PEFT has no public way to be told of a layer class of ours, which adds no state.
        if type(module) is LoraLinear:
            module.__class__ = FusedLinear
    return wrapped
