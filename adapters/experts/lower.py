"""The layers below the experts, computed once per training row instead of once per step.

Experts sit in the upper layers only. What the frozen lower layers make of a row never changes
while experts are trained, so it is computed once and kept; a step then costs the upper layers
alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from routedk.adapters.trees import TokenTree, pad, tree_mask

_BATCH = 8


@contextmanager
def only_layers(decoder: Any, start: int, stop: int) -> Iterator[None]:
    """Let a transformers decoder run the layers ``start`` to ``stop`` only, inside the block.

    Args:
        decoder: The model below the language-modelling head, with ``layers`` and ``config``.
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
    decoder: Any,
    trees: Sequence[TokenTree],
    layers: int,
    pad_token_id: int,
    *,
    progress: bool = True,
) -> list[Tensor]:
    """What the lowest layers make of each row.

    Args:
        decoder: As in `only_layers`; without gates set.
        trees: The rows.
        layers: Number of lowest layers, at least 0.
        pad_token_id: Fills rows of one batch up to equal length.
        progress: Whether a progress bar is shown.

    Returns:
        One tensor per row, *shape* (tokens, hidden), on the CPU.
    """
    if layers == 0:
        embed = decoder.get_input_embeddings()
        device = embed.weight.device
        return [embed(torch.tensor(t.input_ids, device=device)).cpu() for t in trees]
    found: dict[int, Tensor] = {}
    seen: list[Tensor] = []
    order = sorted(range(len(trees)), key=lambda k: len(trees[k].input_ids))
    hook = decoder.layers[layers - 1].register_forward_hook(
        lambda module, args, output: seen.append(output[0] if isinstance(output, tuple) else output)
    )
    try:
        with only_layers(decoder, 0, layers):
            starts = range(0, len(order), _BATCH)
            for first in tqdm(starts, desc="lower layers", unit="batch", disable=not progress):
                places = order[first : first + _BATCH]
                batch = [trees[k] for k in places]
                device = decoder.get_input_embeddings().weight.device
                members = pad([tree.branch_ids for tree in batch], -1).to(device)
                decoder(
                    input_ids=pad([tree.input_ids for tree in batch], pad_token_id).to(device),
                    position_ids=pad([tree.position_ids for tree in batch], 0).to(device),
                    attention_mask=tree_mask(members, decoder.dtype),
                    use_cache=False,
                )
                hidden_BTH = seen.pop()
                for row, place in enumerate(places):
                    length = len(trees[place].input_ids)
                    found[place] = hidden_BTH[row, :length].cpu().clone()
    finally:
        hook.remove()
    return [found[k] for k in range(len(trees))]
