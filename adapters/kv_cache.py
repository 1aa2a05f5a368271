"""Keys and values of a forward pass under way, kept so that a step copies its own tokens only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


@dataclass(frozen=True, eq=False)
class Prefix:
    """The keys and values of a prompt's first tokens, never to be written to.

    Args:
        ids: The tokens.
        keys: Per decoder layer, *shape* (heads, tokens, head width).
        values: As keys.
    """

    ids: tuple[int, ...]
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def bytes(self) -> int:
        """Memory of its tensors."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))

    def first(self, tokens: int) -> "Prefix":
        """Its first tokens, in the same memory."""
        if tokens == len(self.ids):
            return self
        return Prefix(
            self.ids[:tokens],
            tuple(tensor[:, :tokens] for tensor in self.keys),
            tuple(tensor[:, :tokens] for tensor in self.values),
        )


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """A cache layer with room to grow; transformers' own copies all it holds at each step."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Begin empty."""
        super().lazy_initialization(key_states, value_states)
        self.keys = key_states[:, :, :0]
        self.values = value_states[:, :, :0]
        self._room: tuple[Tensor, Tensor] = (self.keys, self.values)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values; *shape* (batch, heads, tokens, head width)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.keys.shape[-2]
        wanted = held + key_states.shape[-2]
        self.reserve(wanted)
        keys, values = self._room
        keys[:, :, held:wanted] = key_states
        values[:, :, held:wanted] = value_states
        self.keys, self.values = keys[:, :, :wanted], values[:, :, :wanted]
        return self.keys, self.values

    def reserve(self, tokens: int) -> None:
        """Make room for this many tokens in all, and for half as many more."""
        if tokens <= self._room[0].shape[-2]:
            return
        held = self.keys.shape[-2]
        grown = []
        for old in (self.keys, self.values):
            new = old.new_empty(*old.shape[:2], tokens + tokens // 2, old.shape[-1])
            new[:, :, :held] = old
            grown.append(new)
        self._room = (grown[0], grown[1])
        self.keys, self.values = grown[0][:, :, :held], grown[1][:, :, :held]


def start_cache(prefixes: Sequence[Prefix | None]) -> tuple[Cache, list[int]]:
    """A cache that holds each row's prefix, padded on the right up to equal length.

    Args:
        prefixes: One per row; None where nothing of a row is computed yet.

    Returns:
        The cache, and how many tokens of each row it holds.
    """
    cache = Cache(layer_class_to_replicate=RoomyLayer)
    held = [0 if prefix is None else len(prefix.ids) for prefix in prefixes]
    known = [prefix for prefix in prefixes if prefix is not None]
    for number in range(len(known[0].keys) if known else 0):
        layer = RoomyLayer()
        like = known[0].keys[number]
        shape = (len(prefixes), like.shape[0], max(held), like.shape[-1])
        # Padding is never attended to, but must be finite: nothing times 0 is a number else.
        pair = like.new_zeros(shape), like.new_zeros(shape)
        for row, prefix in enumerate(prefixes):
            if prefix is not None:
                pair[0][row, :, : held[row]] = prefix.keys[number]
                pair[1][row, :, : held[row]] = prefix.values[number]
        layer.update(*pair)
        cache.layers.append(layer)
    return cache, held


def prefix_of(cache: Cache, ids: Sequence[int]) -> Prefix:
    """What a cache of one row holds of these tokens, copied."""
    tokens = len(ids)
    return Prefix(
        tuple(ids),
        tuple(layer.keys[0, :, :tokens].clone() for layer in cache.layers),
        tuple(layer.values[0, :, :tokens].clone() for layer in cache.layers),
    )


def held_tokens(held: Sequence[int], device: torch.device) -> Tensor:
    """The members of what a fresh cache holds: 0 for a prompt's tokens, -1 for padding.

    *Shape:* (batch, tokens), as in `routedk.adapters.trees.tree_mask`.
    """
    places_T = torch.arange(max(held, default=0), device=device)
    return torch.where(places_T < torch.tensor(held, device=device)[:, None], 0, -1)
