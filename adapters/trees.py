"""Token trees: one prompt and several completions of it, computed in one row.

The lines of a student's thought are completions of one prompt that do not see each other. Packed
as a tree the prompt is computed once; each branch attends to the prompt and to itself only, at
the positions it would have alone, so the result equals that of separate rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100


@dataclass(frozen=True, slots=True)
class TokenTree:
    """Branches packed behind their common prompt; all lists have one entry per token.

    Args:
        input_ids: Token ids: the prompt, then each branch.
        position_ids: The position each token has in its own sequence.
        branch_ids: 0 for the prompt, k for the k-th branch.
        labels: The token itself where it is to be learned, else ``IGNORED``.
    """

    input_ids: list[int]
    position_ids: list[int]
    branch_ids: list[int]
    labels: list[int]


def grow_tree(prompt: Sequence[int], branches: Sequence[tuple[Sequence[int], int]]) -> TokenTree:
    """Pack branches behind their prompt.

    Args:
        prompt: Token ids of the prompt.
        branches: Token ids of each branch, and how many of them at its beginning are given
            rather than learned; at least 1 where there are several, since the prompt's last token
            cannot predict the first token of every branch.
    """
    start = len(prompt)
    ids, positions, members = list(prompt), list(range(start)), [0] * start
    labels = [IGNORED] * start
    for number, (branch, given) in enumerate(branches, start=1):
        ids += branch
        positions += range(start, start + len(branch))
        members += [number] * len(branch)
        labels += [IGNORED] * given + list(branch[given:])
    return TokenTree(ids, positions, members, labels)


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of unequal length as one tensor, padded on the right; *shape* (batch, tokens)."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def branch_mask(
    branch_ids_BT: Tensor, own_BQ: Tensor, stems_BQ: Tensor, dtype: torch.dtype
) -> Tensor:
    """The additive attention mask of the last tokens of a batch of trees.

    A token sees itself and earlier tokens of the prompt, of its own branch and of its stem.

    Args:
        branch_ids_BT: Of all tokens: 0 for a prompt token, k for branch k, -1 for padding.
            *Shape:* (batch, tokens).
        own_BQ: The branch of each of the last tokens. *Shape:* (batch, queries).
        stems_BQ: The branch that its own branch continues; its own where that begins at the
            prompt. *Shape:* (batch, queries).
        dtype: Of the student's activations.

    Returns:
        0 where attention is allowed, the least finite number elsewhere.
        *Shape:* (batch, 1, queries, tokens).
    """
    tokens, queries = branch_ids_BT.shape[1], own_BQ.shape[1]
    key_B1T = branch_ids_BT[:, None, :]
    in_sight_BQT = (
        (key_B1T == 0) | (key_B1T == own_BQ[:, :, None]) | (key_B1T == stems_BQ[:, :, None])
    )
    all_QT = torch.ones(queries, tokens, dtype=torch.bool, device=branch_ids_BT.device)
    seen_BQT = in_sight_BQT & all_QT.tril(diagonal=tokens - queries)
    mask_BQT = torch.zeros(seen_BQT.shape, dtype=dtype, device=branch_ids_BT.device)
    return mask_BQT.masked_fill(~seen_BQT, torch.finfo(dtype).min)[:, None]
