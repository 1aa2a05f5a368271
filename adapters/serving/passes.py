"""Token trees as a model reads them: in passes over trees of like length, so that little is padded.

The trees of a batch are of unequal length, the more so where some prompts are known already. Padded
to the longest all at once, most of a pass may be padding, and its activations outgrow the caches of
a CPU.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from routedk.adapters.serving.kv_cache import Prefix, held_tokens, start_cache
from routedk.adapters.serving.packed_attention import packed_attention
from routedk.adapters.trees import branch_mask, pad

NOTHING = -1

# Most tokens that are read in one pass, padding included; a tree that is longer is read alone.
_TOKENS = {"cpu": 2048}
_TOKENS_ELSEWHERE = 16384
# Most of a pass that may be padding.
_PADDING = 0.2

Gating = Callable[[Sequence[int]], AbstractContextManager[None]]
"""Sets the gates of these trees, counted from 0, for one pass over them in this order."""


class Tree(Protocol):
    """A prompt and its branches; all lists have one entry per token, the prompt's first."""

    @property
    def input_ids(self) -> list[int]:
        """Token ids."""
        ...

    @property
    def position_ids(self) -> list[int]:
        """The position each token has in its own sequence."""
        ...

    @property
    def branch_ids(self) -> list[int]:
        """0 for the prompt, k for the k-th branch."""
        ...

    @property
    def stem_ids(self) -> list[int]:
        """The branch that a token's branch goes on from; its own where that is the prompt."""
        ...


@dataclass(frozen=True)
class Row:
    """What one pass made of one tree, all of it views of what the pass made of all.

    Args:
        hidden_TH: Hidden states of the tokens that were read, *shape* (tokens, hidden).
        members: The branches of the tokens that were known, then of those that were read.
        keys: Per decoder layer those of all these tokens, *shape* (heads, tokens, head width).
        values: As keys.
    """

    hidden_TH: Tensor
    members: list[int]
    keys: list[Tensor]
    values: list[Tensor]

    def prompt(self, ids: Sequence[int]) -> Prefix:
        """A copy of the keys and values of the prompt, whose tokens these are."""
        end = len(ids)
        return Prefix(
            tuple(ids),
            tuple(tensor[:, :end].clone() for tensor in self.keys),
            tuple(tensor[:, :end].clone() for tensor in self.values),
        )


@dataclass(frozen=True)
class Pass:
    """One pass over trees of like length.

    Args:
        trees: Which trees, counted from 0.
        hidden_BTH: Hidden states of what was read of each, padded on the right.
        cache: The keys and values of what was known and what was read.
        members_BT: The branch of each of their tokens, ``NOTHING`` for padding.
        held: How many tokens of each tree were known.
        read: How many were read.
    """

    trees: Sequence[int]
    hidden_BTH: Tensor
    cache: Cache
    members_BT: Tensor
    held: Sequence[int]
    read: Sequence[int]

    def row(self, place: int) -> Row:
        """What it made of its place-th tree."""
        known, end = self.held[place], self.read[place]
        first = max(self.held)

        def kept(tensor_BKTW: Tensor) -> Tensor:
            mine_KTW = tensor_BKTW[place]
            if known == first:
                return mine_KTW[:, : first + end]
            return torch.cat([mine_KTW[:, :known], mine_KTW[:, first : first + end]], dim=1)

        members = self.members_BT[place].tolist()
        return Row(
            self.hidden_BTH[place, :end],
            [*members[:known], *members[first : first + end]],
            [kept(layer.keys) for layer in self.cache.layers],
            [kept(layer.values) for layer in self.cache.layers],
        )


def no_gates(trees: Sequence[int]) -> AbstractContextManager[None]:
    """The gating of a student without experts."""
    return nullcontext()


def like_lengths(lengths: Sequence[int], most: int, padding: float = _PADDING) -> list[list[int]]:
    """Places of rows to be computed together: of like length, and not too many.

    Args:
        lengths: Tokens of each row.
        most: Most tokens of a batch, padding included; a row that is longer is a batch alone.
        padding: Most of a batch that may be padding, in [0, 1).
    """
    batches: list[list[int]] = []
    total = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        longest = lengths[place]
        room = longest * (len(batches[-1]) + 1) if batches else 0
        if batches and room <= most and total + longest >= (1 - padding) * room:
            batches[-1].append(place)
            total += longest
        else:
            batches.append([place])
            total = longest
    return batches


@torch.inference_mode()
def read_trees(
    model: Any,
    trees: Sequence[Tree],
    prefixes: Sequence[Prefix | None],
    gating: Gating = no_gates,
    *,
    room: int = 0,
) -> Iterator[Pass]:
    """Compute all tokens of the trees that are not known.

    Args:
        model: A causal LM of transformers with ``model``.
        trees: At least one.
        prefixes: For each tree what is known of its prompt's first tokens, not of all its tokens;
            None where nothing is.
        gating: Sets their gates.
        room: Tokens that the caches are to have room for beside those that are read.
    """
    device = model.device
    lengths = [
        len(tree.input_ids) - (0 if prefix is None else len(prefix.ids))
        for tree, prefix in zip(trees, prefixes, strict=True)
    ]
    for places in like_lengths(lengths, _TOKENS.get(device.type, _TOKENS_ELSEWHERE)):
        longest = max(lengths[place] for place in places)
        cache, held = start_cache([prefixes[place] for place in places], longest + room)
        rests = [(trees[place], known) for place, known in zip(places, held, strict=True)]
        own_BT = pad([tree.branch_ids[known:] for tree, known in rests], NOTHING).to(device)
        stems_BT = pad([tree.stem_ids[known:] for tree, known in rests], NOTHING).to(device)
        members_BT = torch.cat([held_tokens(held, device), own_BT], dim=1)
        with packed_attention(model), gating(places):
            hidden_BTH = model.model(
                input_ids=pad([tree.input_ids[known:] for tree, known in rests], 0).to(device),
                position_ids=pad([t.position_ids[known:] for t, known in rests], 0).to(device),
                attention_mask=branch_mask(members_BT, own_BT, stems_BT, model.dtype),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
        read = [lengths[place] for place in places]
        yield Pass(places, hidden_BTH, cache, members_BT, held, read)


def join(passes: Sequence[Pass], room: int = 0) -> tuple[list[Tensor], Cache, Tensor]:
    """All trees in one cache, in their order.

    Args:
        passes: Over all trees, each once.
        room: As in `read_trees`.

    Returns:
        The hidden states of each tree's tokens that were read, *shape* (tokens, hidden); the
        cache, padded on the right; and the members of what it holds, *shape* (batch, tokens).
    """
    if len(passes) == 1 and list(passes[0].trees) == sorted(passes[0].trees):
        (only,) = passes
        hidden = [row[:end] for row, end in zip(only.hidden_BTH, only.read, strict=True)]
        return hidden, only.cache, only.members_BT
    rows = {tree: one.row(place) for one in passes for place, tree in enumerate(one.trees)}
    ordered = [rows[tree] for tree in range(len(rows))]
    held = [Prefix(tuple(row.members), tuple(row.keys), tuple(row.values)) for row in ordered]
    cache, _ = start_cache(held, room)
    members_BT = pad([row.members for row in ordered], NOTHING).to(passes[0].members_BT.device)
    return [row.hidden_TH for row in ordered], cache, members_BT
