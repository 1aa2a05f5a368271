"""Decoding along the branches of token trees: many completions of one prompt, computed as one row.

The prompt's keys and values are held once per session, however many completions it has, and each
step computes one token of every completion that is not yet finished.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from routedk.adapters.trees import TokenTree, branch_mask, pad, tree_mask

_NOTHING = -1


@dataclass
class Branch:
    """One completion as it is written.

    Args:
        row: Which tree it belongs to.
        stem: Which of the tree's branches it goes on from, counted from 1.
        draw: Which completion of this branch it is, counted from 0.
        number: Its own number among the tree's branches.
        position: The position of its next token.
        written: Its new tokens so far.
    """

    row: int
    stem: int
    draw: int
    number: int
    position: int
    written: list[int] = field(default_factory=list)


@torch.inference_mode()
def decode_branches(
    model: Any,
    trees: Sequence[TokenTree],
    choose: Callable[[Sequence[Branch], Tensor], Sequence[int]],
    *,
    end: int,
    max_tokens: int,
    draws: int = 1,
) -> list[list[Branch]]:
    """Write on from the end of every branch until its end token.

    Args:
        model: A causal LM of transformers with ``model`` and ``lm_head``.
        trees: Prompts with the given beginnings of their branches, each branch not empty.
        choose: Gets the branches still open and their next-token scores, *shape* (branches,
            vocabulary), which it may overwrite, and says each one's next token.
        end: The token that ends a branch; it is written, too.
        max_tokens: New tokens per branch at most, at least 1.
        draws: Completions of each branch.

    Returns:
        For each tree its completions: those of the first branch, those of the second, and so on.
    """
    device = model.device
    cache = DynamicCache()
    members_BT = pad([tree.branch_ids for tree in trees], _NOTHING).to(device)
    hidden_BTH = model.model(
        input_ids=pad([tree.input_ids for tree in trees], 0).to(device),
        position_ids=pad([tree.position_ids for tree in trees], 0).to(device),
        attention_mask=tree_mask(members_BT, model.dtype),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    grown = [_sprout(row, tree, draws) for row, tree in enumerate(trees)]
    open_ = [branch for branches in grown for branch, _ in branches]
    last = [place for branches in grown for _, place in branches]
    hidden_NH = hidden_BTH[[branch.row for branch in open_], last]
    for step in range(max_tokens):
        tokens = choose(open_, model.lm_head(hidden_NH).float())
        for branch, token in zip(open_, tokens, strict=True):
            branch.written.append(token)
        open_ = [branch for branch in open_ if branch.written[-1] != end]
        if not open_ or step + 1 == max_tokens:
            break
        hidden_NH, members_BT = _advance(model, cache, open_, members_BT)
    return [[branch for branch, _ in branches] for branches in grown]


def _sprout(row: int, tree: TokenTree, draws: int) -> list[tuple[Branch, int]]:
    """The completions of a tree's branches, each with the place of the token it goes on from."""
    ends = {stem: place for place, stem in enumerate(tree.branch_ids) if stem > 0}
    after = {stem: tree.position_ids[place] + 1 for stem, place in ends.items()}
    return [
        (
            Branch(row, stem, draw, len(ends) + draws * (stem - 1) + draw + 1, after[stem]),
            place,
        )
        for stem, place in ends.items()
        for draw in range(draws)
    ]


def _advance(
    model: Any, cache: DynamicCache, open_: Sequence[Branch], members_BT: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the last token of each open branch.

    Returns:
        The hidden states of these tokens, *shape* (branches, hidden), and the members of what
        the cache now holds.
    """
    columns: list[list[Branch]] = [[] for _ in range(len(members_BT))]
    places = []
    for branch in open_:
        places.append((branch.row, len(columns[branch.row])))
        columns[branch.row].append(branch)
    device = members_BT.device
    own_BL = pad([[b.number for b in row] for row in columns], _NOTHING).to(device)
    stems_BL = pad([[b.stem for b in row] for row in columns], _NOTHING).to(device)
    members_BT = torch.cat([members_BT, own_BL], dim=1)
    hidden_BLH = model.model(
        input_ids=pad([[b.written[-1] for b in row] for row in columns], 0).to(device),
        position_ids=pad([[b.position for b in row] for row in columns], 0).to(device),
        attention_mask=branch_mask(members_BT, own_BL, stems_BL, model.dtype),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    for branch in open_:
        branch.position += 1
    rows, mine = zip(*places, strict=True)
    return hidden_BLH[list(rows), list(mine)], members_BT
