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

from routedk.adapters.engine.kv_cache import Prefix, held_tokens, start_cache
from routedk.adapters.engine.packed_attention import packed_attention
from routedk.adapters.trees import branch_mask, pad

NOTHING = -1

# Most tokens that are read in one pass, padding included; a tree that is longer is read alone.
_TOKENS = {"cpu": 2048}
_TOKENS_ELSEWHERE = 8192
# So many times as many are held in its cache at most, what was known before among them.
_HELD = 4
# Most of what is read that may be padding.
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
    """What one pass made of one tree; tensors may be views of what the pass made of all.

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


def like_lengths(
    read: Sequence[int], held: Sequence[int], most: int, padding: float = _PADDING
) -> list[list[int]]:
    """Rows to be computed together: of like length, and not too many.

    Args:
        read: Tokens to be read of each row.
        held: Tokens known of each row.
        most: Most tokens that a batch reads, padding included; it holds four times as many at
            most. A row that has more is a batch alone.
        padding: Most of what a batch reads that may be padding, in [0, 1).

    Returns:
        The places of each batch's rows, rising.
    """
    batches: list[list[int]] = []
    total = known = 0
    for place in sorted(range(len(read)), key=lambda k: (read[k], held[k])):
        longest = read[place]
        size = len(batches[-1]) + 1 if batches else 0
        known = max(known, held[place])
        fits = size * longest <= most and size * (known + longest) <= _HELD * most
        if size and fits and total + longest >= (1 - padding) * size * longest:
            batches[-1].append(place)
            total += longest
        else:
            batches.append([place])
            total, known = longest, held[place]
    return [sorted(batch) for batch in batches]


@torch.inference_mode()
def read_trees(
    model: Any,
    trees: Sequence[Tree],
    prefixes: Sequence[Prefix | None],
    gating: Gating = no_gates,
) -> Iterator[Pass]:
    """Compute all tokens of the trees that are not known.

    Args:
        model: A causal LM of transformers with ``model``.
        trees: At least one.
        prefixes: For each tree what is known of its prompt's first tokens, not of all its tokens;
            None where nothing is.
        gating: Sets their gates.
    """
    device = model.device
    known = [0 if prefix is None else len(prefix.ids) for prefix in prefixes]
    lengths = [len(tree.input_ids) - mine for tree, mine in zip(trees, known, strict=True)]
    for places in like_lengths(lengths, known, _TOKENS.get(device.type, _TOKENS_ELSEWHERE)):
        longest = max(lengths[place] for place in places)
        cache, held = start_cache([prefixes[place] for place in places], longest)
        rests = [(trees[place], first) for place, first in zip(places, held, strict=True)]
        own_BT = pad([tree.branch_ids[first:] for tree, first in rests], NOTHING).to(device)
        stems_BT = pad([tree.stem_ids[first:] for tree, first in rests], NOTHING).to(device)
        members_BT = torch.cat([held_tokens(held, device), own_BT], dim=1)
        with packed_attention(model), gating(places):
            hidden_BTH = model.model(
                input_ids=pad([tree.input_ids[first:] for tree, first in rests], 0).to(device),
                position_ids=pad([tree.position_ids[first:] for tree, first in rests], 0).to(
                    device
                ),
                attention_mask=branch_mask(members_BT, own_BT, stems_BT, model.dtype),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
        read = [lengths[place] for place in places]
        yield Pass(places, hidden_BTH, cache, members_BT, held, read)


def join(rows: Sequence[Row], room: int = 0) -> tuple[Cache, Tensor]:
    """Rows of several passes in one cache, padded on the right.

    Args:
        rows: At least one.
        room: As in `start_cache`.

    Returns:
        The cache and the members of what it holds, *shape* (batch, tokens).
    """
    cache, _ = start_cache(rows, room)
    members_BT = pad([row.members for row in rows], NOTHING)
    return cache, members_BT.to(rows[0].hidden_TH.device)
