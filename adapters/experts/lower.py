"""The layers below the experts, computed once per training row instead of once per step.

Experts sit in the upper layers only. The output of the frozen lower layers never changes
while experts are trained, so it is computed once per row and kept; a step then costs the upper
layers alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from routedk.adapters.trees import TokenTree, branch_mask, pad


@contextmanager
def only_layers(decoder: Any, start: int, stop: int) -> Iterator[None]:
    """Let a transformers decoder run the layers ``start`` to ``stop`` only, inside the block.

    Args:
        decoder: The model below the language-modeling head, with ``layers`` and ``config``.
        start: First layer run; above 0 the decoder is to be given ``inputs_embeds``.
        stop: One past the last layer run.
    """
    every = decoder.layers
    decoder.layers = nn.ModuleList(every[start:stop])
    try:
        yield
    finally:
        decoder.layers = every


@torch.inference_mode()
def lower_hidden(
    decoder: Any, trees: Sequence[TokenTree], layers: int, pad_token_id: int
) -> list[Tensor]:
    """The output of the lowest layers for a batch of rows.

    Args:
        decoder: As in `only_layers`; without gates set.
        trees: The rows.
        layers: Number of lowest layers; 0 for the input embeddings.
        pad_token_id: Fills rows up to equal length.

    Returns:
        One tensor per row, *shape* (tokens, hidden), on the CPU.
    """
    embed = decoder.get_input_embeddings()
    device = embed.weight.device
    if layers == 0:
        return [embed(torch.tensor(tree.input_ids, device=device)).cpu() for tree in trees]
    outputs: list[Tensor] = []
    # The decoder's own output is normed.
    hook = decoder.layers[layers - 1].register_forward_hook(
        lambda module, args, output: outputs.append(output)
    )
    members_BT = pad([tree.branch_ids for tree in trees], -1).to(device)
    try:
        with only_layers(decoder, 0, layers):
            decoder(
                input_ids=pad([tree.input_ids for tree in trees], pad_token_id).to(device),
                position_ids=pad([tree.position_ids for tree in trees], 0).to(device),
                attention_mask=branch_mask(members_BT, members_BT, members_BT, decoder.dtype),
                use_cache=False,
            )
    finally:
        hook.remove()
    rows_BTH = outputs[0].cpu()
    return [rows_BTH[k, : len(tree.input_ids)].clone() for k, tree in enumerate(trees)]
