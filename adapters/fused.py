"""The fused layer: all LoRA experts of a linear layer in one pair of products, gated per sample."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from routedk.errors import SettingError


class GateState:
    """The gates of the forward pass under way, shared by all fused layers of one model."""

    def __init__(self) -> None:
        self.gates_BE: Tensor | None = None

    @contextmanager
    def use(self, gates_BE: Tensor) -> Iterator[None]:
        """Fuse the experts by these gates inside the block, the backward pass included.

        Args:
            gates_BE: One row of gates per sample. *Shape:* (batch, experts).
        """
        previous, self.gates_BE = self.gates_BE, gates_BE
        try:
            yield
        finally:
            self.gates_BE = previous


class FusedLinear(LoraLinear):  # type: ignore[misc]  # PEFT is untyped here
    r"""A PEFT LoRA layer whose experts are fused by gates.

    .. math:: y = W x + \sum_e g_e \frac{\alpha_e}{r_e} B_e A_e x

    The experts' A are stacked to one (E*R, in) matrix and their B to one (out, E*R), so the sum
    costs two products whatever E is; the gates scale the middle. Without gates it is PEFT's own
    layer.

    Source: RouteDK (arXiv 2508.17250), dynamic fusion.
    """

    gate_state: GateState | None = None
    expert_names: tuple[str, ...] = ()
    frozen_cat: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Apply the base layer and the gated experts.

        Args:
            x: Hidden states. *Shape:* (batch, tokens, in).
            args: For PEFT's own layer.
            kwargs: For PEFT's own layer.

        Returns:
            *Shape:* (batch, tokens, out).

        Raises:
            SettingError: The gates are of another batch.
        """
        state = self.gate_state
        if state is None or state.gates_BE is None or self.disable_adapters:
            return super().forward(x, *args, **kwargs)  # type: ignore[no-any-return]
        down, up = self.frozen_cat or self.stacked()
        if state.gates_BE.shape != (x.shape[0], len(self.expert_names)):
            raise SettingError(
                f"gates of shape {tuple(state.gates_BE.shape)} for {x.shape[0]} samples and "
                f"{len(self.expert_names)} experts: one row per sample, one column per expert"
            )
        rank = down.shape[0] // len(self.expert_names)
        scale_BER = state.gates_BE.to(x.dtype).repeat_interleave(rank, dim=1)
        middle_BTR = nn.functional.linear(x, down.to(x.dtype)) * scale_BER[:, None, :]
        output: Tensor = self.base_layer(x)
        return output + nn.functional.linear(middle_BTR, up.to(x.dtype))

    def stacked(self) -> tuple[Tensor, Tensor]:
        """The experts' A stacked, *shape* (E*R, in), and scaled B, *shape* (out, E*R)."""
        down = torch.cat([self.lora_A[name].weight for name in self.expert_names])
        up = torch.cat(
            [self.lora_B[name].weight * self.scaling[name] for name in self.expert_names], dim=1
        )
        return down, up

    def freeze(self) -> None:
        """Stack once, for inference and router training: the experts no longer change."""
        down, up = self.stacked()
        self.frozen_cat = (down.detach(), up.detach())


def expert_config(
    r: int, lora_alpha: int, target_modules: list[str], *, layers: range
) -> LoraConfig:
    """A LoRA configuration whose linear layers in these decoder layers become `FusedLinear`."""
    config = LoraConfig(
        r=r,
        lora_alpha=lora_alpha,
        target_modules=target_modules,
        layers_to_transform=list(layers),
        layers_pattern="layers",
        task_type="CAUSAL_LM",
    )
    return register_fused(config)


def register_fused(config: LoraConfig) -> LoraConfig:
    """Make PEFT build `FusedLinear` for this configuration (PEFT does not save that mapping)."""
    config._register_custom_module({nn.Linear: FusedLinear})
    return config


def fused_layers(model: PeftModel) -> list[FusedLinear]:
    """All fused layers of a model, in module order."""
    return [module for module in model.modules() if isinstance(module, FusedLinear)]


def connect(model: PeftModel, expert_names: tuple[str, ...]) -> GateState:
    """Let all fused layers read one shared gate state, with experts in this order."""
    state = GateState()
    for layer in fused_layers(model):
        layer.gate_state = state
        layer.expert_names = expert_names
    return state
