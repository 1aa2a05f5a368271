"""The layers below the experts, computed once per training row instead of once per step.

Experts sit in the upper layers only. The output of the frozen lower layers never changes
while experts are trained, so it is computed once per row and kept; a step then costs only the
upper layers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from routedk.adapters.trees import TokenTree, tree_inputs, tree_masks


@contextmanager
def skipped(layers: Sequence[Any], hidden_BTH: Tensor | None = None) -> Iterator[None]:
    """Make decoder layers compute nothing inside the block.

    Args:
        layers: Consecutive layers of a transformers decoder.
        hidden_BTH: What they return; None for their own input.
    """
    for layer in layers:
        layer.forward = lambda hidden_states, *args, **kwargs: (
            hidden_states if hidden_BTH is None else hidden_BTH
        )
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


@torch.inference_mode()
def lower_hidden(model: Any, trees: Sequence[TokenTree], layers: int) -> list[Tensor]:
    """The output of the lowest layers for a batch of rows.

    Args:
        model: The student's; no gates may be set.
        trees: The rows.
        layers: Number of lowest layers; for 0 the output is empty.

    Returns:
        One tensor per row, *shape* (tokens, hidden), on the CPU.
    """
    if layers == 0:
        return [torch.empty(len(tree.input_ids), 0) for tree in trees]
    inputs = {name: tensor.to(model.device) for name, tensor in tree_inputs(trees).items()}
    masks = tree_masks(model, inputs.pop("branch_ids"), inputs["position_ids"])
    decoder, outputs = model.base_model, []
    # The decoder's own output is normalized.
    hook = decoder.layers[layers - 1].register_forward_hook(
        lambda module, args, output: outputs.append(output)
    )
    try:
        with skipped(decoder.layers[layers:]):
            decoder(**inputs, attention_mask=masks, use_cache=False)
    finally:
        hook.remove()
    rows_BTH = outputs[0].cpu()
    return [rows_BTH[k, : len(tree.input_ids)].clone() for k, tree in enumerate(trees)]
