"""The fused layer: all LoRA experts of a linear layer in two matrix products, gated per sample."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from routedk.adapters.experts.router import Gates
from routedk.errors import SettingError


class GateState:
    """The gates of the current forward pass, shared by all fused layers of one model.

    Attributes:
        gates: As a fusion made them; None for PEFT's own behavior.
        starts: Position of the first token of each sample at which experts are active; None if
            they are active from the start. *Shape:* (batch,).
        settled: The gates in each decoder layer that was entered, each repeated over the ranks of
            its expert, in the precision of the layer's input. Kept, since a layer that gradient
            checkpointing recomputes is not entered again. *Shape:* (batch, 1 or tokens,
            experts * r).

    Args:
        r: Rank of each expert.
    """

    def __init__(self, r: int) -> None:
        self.r = r
        self.gates: Gates | None = None
        self.starts: Tensor | None = None
        self.settled: dict[int, Tensor | None] = {}

    @contextmanager
    def use(self, gates: Gates, starts: Tensor | None = None) -> Iterator[None]:
        """Fuse the experts by these gates inside the block, including the backward pass.

        Args:
            gates: One row per sample, *shape* (batch, experts); one per sample and layer,
                *shape* (batch, layers, experts); or gates per token.
            starts: As the attribute ``starts``.
        """
        previous = self.gates, self.starts
        self.gates, self.starts = gates, starts
        try:
            yield
        finally:
            self.gates, self.starts = previous

    def enter(self, layer: int, hidden_BTH: Tensor, position_ids_BT: Tensor | None = None) -> None:
        """Settle the gates of a decoder layer, counted from the lowest one with experts.

        Args:
            layer: Its number.
            hidden_BTH: Its input.
            position_ids_BT: Its tokens' positions; needed if ``starts`` are given.
        """
        gates = self.gates
        if gates is None:
            self.settled[layer] = None
            return
        if not isinstance(gates, Tensor):
            gates_BTE = gates.at(layer, hidden_BTH)
        elif gates.ndim == 3:
            gates_BTE = gates[:, layer : layer + 1]
        else:
            gates_BTE = gates[:, None]
        if self.starts is not None:
            if position_ids_BT is None:
                raise SettingError(
                    "experts_from='session' needs a student whose decoder layers get position_ids, "
                    "like Llama's, Qwen's or SmolLM2's: use experts_from='start'"
                )
            active_BT = position_ids_BT >= self.starts.to(position_ids_BT.device)[:, None]
            gates_BTE = gates_BTE * active_BT[..., None].to(gates_BTE.dtype)
        # Once here instead of in each of the layer's seven linear layers.
        self.settled[layer] = gates_BTE.to(hidden_BTH.dtype).repeat_interleave(self.r, dim=-1)


class FusedLinear(LoraLinear):  # type: ignore[misc]  # PEFT is untyped here
    r"""A PEFT LoRA layer whose experts are fused by gates.

    .. math:: y = W x + \sum_e g_e \frac{\alpha_e}{r_e} B_e A_e x

    The experts' A are stacked into one (E*R, in) matrix and their B into one (out, E*R), so the sum
    costs two products whatever E is; the gates scale what is between them. Without gates it is
    PEFT's own layer.

    Source: RouteDK (arXiv 2508.17250), dynamic fusion.
    """

    gate_state: GateState | None = None
    place: int = 0
    expert_names: tuple[str, ...] = ()
    frozen_stack: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Apply the base layer and the gated experts.

        Args:
            x: Hidden states. *Shape:* (batch, tokens, in) or (batch * tokens, in).
            args: For PEFT's own layer.
            kwargs: For PEFT's own layer.

        Returns:
            *Shape:* (batch, tokens, out) or (batch * tokens, out).
        """
        state = self.gate_state
        gates_BTR = state.settled.get(self.place) if state is not None else None
        if gates_BTR is None or self.disable_adapters:
            return super().forward(x, *args, **kwargs)  # type: ignore[no-any-return]
        if x.ndim == 2:  # Mixtures of experts flatten the batch.
            gates_BTR = gates_BTR.expand(-1, len(x) // len(gates_BTR), -1).flatten(0, 1)
        down, up = self.frozen_stack or self.stacked()
        if down.dtype != x.dtype:
            down, up, gates_BTR = (tensor.to(x.dtype) for tensor in (down, up, gates_BTR))
        middle_BTR = nn.functional.linear(x, down) * gates_BTR
        output: Tensor = self.base_layer(x)
        return output + nn.functional.linear(middle_BTR, up)

    def stacked(self) -> tuple[Tensor, Tensor]:
        """The experts' A stacked, *shape* (E*R, in), and scaled B, *shape* (out, E*R)."""
        down = torch.cat([self.lora_A[name].weight for name in self.expert_names])
        up = torch.cat(
            [self.lora_B[name].weight * self.scaling[name] for name in self.expert_names], dim=1
        )
        return down, up

    def freeze(self) -> None:
        """Stack once, for inference and router training, where experts no longer change.

        Uses the base layer's precision, to which PEFT's float32 would be converted in each pass.
        """
        dtype = self.get_base_layer().weight.dtype
        down, up = self.stacked()
        self.frozen_stack = (down.detach().to(dtype), up.detach().to(dtype))


def fused_layers(model: nn.Module) -> list[FusedLinear]:
    """All fused layers of a model, in module order."""
    return [module for module in model.modules() if isinstance(module, FusedLinear)]


def connect(
    expert_names: tuple[str, ...], layers: Sequence[Any], r: int
) -> tuple[GateState, list[RemovableHandle]]:
    """Let all fused layers read one shared gate state, with experts in this order.

    Args:
        expert_names: Adapters of the model, in gate order.
        layers: The decoder layers with experts, lowest first.
        r: Rank of each expert.

    Returns:
        The gate state, and the hooks by which decoder layers settle it.
    """
    state = GateState(r)

    def settle(layer: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden_BTH = args[0] if args else kwargs["hidden_states"]
        state.enter(layer, hidden_BTH, kwargs.get("position_ids"))

    hooks = []
    for place, decoder_layer in enumerate(layers):
        hook = decoder_layer.register_forward_pre_hook(partial(settle, place), with_kwargs=True)
        hooks.append(hook)
        for fused in fused_layers(decoder_layer):
            fused.gate_state = state
            fused.place = place
            fused.expert_names = expert_names
    return state, hooks
