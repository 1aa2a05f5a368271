"""Keys and values of a forward pass under way, kept so that a step copies its own tokens only."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

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


class Held(Protocol):
    """Keys and values of some tokens: per decoder layer, *shape* (heads, tokens, head width)."""

    @property
    def keys(self) -> Sequence[Tensor]:
        """The keys."""
        ...

    @property
    def values(self) -> Sequence[Tensor]:
        """The values."""
        ...


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """A cache layer with room to grow; transformers' own copies all it holds at each step.

    Args:
        room: Tokens that fit without copying what is held; it grows beyond them.
    """

    def __init__(self, room: int = 0) -> None:
        super().__init__()
        self._least = room

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Begin empty, with the types of these."""
        super().lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self._room: tuple[Tensor, Tensor] = (self.keys, self.values)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values; *shape* (batch, heads, tokens, head width)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.keys.shape[-2]
        keys, values = self._grow(held + key_states.shape[-2])
        keys[:, :, held:] = key_states
        values[:, :, held:] = value_states
        return keys, values

    def begin(self, keys: Sequence[Tensor | None], values: Sequence[Tensor | None]) -> None:
        """Begin with keys and values of rows of unequal length, padded on the right.

        Args:
            keys: One per row, *shape* (heads, tokens, head width); None for a row without any. At
                least one is there.
            values: As keys.
        """
        known = next(row for row in keys if row is not None)
        empty = known.new_empty(len(keys), known.shape[0], 0, known.shape[-1])
        self.lazy_initialization(empty, empty)
        grown = self._grow(max(0 if row is None else row.shape[-2] for row in keys))
        for held, rows in zip(grown, (keys, values), strict=True):
            for place, row in enumerate(rows):
                tokens = 0 if row is None else row.shape[-2]
                if row is not None:
                    held[place, :, :tokens] = row
                # Padding is never attended to, but must be finite: no number times 0 else is 0.
                held[place, :, tokens:] = 0

    def _grow(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Hold so many tokens, the new ones still to be written."""
        held = self.keys.shape[-2]
        if tokens > self._room[0].shape[-2]:
            # Half as many more: what is held is copied few times, however long it grows.
            size = max(self._least, tokens + tokens // 2 if held else tokens)
            rooms = []
            for old in (self.keys, self.values):
                new = old.new_empty(*old.shape[:2], size, old.shape[-1])
                new[:, :, :held] = old
                rooms.append(new)
            self._room = (rooms[0], rooms[1])
        self.keys, self.values = (room[:, :, :tokens] for room in self._room)
        return self.keys, self.values


def start_cache(rows: Sequence[Held | None], room: int = 0) -> tuple[Cache, list[int]]:
    """A cache that holds what is known of each row, padded on the right up to equal length.

    Args:
        rows: None where nothing of a row is computed yet.
        room: Tokens that can be added to each row before what is held has to be copied.

    Returns:
        The cache, and how many tokens of each row it holds.
    """
    held = [0 if row is None else row.keys[0].shape[-2] for row in rows]
    roomy = partial(RoomyLayer, max(held) + room)
    cache = Cache(layer_class_to_replicate=roomy)
    layers = next((len(row.keys) for row in rows if row is not None), 0)
    for number in range(layers):
        layer = roomy()
        layer.begin(
            [None if row is None else row.keys[number] for row in rows],
            [None if row is None else row.values[number] for row in rows],
        )
        cache.layers.append(layer)
    return cache, held


def held_tokens(held: Sequence[int], device: torch.device) -> Tensor:
    """The members of what a fresh cache holds: 0 for a prompt's tokens, -1 for padding.

    *Shape:* (batch, tokens), as in `routedk.adapters.trees.tree_mask`.
    """
    places_T = torch.arange(max(held, default=0), device=device)
    return torch.where(places_T < torch.tensor(held, device=device)[:, None], 0, -1)
