"""Attention whose query heads share keys and values without copies of them.

With a mask and several queries, transformers' own ``sdpa`` copies the keys and values once per
query head. After a long prompt that costs more than the attention itself. Here the query heads that
share a key head are packed as further queries of that head; in a batch of one, where it is faster,
the heads stand in the place of the batch and their keys and values are broadcast. Many queries in
bfloat16 are computed by matrix products where a CPU is faster so.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "routedk_packed"

# So many pairs of query and token, and matrix products are worth their calls.
_MANY = 2**13
# So many scores stay in a CPU's cache.
_CACHED = 2**20
# Queries that are computed together at least.
_FEWEST = 16


def packed_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers, for a mask that all heads share.

    *Shape:* query (batch, query heads, queries, width); key and value (batch, heads, tokens,
    width); mask (batch, 1, queries, tokens); the result (batch, queries, query heads, width).
    """
    batch, query_heads, queries, width = query.shape
    heads = key.shape[1]
    group = query_heads // heads
    if attention_mask is None or group == 1 or query.is_cuda:
        attended: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
        return attended
    lower = query.dtype == torch.bfloat16 and query.device.type == "cpu"
    if lower and queries * key.shape[2] >= _MANY and _multiplies_faster():
        return _by_products(query, key, value, attention_mask, scaling or width**-0.5), None
    # A single query in lower precision is several times faster packed.
    if batch == 1 and (queries > 1 or query.dtype == torch.float32):
        spread = nn.functional.scaled_dot_product_attention(
            query.view(heads, group, queries, width),
            key.view(heads, 1, -1, width).expand(-1, group, -1, -1),
            value.view(heads, 1, -1, width).expand(-1, group, -1, -1),
            attn_mask=attention_mask,
            scale=scaling,
        )
        return spread.reshape(1, query_heads, queries, width).transpose(1, 2).contiguous(), None
    packed = nn.functional.scaled_dot_product_attention(
        query.reshape(batch, heads, group * queries, width),
        key,
        value,
        attn_mask=attention_mask.repeat(1, 1, group, 1),
        scale=scaling,
    )
    return packed.view(batch, query_heads, queries, width).transpose(1, 2).contiguous(), None


def _by_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """Attention by two matrix products, of so many queries at a time that scores stay in cache.

    Scores are rounded to bfloat16, as in transformers' ``eager``; shapes are those of
    `packed_attention_forward`.
    """
    batch, query_heads, queries, width = query.shape
    heads, tokens = key.shape[1:3]
    attended = query.new_empty(batch, queries, query_heads, width)
    step = max(_FEWEST, _CACHED // (query_heads * tokens))
    for row in range(batch):
        for first in range(0, queries, step):
            some = slice(first, first + step)
            asked = (query[row, :, some] * scaling).reshape(heads, -1, width)
            scores = (asked @ key[row].mT).view(query_heads, -1, tokens).add_(mask[row, :, some])
            found = scores.softmax(-1).view(heads, -1, tokens) @ value[row]
            attended[row, some] = found.view(query_heads, -1, width).transpose(0, 1)
    return attended


@cache
def _multiplies_faster() -> bool:
    """Whether this CPU multiplies bfloat16 faster than PyTorch's fused kernel attends.

    So it is where vectors do (AVX-512); with tiles (AMX) it is not known, and the kernel has a way
    of its own for them.
    """
    has_vectors = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    return bool(has_vectors() and not has_tiles())


AttentionInterface.register(NAME, packed_attention_forward)


@contextmanager
def packed_attention(model: Any) -> Iterator[None]:
    """Let a causal LM that uses ``sdpa`` attend so inside the block, masks given."""
    config = model.config
    before = config._attn_implementation
    if before != "sdpa" or not torch.is_inference_mode_enabled():
        yield
        return
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
