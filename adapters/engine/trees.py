"""Token trees of several sessions, one batch row each, over one KV cache.

Everything written about a session (a line per item, several samples of each) branches off one
prompt. The prompt's keys and values are held once, and the attention mask lets each token see the
prompt, the head that its branch continues, and its own branch.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from routedk.adapters.engine.writing import Branch, Writing
from routedk.adapters.prompts import EncodedPrompt
from routedk.adapters.trees import pad, tree_masks

PROMPT, PADDING = 0, -1

# Sets the gates of these rows, counted from 0, for one forward pass over them in this order.
Gating = Callable[[Sequence[int]], AbstractContextManager[Any]]


class Node(NamedTuple):
    """One token of a tree.

    Args:
        token: Its id.
        position: Its position in its own sequence.
        branch: Which branch it is on; ``PROMPT`` for prompt tokens.
        head: The branch that its branch continues and sees; its own if that continues the prompt.
    """

    token: int
    position: int
    branch: int
    head: int


def consecutive(tokens: Sequence[int], position: int, branch: int, head: int) -> list[Node]:
    """Consecutive tokens of one branch, the first at this position."""
    return [Node(token, position + k, branch, head) for k, token in enumerate(tokens)]


@dataclass(frozen=True, eq=False)
class Prefix:
    """The KV cache of a prompt's first tokens, never written to.

    Args:
        ids: The tokens.
        layers: Keys and values of each decoder layer, *shape* (1, heads, tokens, head width).
    """

    ids: tuple[int, ...]
    layers: tuple[tuple[Tensor, Tensor], ...]


NO_PREFIX = Prefix((), ())


@dataclass(eq=False)
class Tree:
    """A prompt with the heads of its lines, and the branches that continue them.

    Args:
        row: Its row number.
        prompt: The prompt.
        heads: As in `Writing`.
        prefix: What the prefix cache holds of the prompt.
    """

    row: int
    prompt: EncodedPrompt
    heads: Sequence[tuple[int, ...]]
    prefix: Prefix = NO_PREFIX
    branches: list[Branch] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The number of tokens to read."""
        return len(self.prompt.ids) - len(self.prefix.ids) + sum(map(len, self.heads))

    def nodes(self) -> tuple[list[Node], list[int]]:
        """The tokens to read, and the index of the last one of each head."""
        ids, known = self.prompt.ids, len(self.prefix.ids)
        nodes = consecutive(ids[known:], known, PROMPT, PROMPT)
        ends = []
        for number, head in enumerate(self.heads, start=1):
            nodes += consecutive(head, len(ids), number, number)
            ends.append(len(nodes) - 1)
        return nodes, ends

    def sprout(self, job: Writing) -> list[Branch]:
        """Add the branches that write a job, one per line."""
        first = len(self.heads) + len(self.branches) + 1
        grown = [Branch(job, k, self.row, first + k) for k in range(len(self.heads))]
        self.branches += grown
        return grown

    @staticmethod
    def last(branch: Branch) -> Node:
        """The token that a branch wrote last."""
        start = len(branch.job.prompt.ids) + len(branch.job.heads[branch.line])
        position = start + len(branch.tokens) - 1
        return Node(branch.tokens[-1], position, branch.number, branch.line + 1)


class TreeBatch:
    """Trees that grow together.

    Args:
        model: The student's.
        gating: Sets the gates of rows.
        trees: They share one prefix; nothing else of them has been read yet.
    """

    def __init__(self, model: Any, gating: Gating, trees: Sequence[Tree]) -> None:
        self._model = model
        self._gating = gating
        self._rows = [tree.row for tree in trees]
        prefix = trees[0].prefix
        shape = (len(self._rows), -1, -1, -1)
        layers = [(keys.expand(shape), values.expand(shape)) for keys, values in prefix.layers]
        self._cache = DynamicCache(layers)
        # For each token in the cache.
        self._branches_BT = torch.full((len(self._rows), len(prefix.ids)), PROMPT).to(model.device)
        known_T = torch.arange(len(prefix.ids), device=model.device)
        self._positions_BT = known_T.expand_as(self._branches_BT)

    def read(
        self, nodes: Sequence[Sequence[Node]], wanted: Sequence[Sequence[int]] | None = None
    ) -> Tensor:
        """Compute further tokens of each row and append them to the cache.

        Args:
            nodes: For each row, its tokens, each after those that it sees.
            wanted: For each row, the indices of tokens whose scores are wanted; None for all.

        Returns:
            The next-token scores of the wanted tokens, row by row, in token order.
            *Shape:* (wanted, vocabulary).
        """
        filler = Node(0, 0, PADDING, PADDING)
        fields = zip(*(zip(*row, strict=True) for row in nodes), strict=True)
        tensors = [pad(rows, value) for rows, value in zip(fields, filler, strict=True)]
        ids_BQ, positions_BQ, own_BQ, heads_BQ = (t.to(self._model.device) for t in tensors)
        self._branches_BT = torch.cat([self._branches_BT, own_BQ], dim=1)
        self._positions_BT = torch.cat([self._positions_BT, positions_BQ], dim=1)
        wanted_BQ = own_BQ != PADDING
        if wanted is not None:
            marked = [[k in mine for k in range(ids_BQ.shape[1])] for mine in map(set, wanted)]
            wanted_BQ = torch.tensor(marked, device=self._model.device)
        masks = tree_masks(self._model, self._branches_BT, self._positions_BT, heads_BQ)
        with self._gating(self._rows):
            scores_NV: Tensor = self._model(
                input_ids=ids_BQ,
                position_ids=positions_BQ,
                attention_mask=masks,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=wanted_BQ,
            ).logits
        return scores_NV

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        if len(rows) < len(self._rows):
            places = torch.tensor([*map(self._rows.index, rows)], device=self._model.device)
            self._cache.batch_select_indices(places)
            self._branches_BT = self._branches_BT[places]
            self._positions_BT = self._positions_BT[places]
            self._rows = list(rows)

    def prefix(self, ids: tuple[int, ...]) -> Prefix:
        """Read the first tokens of the only tree's prompt into a cache of their own."""
        self.read([consecutive(ids, 0, PROMPT, PROMPT)], wanted=[[]])
        return Prefix(ids, tuple((layer.keys, layer.values) for layer in self._cache.layers))
