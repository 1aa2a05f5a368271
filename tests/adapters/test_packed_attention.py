"""Attention with shared keys and values gives what transformers' own gives."""

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from routedk.adapters.engine import packed_attention

from .conftest import assert_same_scores


@pytest.mark.parametrize(
    ("dtype", "products"),
    [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)],
)
@pytest.mark.parametrize(("batch", "queries"), [(1, 1), (1, 5), (2, 1), (2, 5)])
def test_packed_attention_equals_the_library(
    batch: int,
    queries: int,
    dtype: torch.dtype,
    products: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Two queries at a time, whatever the CPU and however few there are.
    monkeypatch.setattr(packed_attention, "_CACHED", 2 * 6 * 9)
    monkeypatch.setattr(packed_attention, "_FEWEST", 1)
    monkeypatch.setattr(packed_attention, "_MANY", 1)
    monkeypatch.setattr(packed_attention, "_multiplies_faster", lambda: products)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(batch, queries, 6, 8, generator=generator).transpose(1, 2)
    key, value = (torch.randn(batch, 2, 12, 8, generator=generator)[:, :, :9] for _ in range(2))
    mask = torch.zeros(batch, 1, queries, 9).masked_fill(
        torch.rand(batch, 1, queries, 9, generator=generator) < 0.4, torch.finfo(dtype).min
    )
    mask[-1, :, -1] = torch.finfo(dtype).min  # as padding is
    module = type("M", (torch.nn.Module,), {"num_key_value_groups": 3, "is_causal": True})()
    given = [tensor.to(dtype) for tensor in (query, key, value, mask)]
    found = packed_attention.packed_attention_forward(module, *given, scaling=0.3)[0]
    wanted = sdpa_attention_forward(module, *given, scaling=0.3)[0]
    if dtype == torch.float32:
        assert_same_scores(found, wanted)
    else:
        torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)
